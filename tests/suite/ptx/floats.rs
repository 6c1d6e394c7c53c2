//! Arithmetic on floating-point numbers.

use half::{bf16, f16};

use super::{
    B16, B32, B64, Binary, Predicate, Register, bits_of, check, doubles, f32_of, pairs, results, singles,
    triples,
};

fn single_rows(values: &[u64]) -> Vec<[u64; 1]> {
    values.iter().map(|&x| [x]).collect()
}

/// Doubles whose NaN may have any bits.
fn check_doubles<const N: usize>(instruction: &str, rows: &[[u64; N]], expected: impl Fn([f64; N]) -> f64) {
    for (row, found) in rows.iter().zip(results(instruction, B64, [B64; N], rows)) {
        let expected = expected(row.map(f64::from_bits));
        let is_same = found == expected.to_bits() || (expected.is_nan() && f64::from_bits(found).is_nan());
        assert!(is_same, "{instruction} of {row:x?}: {found:#x}, not {expected:e}");
    }
}

#[test]
fn sums_and_products_are_rounded_to_the_nearest() {
    let rows = pairs(&singles());
    let operations: [Binary<f32>; 4] =
        [("add", |a, b| a + b), ("sub", |a, b| a - b), ("mul", |a, b| a * b), ("div.rn", |a, b| a / b)];
    for (name, operation) in operations {
        check(&format!("{name}.f32 {{0}}, {{1}}, {{2}}"), B32, [B32; 2], &rows, |[a, b]| {
            bits_of(operation(f32_of(a), f32_of(b)))
        });
    }
    let rows = pairs(&doubles());
    let operations: [Binary<f64>; 4] =
        [("add.rn", |a, b| a + b), ("sub", |a, b| a - b), ("mul", |a, b| a * b), ("div.rn", |a, b| a / b)];
    for (name, operation) in operations {
        check_doubles(&format!("{name}.f64 {{0}}, {{1}}, {{2}}"), &rows, |[a, b]| operation(a, b));
    }
}

#[test]
fn fma_rounds_once() {
    let values: Vec<u64> = singles().into_iter().step_by(2).collect();
    check("fma.rn.f32 {0}, {1}, {2}, {3}", B32, [B32; 3], &triples(&values), |[a, b, c]| {
        bits_of(f32_of(a).mul_add(f32_of(b), f32_of(c)))
    });
    // 1 + 2^-12 squared, less what a product rounded on its own would have.
    let x = f32::from_bits(0x3f80_0800);
    let row = [u64::from(x.to_bits()), u64::from(x.to_bits()), u64::from((-(x * x)).to_bits())];
    assert_eq!(results("fma.rn.f32 {0}, {1}, {2}, {3}", B32, [B32; 3], &[row]), [0x3380_0000]);
    let values: Vec<u64> = doubles().into_iter().step_by(2).collect();
    check_doubles("fma.rn.f64 {0}, {1}, {2}, {3}", &triples(&values), |[a, b, c]| a.mul_add(b, c));
}

/// Of a product and a sum whose exact value an f64 holds, the f32 next to it in a direction.
#[test]
fn directed_rounding_takes_the_neighbour_on_its_side() {
    let values: Vec<u64> = [1.1_f32, -1.3, 3.7e5, -2.9e-3, 7.25].map(|x| u64::from(x.to_bits())).to_vec();
    let exact: [Binary<f64>; 2] = [("mul", |a, b| a * b), ("add", |a, b| a + b)];
    for (name, exact) in exact {
        for (mode, side) in [("rm", -1.0), ("rp", 1.0), ("rz", 0.0)] {
            check(
                &format!("{name}.{mode}.f32 {{0}}, {{1}}, {{2}}"),
                B32,
                [B32; 2],
                &pairs(&values),
                |[a, b]| {
                    let exact = exact(f64::from(f32_of(a)), f64::from(f32_of(b)));
                    let nearest = exact as f32;
                    let is_up = if side == 0.0 { exact < 0.0 } else { side > 0.0 };
                    let rounded = match f64::from(nearest) - exact {
                        over if over > 0.0 && !is_up => nearest.next_down(),
                        over if over < 0.0 && is_up => nearest.next_up(),
                        _ => nearest,
                    };
                    bits_of(rounded)
                },
            );
        }
    }
    let third = |mode: &str| {
        results(&format!("div.{mode}.f32 {{0}}, {{1}}, {{2}}"), B32, [B32; 2], &[[0x3f80_0000, 0x4040_0000]])
            [0]
    };
    assert_eq!(
        [third("rm"), third("rn"), third("rp"), third("rz")],
        [0x3eaa_aaaa, 0x3eaa_aaab, 0x3eaa_aaab, 0x3eaa_aaaa]
    );
    let row = [[0x3f80_0000_u64, 0x3f80_0000, 0x2f80_0000]]; // 1 + 2^-32
    let sum =
        |mode: &str| results(&format!("fma.{mode}.f32 {{0}}, {{1}}, {{2}}, {{3}}"), B32, [B32; 3], &row)[0];
    assert_eq!([sum("rm"), sum("rn"), sum("rp")], [0x3f80_0000, 0x3f80_0000, 0x3f80_0001]);
}

