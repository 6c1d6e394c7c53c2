//! Logic, shifts and fields of bits.

use super::{B16, B32, B64, Binary, Predicate, Register, check, integers, pairs, triples};
use crate::random::Random;

const REGISTERS: [(Register, u32); 3] = [(B16, 16), (B32, 32), (B64, 64)];

fn mask(bits: u32) -> u64 {
    u64::MAX >> (64 - bits)
}

#[test]
fn logic_of_bits_and_of_predicates() {
    let functions: [Binary<u64>; 3] = [("and", |a, b| a & b), ("or", |a, b| a | b), ("xor", |a, b| a ^ b)];
    for (name, function) in functions {
        for (register, bits) in REGISTERS {
            check(
                &format!("{name}.b{bits} {{0}}, {{1}}, {{2}}"),
                register,
                [register; 2],
                &pairs(&integers()),
                |[a, b]| function(a, b) & mask(bits),
            );
        }
        let truths = [[0, 0], [0, 1], [1, 0], [1, 1]];
        check(&format!("{name}.pred {{0}}, {{1}}, {{2}}"), Predicate, [Predicate; 2], &truths, |[a, b]| {
            function(a, b)
        });
        // A predicate can be negated where it is read.
        check(&format!("{name}.pred {{0}}, !{{1}}, {{2}}"), Predicate, [Predicate; 2], &truths, |[a, b]| {
            function(1 - a, b)
        });
    }
    check("not.pred {0}, {1}", Predicate, [Predicate], &[[0], [1]], |[a]| 1 - a);
    let single: Vec<[u64; 1]> = integers().into_iter().map(|x| [x]).collect();
    for (register, bits) in REGISTERS {
        check(&format!("not.b{bits} {{0}}, {{1}}"), register, [register], &single, |[a]| !a & mask(bits));
        check(&format!("cnot.b{bits} {{0}}, {{1}}"), register, [register], &single, |[a]| {
            u64::from(a & mask(bits) == 0)
        });
    }
}

#[test]
fn shifts_by_more_than_the_width_leave_zeros_or_the_sign() {
    let counts = [0, 1, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 1 << 31, 0xffff_ffff];
    let rows: Vec<[u64; 2]> = integers().into_iter().flat_map(|x| counts.map(|count| [x, count])).collect();
    for (register, bits) in REGISTERS {
        let sources = [register, B32];
        check(&format!("shl.b{bits} {{0}}, {{1}}, {{2}}"), register, sources, &rows, |[a, count]| {
            u128::from(a).checked_shl(count as u32).unwrap_or(0) as u64 & mask(bits)
        });
        for kind in ["b", "u"] {
            check(
                &format!("shr.{kind}{bits} {{0}}, {{1}}, {{2}}"),
                register,
                sources,
                &rows,
                |[a, count]| (a & mask(bits)).checked_shr(count as u32).unwrap_or(0),
            );
        }
        check(&format!("shr.s{bits} {{0}}, {{1}}, {{2}}"), register, sources, &rows, |[a, count]| {
            let signed = (a << (64 - bits)) as i64 >> (64 - bits);
            (signed >> count.min(63)) as u64 & mask(bits)
        });
    }
}

#[test]
fn funnel_shifts() {
    let counts = [0, 1, 5, 31, 32, 33, 63, 64, 0xffff_ffff];
    let rows: Vec<[u64; 3]> = pairs(&[0, 1, 0x8000_0000, 0xffff_ffff, 0x1234_5678, 0x9abc_def0])
        .into_iter()
        .flat_map(|[a, b]| counts.map(|count| [a, b, count]))
        .collect();
    let clamp = |count: u64| count.min(32) as u32;
    let wrap = |count: u64| count as u32 % 32;
    let left = |[a, b, _]: [u64; 3], by: u32| {
        u64::from((((u128::from(b) << 32 | u128::from(a)) << by) >> 32) as u32)
    };
    let right = |[a, b, _]: [u64; 3], by: u32| u64::from(((b << 32 | a) >> by) as u32);
    check("shf.l.clamp.b32 {0}, {1}, {2}, {3}", B32, [B32; 3], &rows, |row| left(row, clamp(row[2])));
    check("shf.l.wrap.b32 {0}, {1}, {2}, {3}", B32, [B32; 3], &rows, |row| left(row, wrap(row[2])));
    check("shf.r.clamp.b32 {0}, {1}, {2}, {3}", B32, [B32; 3], &rows, |row| right(row, clamp(row[2])));
    check("shf.r.wrap.b32 {0}, {1}, {2}, {3}", B32, [B32; 3], &rows, |row| right(row, wrap(row[2])));
}

#[test]
fn lop3_is_the_function_that_its_table_says() {
    let mut random = Random::new(4);
    let rows: Vec<[u64; 3]> = (0..8).map(|_| std::array::from_fn(|_| u64::from(random.bits()))).collect();
    for table in [0_u64, 0x80, 0xfe, 0x96, 0xe8, 0xca, 0x1b, 0x40, 0xff] {
        check(&format!("lop3.b32 {{0}}, {{1}}, {{2}}, {{3}}, {table}"), B32, [B32; 3], &rows, |[a, b, c]| {
            (0..32).fold(0, |made, bit| {
                let index = (a >> bit & 1) * 4 + (b >> bit & 1) * 2 + (c >> bit & 1);
                made | (table >> index & 1) << bit
            })
        });
    }
}

