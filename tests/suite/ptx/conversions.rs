//! `cvt`, `cvta` and `mov`.

use half::{bf16, f16};

use super::{
    B16, B32, B64, ONE_WARP, Register, Unary, bits_of, check, doubles, f32_of, integers, pairs, singles,
};

fn rows(values: &[u64]) -> Vec<[u64; 1]> {
    values.iter().map(|&x| [x]).collect()
}

const INTEGERS: [(&str, Register, u32, bool); 8] = [
    ("u8", B16, 8, false),
    ("s8", B16, 8, true),
    ("u16", B16, 16, false),
    ("s16", B16, 16, true),
    ("u32", B32, 32, false),
    ("s32", B32, 32, true),
    ("u64", B64, 64, false),
    ("s64", B64, 64, true),
];

fn value(bits: u64, width: u32, is_signed: bool) -> i128 {
    let kept = i128::from(bits) & ((1 << width) - 1);
    if is_signed && kept >> (width - 1) & 1 == 1 { kept - (1 << width) } else { kept }
}

fn range(width: u32, is_signed: bool) -> (i128, i128) {
    if is_signed { (-(1 << (width - 1)), (1 << (width - 1)) - 1) } else { (0, (1 << width) - 1) }
}

#[test]
fn integers_wrap_around_or_saturate_and_extend_into_wider_registers() {
    for (to, to_register, to_width, to_signed) in INTEGERS {
        for (from, from_register, from_width, from_signed) in INTEGERS {
            // An 8-bit result fills its 16-bit register with zeros or its sign.
            let kept = to_width.max(16);
            let stored = |x: i128| (value(x as u64, to_width, to_signed) & ((1 << kept) - 1)) as u64;
            check(
                &format!("cvt.{to}.{from} {{0}}, {{1}}"),
                to_register,
                [from_register],
                &rows(&integers()),
                |[x]| stored(value(x, from_width, from_signed)),
            );
            check(
                &format!("cvt.sat.{to}.{from} {{0}}, {{1}}"),
                to_register,
                [from_register],
                &rows(&integers()),
                |[x]| {
                    let (least, most) = range(to_width, to_signed);
                    stored(value(x, from_width, from_signed).clamp(least, most))
                },
            );
        }
    }
    // Registers may be wider than their types.
    check("cvt.s64.s8 {0}, {1}", B64, [B32], &rows(&integers()), |[x]| i64::from(x as i8) as u64);
    check("cvt.u32.u8 {0}, {1}", B32, [B64], &rows(&integers()), |[x]| x & 0xff);
    check("cvt.s8.s32 {0}, {1}", B32, [B32], &rows(&integers()), |[x]| u64::from(i32::from(x as i8) as u32));
}

#[test]
fn floats_round_to_integers_and_saturate() {
    let rounds: [Unary<f64>; 4] =
        [("rni", f64::round_ties_even), ("rzi", f64::trunc), ("rmi", f64::floor), ("rpi", f64::ceil)];
    let fractions = [
        0.5,
        1.5,
        2.5,
        -0.5,
        -1.5,
        2.4,
        -2.6,
        127.5,
        255.5,
        -129.0,
        65535.5,
        2_147_483_648.0,
        4_294_967_296.0,
        -2_147_483_904.0,
        9.3e18,
        1.9e19,
        -9.3e18,
    ];
    for (mode, round) in rounds {
        for (to, register, width, is_signed) in INTEGERS {
            let kept = width.max(16);
            let expected = |x: f64, is_f64: bool| {
                let (least, most) = range(width, is_signed);
                let whole = match x {
                    x if x.is_nan() => {
                        if is_f64 || width == 64 {
                            1 << (width - 1)
                        } else {
                            0
                        }
                    }
                    x => (round(x) as i128).clamp(least, most),
                };
                (value(whole as u64, width, is_signed) & ((1 << kept) - 1)) as u64
            };
            let mut values = singles();
            values.extend(fractions.map(|x| u64::from((x as f32).to_bits())));
            check(&format!("cvt.{mode}.{to}.f32 {{0}}, {{1}}"), register, [B32], &rows(&values), |[x]| {
                expected(f64::from(f32_of(x)), false)
            });
            let mut values = doubles();
            values.extend(fractions.map(f64::to_bits));
            check(&format!("cvt.{mode}.{to}.f64 {{0}}, {{1}}"), register, [B64], &rows(&values), |[x]| {
                expected(f64::from_bits(x), true)
            });
        }
        check(&format!("cvt.{mode}.f32.f32 {{0}}, {{1}}"), B32, [B32], &rows(&singles()), |[x]| {
            bits_of(round(f64::from(f32_of(x))) as f32)
        });
    }
}