#[test]
fn min_and_max_pass_over_nan_and_order_the_zeros() {
    let least = |a: f32, b: f32| match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == 0.0 && b == 0.0 => {
            if a.is_sign_negative() {
                a
            } else {
                b
            }
        }
        _ => a.min(b),
    };
    let rows = pairs(&singles());
    check("min.f32 {0}, {1}, {2}", B32, [B32; 2], &rows, |[a, b]| bits_of(least(f32_of(a), f32_of(b))));
    check("max.f32 {0}, {1}, {2}", B32, [B32; 2], &rows, |[a, b]| bits_of(-least(-f32_of(a), -f32_of(b))));
    check("max.NaN.f32 {0}, {1}, {2}", B32, [B32; 2], &rows, |[a, b]| {
        let has_nan = f32_of(a).is_nan() || f32_of(b).is_nan();
        bits_of(if has_nan { f32::NAN } else { -least(-f32_of(a), -f32_of(b)) })
    });
    check_doubles("min.f64 {0}, {1}, {2}", &pairs(&[1.0_f64, -2.0, f64::NAN].map(f64::to_bits)), |[a, b]| {
        a.min(b)
    });
    check_doubles("max.f64 {0}, {1}, {2}", &pairs(&[1.0_f64, -2.0, f64::NAN].map(f64::to_bits)), |[a, b]| {
        a.max(b)
    });
}

#[test]
fn ftz_flushes_operands_and_results_and_sat_clamps() {
    let flush = |x: f32| if x.is_subnormal() { 0.0_f32.copysign(x) } else { x };
    check("mul.ftz.f32 {0}, {1}, {2}", B32, [B32; 2], &pairs(&singles()), |[a, b]| {
        bits_of(flush(flush(f32_of(a)) * flush(f32_of(b))))
    });
    check("add.sat.f32 {0}, {1}, {2}", B32, [B32; 2], &pairs(&singles()), |[a, b]| {
        let sum = f32_of(a) + f32_of(b);
        bits_of(if sum > 0.0 { sum.min(1.0) } else { 0.0 })
    });
}

#[test]
fn signs_roots_and_reciprocals() {
    let rows = single_rows(&singles());
    check("neg.f32 {0}, {1}", B32, [B32], &rows, |[a]| bits_of(-f32_of(a)));
    check("abs.f32 {0}, {1}", B32, [B32], &rows, |[a]| bits_of(f32_of(a).abs()));
    check("sqrt.rn.f32 {0}, {1}", B32, [B32], &rows, |[a]| bits_of(f32_of(a).sqrt()));
    check("rcp.rn.f32 {0}, {1}", B32, [B32], &rows, |[a]| bits_of(1.0 / f32_of(a)));
    check_doubles("rcp.rn.f64 {0}, {1}", &single_rows(&doubles()), |[a]| 1.0 / a);
    check_doubles("sqrt.rn.f64 {0}, {1}", &single_rows(&doubles()), |[a]| a.sqrt());
    check("copysign.f32 {0}, {1}, {2}", B32, [B32; 2], &pairs(&singles()), |[a, b]| {
        (b & 0x7fff_ffff) | (a & 0x8000_0000)
    });
    // Only the high words of the operand and of the result count.
    let found = results(
        "rcp.approx.ftz.f64 {0}, {1}",
        B64,
        [B64],
        &single_rows(&[3.0_f64.to_bits() + 5, 1e-320_f64.to_bits()]),
    );
    assert_eq!(found, [(1.0_f64 / 3.0).to_bits() & !0xffff_ffff, f64::INFINITY.to_bits()]);
}

