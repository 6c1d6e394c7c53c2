//! Integer arithmetic.

use super::{B16, B32, B64, Register, check, integers, pairs, triples};

/// Checks instructions of two sources over the edges of a type.
macro_rules! binary {
    ($type:ty, $unsigned:ty, $register:expr, $name:literal, $($opcode:literal => $expected:expr),* $(,)?) => {
        $(check(
            concat!($opcode, ".", $name, " {0}, {1}, {2}"),
            $register,
            [$register; 2],
            &pairs(&integers()),
            |[a, b]| {
                let expected: fn($type, $type) -> $type = $expected;
                u64::from(expected(a as $type, b as $type) as $unsigned)
            },
        );)*
    };
}

macro_rules! all_of {
    ($type:ident, $unsigned:ident, $wide:ident, $register:expr, $name:literal) => {
        binary!($type, $unsigned, $register, $name,
            "add" => $type::wrapping_add,
            "sub" => $type::wrapping_sub,
            "mul.lo" => $type::wrapping_mul,
            "mul.hi" => |a, b| ((<$wide>::from(a) * <$wide>::from(b)) >> $type::BITS) as $type,
            "min" => |a, b| a.min(b),
            "max" => |a, b| a.max(b),
            "div" => |a, b| if b == 0 { $unsigned::MAX as $type } else { a.wrapping_div(b) },
            "rem" => |a, b| if b == 0 { a } else { a.wrapping_rem(b) },
        );
    };
}

#[test]
fn arithmetic_wraps_around_in_every_type() {
    all_of!(u16, u16, u32, B16, "u16");
    all_of!(i16, u16, i32, B16, "s16");
    all_of!(u32, u32, u64, B32, "u32");
    all_of!(i32, u32, i64, B32, "s32");
    all_of!(u64, u64, u128, B64, "u64");
    all_of!(i64, u64, i128, B64, "s64");
}

#[test]
fn wide_products_keep_every_bit() {
    let rows = pairs(&integers());
    check("mul.wide.u16 {0}, {1}, {2}", B32, [B16; 2], &rows, |[a, b]| {
        u64::from(a as u16) * u64::from(b as u16)
    });
    check("mul.wide.s16 {0}, {1}, {2}", B32, [B16; 2], &rows, |[a, b]| {
        u64::from((i32::from(a as i16) * i32::from(b as i16)) as u32)
    });
    check("mul.wide.u32 {0}, {1}, {2}", B64, [B32; 2], &rows, |[a, b]| {
        u64::from(a as u32) * u64::from(b as u32)
    });
    check("mul.wide.s32 {0}, {1}, {2}", B64, [B32; 2], &rows, |[a, b]| {
        (i64::from(a as i32) * i64::from(b as i32)) as u64
    });
}

#[test]
fn multiply_and_add() {
    let rows = triples(&[0, 1, 5, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, u64::MAX]);
    check("mad.lo.u16 {0}, {1}, {2}, {3}", B16, [B16; 3], &rows, |[a, b, c]| {
        u64::from((a as u16).wrapping_mul(b as u16).wrapping_add(c as u16))
    });
    check("mad.lo.s32 {0}, {1}, {2}, {3}", B32, [B32; 3], &rows, |[a, b, c]| {
        u64::from((a as u32).wrapping_mul(b as u32).wrapping_add(c as u32))
    });
    check("mad.lo.s64 {0}, {1}, {2}, {3}", B64, [B64; 3], &rows, |[a, b, c]| {
        a.wrapping_mul(b).wrapping_add(c)
    });
    check("mad.hi.u32 {0}, {1}, {2}, {3}", B32, [B32; 3], &rows, |[a, b, c]| {
        let high = (u64::from(a as u32) * u64::from(b as u32)) >> 32;
        u64::from((high as u32).wrapping_add(c as u32))
    });
    check("mad.wide.u32 {0}, {1}, {2}, {3}", B64, [B32, B32, B64], &rows, |[a, b, c]| {
        (u64::from(a as u32) * u64::from(b as u32)).wrapping_add(c)
    });
    check("mad.wide.s32 {0}, {1}, {2}, {3}", B64, [B32, B32, B64], &rows, |[a, b, c]| {
        ((i64::from(a as i32) * i64::from(b as i32)) as u64).wrapping_add(c)
    });
    check("mad.wide.u16 {0}, {1}, {2}, {3}", B32, [B16, B16, B32], &rows, |[a, b, c]| {
        u64::from((u32::from(a as u16) * u32::from(b as u16)).wrapping_add(c as u32))
    });
    check("sad.u32 {0}, {1}, {2}, {3}", B32, [B32; 3], &rows, |[a, b, c]| {
        u64::from((a as u32).abs_diff(b as u32).wrapping_add(c as u32))
    });
    check("sad.s32 {0}, {1}, {2}, {3}", B32, [B32; 3], &rows, |[a, b, c]| {
        u64::from((a as i32).abs_diff(b as i32).wrapping_add(c as u32))
    });
}

#[test]
fn saturation_signs_and_absolute_values() {
    let values = integers();
    let rows = pairs(&values);
    check("add.sat.s32 {0}, {1}, {2}", B32, [B32; 2], &rows, |[a, b]| {
        u64::from((a as i32).saturating_add(b as i32) as u32)
    });
    check("sub.sat.s32 {0}, {1}, {2}", B32, [B32; 2], &rows, |[a, b]| {
        u64::from((a as i32).saturating_sub(b as i32) as u32)
    });
    let single: Vec<[u64; 1]> = values.iter().map(|&x| [x]).collect();
    let one = |text: &str, register: Register, expected: fn(u64) -> u64| {
        check(text, register, [register], &single, |[a]| expected(a));
    };
    one("neg.s16 {0}, {1}", B16, |a| u64::from((a as u16).wrapping_neg()));
    one("neg.s32 {0}, {1}", B32, |a| u64::from((a as u32).wrapping_neg()));
    one("neg.s64 {0}, {1}", B64, u64::wrapping_neg);
    one("abs.s32 {0}, {1}", B32, |a| u64::from((a as i32).unsigned_abs()));
    one("abs.s64 {0}, {1}", B64, |a| (a as i64).unsigned_abs());
}