#[test]
fn integers_round_to_floats_in_every_direction() {
    for (from, register, width, is_signed) in INTEGERS {
        for mode in ["rn", "rz", "rm", "rp"] {
            check(
                &format!("cvt.{mode}.f32.{from} {{0}}, {{1}}"),
                B32,
                [register],
                &rows(&integers()),
                |[x]| {
                    let exact = value(x, width, is_signed);
                    let nearest = exact as f32;
                    let over = nearest as i128 - exact;
                    let is_up = match mode {
                        "rz" => exact < 0,
                        "rp" => true,
                        _ => false,
                    };
                    bits_of(match over {
                        _ if mode == "rn" => nearest,
                        over if over > 0 && !is_up => nearest.next_down(),
                        over if over < 0 && is_up => nearest.next_up(),
                        _ => nearest,
                    })
                },
            );
        }
        check(&format!("cvt.rn.f64.{from} {{0}}, {{1}}"), B64, [register], &rows(&integers()), |[x]| {
            (value(x, width, is_signed) as f64).to_bits()
        });
    }
}

#[test]
fn floats_widen_exactly_and_narrow_to_the_nearest() {
    check("cvt.f64.f32 {0}, {1}", B64, [B32], &rows(&singles()[..30]), |[x]| f64::from(f32_of(x)).to_bits());
    check("cvt.rn.f32.f64 {0}, {1}", B32, [B64], &rows(&doubles()), |[x]| bits_of(f64::from_bits(x) as f32));
    check("cvt.sat.f32.f32 {0}, {1}", B32, [B32], &rows(&singles()), |[x]| {
        let x = f32_of(x);
        bits_of(if x > 0.0 { x.min(1.0) } else { 0.0 })
    });
    let codes: Vec<u64> = (0..1 << 16).step_by(37).collect();
    check("cvt.f32.bf16 {0}, {1}", B32, [B16], &rows(&codes), |[x]| x << 16);
    check("cvt.f32.f16 {0}, {1}", B32, [B16], &rows(&codes), |[x]| {
        let wide = f16::from_bits(x as u16).to_f32();
        bits_of(wide)
    });
}

/// Numbers about the ties of every small format, the limits and beyond.
fn hard_to_round() -> Vec<u64> {
    let mut values = singles();
    for exponent in [
        -150, -134, -133, -127, -126, -25, -24, -17, -16, -15, -14, -10, -9, -7, -6, -1, 0, 3, 7, 8, 14, 15,
        16, 127,
    ] {
        for units in 0_u32..64 {
            // Ties and their neighbours for 2, 3, 7 and 10 bits.
            for bits in [3, 4, 8, 11] {
                let tie = (1.0 + f64::from(units) / f64::from(1 << bits)) * 2.0_f64.powi(exponent);
                let x = tie as f32;
                values.extend([x, x.next_up(), x.next_down(), -x].map(|x| u64::from(x.to_bits())));
            }
        }
    }
    values
}

#[test]
fn sixteen_bit_floats_round_to_the_nearest_alone_and_in_pairs() {
    let values = hard_to_round();
    let to_bf16 = |x: f32| if x.is_nan() { 0x7fff } else { bf16::from_f32(x).to_bits() };
    let to_f16 = |x: f32| if x.is_nan() { 0x7fff } else { f16::from_f32(x).to_bits() };
    check("cvt.rn.bf16.f32 {0}, {1}", B16, [B32], &rows(&values), |[x]| u64::from(to_bf16(f32_of(x))));
    check("cvt.rn.f16.f32 {0}, {1}", B16, [B32], &rows(&values), |[x]| u64::from(to_f16(f32_of(x))));
    check("cvt.rz.bf16.f32 {0}, {1}", B16, [B32], &rows(&values), |[x]| {
        if f32_of(x).is_nan() { 0x7fff } else { x >> 16 }
    });
    // The first source is the upper half.
    let few = pairs(&values[..40]);
    check("cvt.rn.bf16x2.f32 {0}, {1}, {2}", B32, [B32; 2], &few, |[a, b]| {
        u64::from(to_bf16(f32_of(a))) << 16 | u64::from(to_bf16(f32_of(b)))
    });
    check("cvt.rn.f16x2.f32 {0}, {1}, {2}", B32, [B32; 2], &few, |[a, b]| {
        u64::from(to_f16(f32_of(a))) << 16 | u64::from(to_f16(f32_of(b)))
    });
    check("cvt.rn.relu.bf16x2.f32 {0}, {1}, {2}", B32, [B32; 2], &few, |[a, b]| {
        let relu = |x: f32| if x <= 0.0 { 0.0 } else { x };
        u64::from(to_bf16(relu(f32_of(a)))) << 16 | u64::from(to_bf16(relu(f32_of(b))))
    });
}

/// The value of an e4m3 or e5m2 code, by the definition of the Open Compute Project.
fn eight_bits(code: u8, mantissa_bits: i32) -> f64 {
    let (magnitude, sign) = (i32::from(code & 0x7f), if code & 0x80 == 0 { 1.0 } else { -1.0 });
    let bias = if mantissa_bits == 3 { 7 } else { 15 };
    let (exponent, mantissa) =
        (magnitude >> mantissa_bits, f64::from(magnitude & ((1 << mantissa_bits) - 1)));
    let fraction = mantissa / f64::from(1 << mantissa_bits);
    match (mantissa_bits, magnitude) {
        (3, 0x7f) | (2, 0x7d..) => f64::NAN,
        (2, 0x7c) => sign * f64::INFINITY,
        _ if exponent == 0 => sign * fraction * 2.0_f64.powi(1 - bias),
        _ => sign * (1.0 + fraction) * 2.0_f64.powi(exponent - bias),
    }
}