#[test]
fn counts_and_places_of_bits() {
    let single: Vec<[u64; 1]> = integers().into_iter().map(|x| [x]).collect();
    check("popc.b32 {0}, {1}", B32, [B32], &single, |[a]| u64::from((a as u32).count_ones()));
    check("popc.b64 {0}, {1}", B32, [B64], &single, |[a]| u64::from(a.count_ones()));
    check("clz.b32 {0}, {1}", B32, [B32], &single, |[a]| u64::from((a as u32).leading_zeros()));
    check("clz.b64 {0}, {1}", B32, [B64], &single, |[a]| u64::from(a.leading_zeros()));
    check("brev.b32 {0}, {1}", B32, [B32], &single, |[a]| u64::from((a as u32).reverse_bits()));
    check("brev.b64 {0}, {1}", B64, [B64], &single, |[a]| a.reverse_bits());
    // The manual's loop: the highest bit that differs from the sign.
    let find = |a: u64, bits: u32, is_signed: bool, is_shift: bool| {
        let is_negative = is_signed && a >> (bits - 1) & 1 == 1;
        let a = (if is_negative { !a } else { a }) & mask(bits);
        match (0..bits).rev().find(|at| a >> at & 1 == 1) {
            None => 0xffff_ffff,
            Some(at) => u64::from(if is_shift { bits - 1 - at } else { at }),
        }
    };
    for (register, bits) in [(B32, 32), (B64, 64)] {
        for (kind, is_signed) in [("u", false), ("s", true)] {
            for (shift, is_shift) in [("", false), (".shiftamt", true)] {
                check(&format!("bfind{shift}.{kind}{bits} {{0}}, {{1}}"), B32, [register], &single, |[a]| {
                    find(a, bits, is_signed, is_shift)
                });
            }
        }
    }
}

#[test]
fn fields_of_bits() {
    let places = [0, 1, 5, 16, 31, 32, 33, 40, 63, 64, 255, 256 + 3];
    let rows: Vec<[u64; 3]> = [0, u64::MAX, 0x8000_0001_8000_0001, 0x1234_5678_9abc_def0]
        .into_iter()
        .flat_map(|x| pairs(&places).into_iter().map(move |[at, count]| [x, at, count]))
        .collect();
    for (register, bits) in [(B32, 32_u32), (B64, 64)] {
        // The manual's loops, bit by bit.
        let extract = |[a, at, count]: [u64; 3], is_signed: bool| {
            let (at, count, last) = (at & 0xff, count & 0xff, u64::from(bits) - 1);
            let sign = if is_signed && count > 0 { a >> (at + count - 1).min(last) & 1 } else { 0 };
            (0..=last).fold(0, |made, i| {
                made | (if i < count && at + i <= last { a >> (at + i) & 1 } else { sign }) << i
            })
        };
        check(
            &format!("bfe.u{bits} {{0}}, {{1}}, {{2}}, {{3}}"),
            register,
            [register, B32, B32],
            &rows,
            |row| extract(row, false),
        );
        check(
            &format!("bfe.s{bits} {{0}}, {{1}}, {{2}}, {{3}}"),
            register,
            [register, B32, B32],
            &rows,
            |row| extract(row, true),
        );
        for other in [0, 0x5555_5555_aaaa_aaaa_u64] {
            let text = format!("bfi.b{bits} {{0}}, {{1}}, {}, {{2}}, {{3}}", other & mask(bits));
            check(&text, register, [register, B32, B32], &rows, |[a, at, count]| {
                let (at, count) = (at & 0xff, count & 0xff);
                (0..count)
                    .filter(|i| at + i < u64::from(bits))
                    .fold(other & mask(bits), |made, i| made & !(1 << (at + i)) | (a >> i & 1) << (at + i))
            });
        }
    }
}

#[test]
fn prmt_takes_bytes_and_signs_by_its_selector() {
    let rows: Vec<[u64; 3]> = [0x3210, 0x7654, 0x0123, 0xfb73, 0x8888, 0xcba9, 0x5410, 0x7632, 0x1111_0000]
        .into_iter()
        .flat_map(|selector| [[0x0080_7fff, 0xff01_8002, selector], [0x1122_3344, 0x99aa_bbcc, selector]])
        .collect();
    let bytes = |a: u64, b: u64| -> [u8; 8] { (b << 32 | a).to_le_bytes() };
    check("prmt.b32 {0}, {1}, {2}, {3}", B32, [B32; 3], &rows, |[a, b, selector]| {
        u64::from(u32::from_le_bytes(std::array::from_fn(|i| {
            let nibble = selector >> (4 * i) & 15;
            let byte = bytes(a, b)[nibble as usize & 7];
            if nibble < 8 { byte } else { (byte as i8 >> 7) as u8 }
        })))
    });
    // The manual's table of modes: the source bytes from the lowest result byte on, for c = 0 to 3.
    let modes: [(&str, [[usize; 4]; 4]); 6] = [
        ("f4e", [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]]),
        ("b4e", [[0, 7, 6, 5], [1, 0, 7, 6], [2, 1, 0, 7], [3, 2, 1, 0]]),
        ("rc8", [[0; 4], [1; 4], [2; 4], [3; 4]]),
        ("ecl", [[0, 1, 2, 3], [1, 1, 2, 3], [2, 2, 2, 3], [3; 4]]),
        ("ecr", [[0; 4], [0, 1, 1, 1], [0, 1, 2, 2], [0, 1, 2, 3]]),
        ("rc16", [[0, 1, 0, 1], [2, 3, 2, 3], [0, 1, 0, 1], [2, 3, 2, 3]]),
    ];
    let rows =
        triples(&[0, 1, 2, 3]).into_iter().map(|[_, _, c]| [0x0302_0100, 0x0706_0504, c]).collect::<Vec<_>>();
    for (mode, table) in modes {
        check(&format!("prmt.b32.{mode} {{0}}, {{1}}, {{2}}, {{3}}"), B32, [B32; 3], &rows, |[_, _, c]| {
            u64::from(u32::from_le_bytes(table[c as usize].map(|byte| byte as u8)))
        });
    }
}