#[test]
fn approximate_functions_are_near() {
    let near = |instruction: &str, exact: fn(f64) -> f64, values: &[f32]| {
        let rows: Vec<[u64; 1]> = values.iter().map(|x| [u64::from(x.to_bits())]).collect();
        for (x, found) in values.iter().zip(results(instruction, B32, [B32], &rows)) {
            let (found, exact) = (f64::from(f32_of(found)), exact(f64::from(*x)));
            assert!(
                (found - exact).abs() <= 1e-6 * exact.abs().max(1e-30),
                "{instruction} of {x}: {found}, not {exact}"
            );
        }
    };
    let values = [0.1, 0.7, 1.0, 2.5, 11.0];
    near("ex2.approx.f32 {0}, {1}", f64::exp2, &[-3.5, -0.2, 0.0, 0.9, 20.5]);
    near("lg2.approx.f32 {0}, {1}", f64::log2, &values);
    near("rsqrt.approx.f32 {0}, {1}", |x| 1.0 / x.sqrt(), &values);
    near("sin.approx.f32 {0}, {1}", f64::sin, &values);
    near("cos.approx.f32 {0}, {1}", f64::cos, &values);
    near("tanh.approx.f32 {0}, {1}", f64::tanh, &values);
    let flushed = results(
        "ex2.approx.ftz.f32 {0}, {1}",
        B32,
        [B32],
        &single_rows(&[u64::from((-130.0_f32).to_bits()), 0x8000_0001]),
    );
    assert_eq!(flushed, [0, 0x3f80_0000]);
    // The manual: a divisor over 2^126 gives zero.
    let quotients = results(
        "div.approx.f32 {0}, {1}, {2}",
        B32,
        [B32; 2],
        &[[0x3f80_0000, 0x7f00_0000], [0x3f80_0000, 0x4000_0000]],
    );
    assert_eq!(quotients, [0, 0x3f00_0000]);
}

/// A 16-bit format: its name, and the conversions to and from its bits.
type Format = (&'static str, fn(f64) -> u16, fn(u16) -> f64);

#[test]
fn halves_alone_and_in_pairs() {
    // Their exact sums and products fit an f64, from which `half` rounds once.
    let values = [0.0, 1.0, -1.0, 1.5, 0.007_812_5, 3.140_625, -250.0, 1.003_906_25];
    let formats: [Format; 2] = [
        ("bf16", |x| bf16::from_f64(x).to_bits(), |x| bf16::from_bits(x).to_f64()),
        ("f16", |x| f16::from_f64(x).to_bits(), |x| f16::from_bits(x).to_f64()),
    ];
    for (name, to, from) in formats {
        let codes: Vec<u64> = values.iter().map(|&x| u64::from(to(x))).collect();
        let rows = triples(&codes);
        check(&format!("fma.rn.{name} {{0}}, {{1}}, {{2}}, {{3}}"), B16, [B16; 3], &rows, |row| {
            let [a, b, c] = row.map(|code| from(code as u16));
            u64::from(to(a * b + c))
        });
        let [up, down] = [|x: u64| x << 16 | 0x3c00, |x: u64| 0x3c00 << 16 | x];
        for half in [up, down] {
            let rows: Vec<[u64; 3]> = rows.iter().map(|row| row.map(half)).collect();
            check(&format!("fma.rn.{name}x2 {{0}}, {{1}}, {{2}}, {{3}}"), B32, [B32; 3], &rows, |row| {
                [16, 0].iter().fold(0, |made, shift| {
                    let [a, b, c] = row.map(|pair| from((pair >> shift) as u16));
                    made << 16 | u64::from(to(a * b + c))
                })
            });
        }
        let rows = pairs(&codes);
        let operations: [Binary<f64>; 5] = [
            ("add", |a, b| a + b),
            ("sub", |a, b| a - b),
            ("mul", |a, b| a * b),
            ("min", f64::min),
            ("max", f64::max),
        ];
        for (operation, function) in operations {
            check(&format!("{operation}.{name} {{0}}, {{1}}, {{2}}"), B16, [B16; 2], &rows, |row| {
                let [a, b] = row.map(|code| from(code as u16));
                u64::from(to(function(a, b)))
            });
        }
        check(&format!("neg.{name}x2 {{0}}, {{1}}"), B32, [B32], &[[0x3c00_8000]], |[a]| a ^ 0x8000_8000);
        check(&format!("abs.{name}x2 {{0}}, {{1}}"), B32, [B32], &[[0xbc00_8000]], |[a]| a & 0x7fff_7fff);
    }
    // 1.5 (1 + 2^-7) is a tie. A term that an f64 would drop decides it.
    let sum = |c: f32| {
        let row = [0x3fc0, 0x3f81, u64::from(bf16::from_f32(c).to_bits())];
        results("fma.rn.bf16 {0}, {1}, {2}, {3}", B16, [B16; 3], &[row])[0]
    };
    assert_eq!([sum(0.0), sum(1e-30), sum(-1e-30)], [0x3fc2, 0x3fc2, 0x3fc1]);
}

/// What `testp` asks, by its name.
type Property = (&'static str, fn(f32) -> bool);

#[test]
fn testp_knows_the_kinds_of_numbers() {
    let kinds: [Property; 6] = [
        ("finite", f32::is_finite),
        ("infinite", f32::is_infinite),
        ("number", |x| !x.is_nan()),
        ("notanumber", f32::is_nan),
        ("normal", f32::is_normal),
        ("subnormal", f32::is_subnormal),
    ];
    for (name, is) in kinds {
        let to: Register = Predicate;
        check(&format!("testp.{name}.f32 {{0}}, {{1}}"), to, [B32], &single_rows(&singles()), |[a]| {
            u64::from(is(f32_of(a)))
        });
    }
}
