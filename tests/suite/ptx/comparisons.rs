//! `setp`, `set` and `selp`.

use std::cmp::Ordering;

use super::{
    B16, B32, B64, Binary, ONE_WARP, Predicate, Register, check, doubles, f32_of, integers, pairs, singles,
};

/// Whether a comparison holds of operands in this order; `None` if one is NaN.
fn holds(name: &str, order: Option<Ordering>) -> bool {
    let is_unordered = order.is_none();
    match name {
        "num" => !is_unordered,
        "nan" => is_unordered,
        // The names with u at their end are true for NaN.
        _ if is_unordered => name.ends_with('u'),
        _ => {
            let order = order.unwrap();
            match name.trim_end_matches('u') {
                "eq" => order.is_eq(),
                "ne" => order.is_ne(),
                "lt" | "lo" => order.is_lt(),
                "le" | "ls" => order.is_le(),
                "gt" | "hi" => order.is_gt(),
                _ => order.is_ge(),
            }
        }
    }
}

const ORDERED: [&str; 6] = ["eq", "ne", "lt", "le", "gt", "ge"];
const OF_FLOATS: [&str; 14] =
    ["eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"];

fn compare(
    names: &[&str],
    kind: &str,
    register: Register,
    values: &[u64],
    order: fn(u64, u64) -> Option<Ordering>,
) {
    for name in names {
        check(
            &format!("setp.{name}.{kind} {{0}}, {{1}}, {{2}}"),
            Predicate,
            [register; 2],
            &pairs(values),
            |[a, b]| u64::from(holds(name, order(a, b))),
        );
    }
}

#[test]
fn integers_compare_by_their_type() {
    let values = integers();
    compare(&ORDERED, "u16", B16, &values, |a, b| Some((a as u16).cmp(&(b as u16))));
    compare(&ORDERED, "s16", B16, &values, |a, b| Some((a as i16).cmp(&(b as i16))));
    compare(&ORDERED, "u32", B32, &values, |a, b| Some((a as u32).cmp(&(b as u32))));
    compare(&ORDERED, "s32", B32, &values, |a, b| Some((a as i32).cmp(&(b as i32))));
    compare(&ORDERED, "u64", B64, &values, |a, b| Some(a.cmp(&b)));
    compare(&ORDERED, "s64", B64, &values, |a, b| Some((a as i64).cmp(&(b as i64))));
    compare(&["lo", "ls", "hi", "hs"], "u32", B32, &values, |a, b| Some((a as u32).cmp(&(b as u32))));
    compare(&["eq", "ne"], "b32", B32, &values, |a, b| Some((a as u32).cmp(&(b as u32))));
    compare(&["eq", "ne"], "b64", B64, &values, |a, b| Some(a.cmp(&b)));
}

#[test]
fn floats_compare_in_order_or_not() {
    compare(&OF_FLOATS, "f32", B32, &singles(), |a, b| f32_of(a).partial_cmp(&f32_of(b)));
    compare(&OF_FLOATS, "f64", B64, &doubles(), |a, b| f64::from_bits(a).partial_cmp(&f64::from_bits(b)));
    compare(&OF_FLOATS, "bf16", B16, &[0x3f80, 0xbf80, 0, 0x8000, 0x7fff, 0x7f80], |a, b| {
        half::bf16::from_bits(a as u16).partial_cmp(&half::bf16::from_bits(b as u16))
    });
}

#[test]
fn a_comparison_joins_a_predicate_and_gives_its_opposite_too() {
    let truths = [[1, 2, 0], [1, 2, 1], [2, 1, 0], [2, 1, 1]];
    let joins: [Binary<bool>; 3] = [("and", |a, b| a & b), ("or", |a, b| a | b), ("xor", |a, b| a ^ b)];
    for (name, join) in joins {
        for (operand, flips) in [("{3}", false), ("!{3}", true)] {
            let first = format!("setp.lt.{name}.u32 {{0}}|%p2, {{1}}, {{2}}, {operand}");
            check(&first, Predicate, [B32, B32, Predicate], &truths, |[a, b, c]| {
                u64::from(join(a < b, (c == 1) != flips))
            });
            let second = format!("setp.lt.{name}.u32 %p2|{{0}}, {{1}}, {{2}}, {operand}");
            check(&second, Predicate, [B32, B32, Predicate], &truths, |[a, b, c]| {
                u64::from(join(a >= b, (c == 1) != flips))
            });
        }
    }
    check("set.lt.u32.s32 {0}, {1}, {2}", B32, [B32; 2], &[[1, 2], [2, 1]], |[a, b]| {
        if a < b { 0xffff_ffff } else { 0 }
    });
}

#[test]
fn selp_takes_the_first_where_the_predicate_is_true() {
    let rows = [[5, 9, 0], [5, 9, 1], [u64::MAX, 0, 1], [u64::MAX, 0, 0]];
    for (kind, register, bits) in
        [("b16", B16, 16), ("s32", B32, 32), ("f32", B32, 32), ("b64", B64, 64), ("f64", B64, 64)]
    {
        check(
            &format!("selp.{kind} {{0}}, {{1}}, {{2}}, {{3}}"),
            register,
            [register, register, Predicate],
            &rows,
            |[a, b, c]| (if c == 1 { a } else { b }) & (u64::MAX >> (64 - bits)),
        );
    }
}

#[test]
fn a_guard_keeps_what_other_lanes_hold() {
    let body = "setp.lt.u32 %p1, %r1, 7;\nmov.u32 %r2, 100;\n@%p1 mov.u32 %r2, 1;\n@!%p1 add.u32 %r2, %r2, %r1;\n\
                setp.eq.u32 %p2, %r1, 3;\n@%p1 setp.ne.u32 %p2, %r1, %r1;\n@%p2 mov.u32 %r2, 55;\n\
                mul.wide.u32 %d2, %r1, 4;\nadd.s64 %d1, %d1, %d2;\nst.global.u32 [%d1], %r2;";
    let found: Vec<u32> = ONE_WARP.probe(body, &[0_u64], 32);
    let expected: Vec<u32> = (0..32).map(|lane| if lane < 7 { 1 } else { 100 + lane }).collect();
    assert_eq!(found, expected);
}