/// The nearest code, by looking at them all; of two, the even one. What is too large becomes the largest.
fn nearest_code(x: f32, mantissa_bits: i32) -> u8 {
    if x.is_nan() {
        return 0x7f;
    }
    let largest = if mantissa_bits == 3 { 0x7e } else { 0x7b };
    // Far beyond the largest, an f64 holds the same distance to every code.
    let magnitude = f64::from(x.abs()).min(1e6);
    let code = (0..=largest)
        .min_by(|&a, &b| {
            let distance = |code: u8| (eight_bits(code, mantissa_bits) - magnitude).abs();
            distance(a).total_cmp(&distance(b)).then((a & 1).cmp(&(b & 1)))
        })
        .unwrap();
    code | if x.is_sign_negative() { 0x80 } else { 0 }
}

#[test]
fn eight_bit_floats_saturate_and_come_back_exactly() {
    let values = hard_to_round();
    let rows: Vec<[u64; 2]> = values.iter().zip(values.iter().rev()).map(|(&a, &b)| [a, b]).collect();
    for (name, mantissa_bits) in [("e4m3x2", 3), ("e5m2x2", 2)] {
        let text = format!("cvt.rn.satfinite.{name}.f32 {{0}}, {{1}}, {{2}}");
        check(&text, B16, [B32; 2], &rows, |[a, b]| {
            u64::from(nearest_code(f32_of(a), mantissa_bits)) << 8
                | u64::from(nearest_code(f32_of(b), mantissa_bits))
        });
        let codes: Vec<[u64; 1]> = (0..256).map(|code| [code << 8 | (255 - code)]).collect();
        check(&format!("cvt.rn.f16x2.{name} {{0}}, {{1}}"), B32, [B16], &codes, |[pair]| {
            let half = |code: u64| {
                let x = eight_bits(code as u8, mantissa_bits);
                u64::from(if x.is_nan() { 0x7fff } else { f16::from_f64(x).to_bits() })
            };
            half(pair >> 8) << 16 | half(pair & 0xff)
        });
    }
}

#[test]
fn moves_pack_and_unpack() {
    check(
        "mov.b32 {0}, { {1}, {2} }",
        B32,
        [B16; 2],
        &pairs(&[0, 1, 0x8000, 0xffff, 0x1234]),
        |[low, high]| (high & 0xffff) << 16 | (low & 0xffff),
    );
    check(
        "mov.b64 {0}, { {1}, {2} }",
        B64,
        [B32; 2],
        &pairs(&[0, 1, 0x8000_0000, 0xffff_ffff]),
        |[low, high]| high << 32 | low,
    );
    check("mov.b64 { {0}, _ }, {1}", B32, [B64], &rows(&integers()), |[x]| x & 0xffff_ffff);
    check("mov.b64 { _, {0} }, {1}", B32, [B64], &rows(&integers()), |[x]| x >> 32);
    check("mov.b32 { %h1, {0} }, {1}", B16, [B32], &rows(&integers()), |[x]| x >> 16 & 0xffff);
    check("mov.f32 %f1, 0f3FC00000;\nmov.b32 {0}, %f1;\nmov.b32 {0}, {0}", B32, [B32], &[[0]], |_| {
        0x3fc0_0000
    });
    check("mov.f64 {0}, 0d3FF8000000000000", B64, [B64], &[[0]], |_| 1.5_f64.to_bits());
    check("mov.u64 {0}, -5", B64, [B64], &[[0]], |_| (-5_i64) as u64);
    check("mov.u16 {0}, 0x1ffff", B16, [B16], &[[0]], |_| 0xffff);
}

#[test]
fn generic_addresses_lead_to_their_space() {
    let body = ".local .align 4 .b8 mine[8];\nmov.u32 %r2, dynamic;\nst.shared.u32 [%r2+4], 77;\ncvt.u64.u32 %d2, %r2;\n\
                cvta.shared.u64 %d3, %d2;\nld.u32 %r3, [%d3+4];\ncvta.to.shared.u64 %d4, %d3;\n\
                ld.shared.u32 %r4, [%d4+4];\nmov.u64 %d5, mine;\ncvta.local.u64 %d6, %d5;\nst.u32 [%d6], 5;\n\
                ld.local.u32 %r5, [mine];\ncvta.to.global.u64 %d7, %d1;\nst.v2.u32 [%d7], {%r3, %r4};\n\
                st.global.u32 [%d1+8], %r5;";
    let run = super::Run { threads: 1, shared_bytes: 16, ..ONE_WARP };
    assert_eq!(run.probe::<u64, u32>(body, &[0], 3), [77, 77, 5]);
}
