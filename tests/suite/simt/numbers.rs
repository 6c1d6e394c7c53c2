//! bf16, half and e4m3.

use codit::device::number::e4m3::E4m3;
use codit::device::number::quantize::quantize;
use half::{bf16, f16};

use super::Probe;
use crate::random::Random;

#[test]
fn every_bf16_and_half_widens_exactly() {
    let probe = Probe { grid: [256, 1, 1], ..Probe::new("probe_widen", 256) };
    let found: Vec<f32> = probe.run(0, &[0_u32; 0], 2 * 65536);
    for bits in 0..=u16::MAX {
        for (found, expected) in [
            (found[usize::from(bits)], bf16::from_bits(bits).to_f32()),
            (found[65536 + usize::from(bits)], f16::from_bits(bits).to_f32()),
        ] {
            let same = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
            assert!(same, "{bits:04x}: {found} for {expected}");
        }
    }
}

#[test]
fn floats_narrow_to_the_nearest_ties_to_even() {
    let mut random = Random::new(5);
    let mut floats: Vec<f32> = (0..1 << 18).map(|_| f32::from_bits(random.bits())).collect();
    // All halves and bf16s, the ties between neighbours, and the floats next to the ties.
    for bits in 0..u16::MAX {
        for (low, high) in [
            (f16::from_bits(bits).to_f32(), f16::from_bits(bits + 1).to_f32()),
            (bf16::from_bits(bits).to_f32(), bf16::from_bits(bits + 1).to_f32()),
        ] {
            let tie = low.midpoint(high);
            floats.extend([low, tie, tie.next_up(), tie.next_down()]);
        }
    }
    floats.extend([
        65504.0,
        65519.996,
        65520.0,
        65536.0,
        f32::MAX,
        f32::INFINITY,
        -f32::INFINITY,
        f32::NAN,
        -0.0,
    ]);
    floats.resize(floats.len().next_multiple_of(2), 0.0);
    let n = floats.len();
    let probe = Probe {
        grid: [n.div_ceil(256) as u32, 1, 1],
        args: [n as u32, 0, 0, 0],
        ..Probe::new("probe_narrow", 256)
    };
    let found: Vec<u16> = probe.run(0, &floats, 3 * n);
    for (i, x) in floats.into_iter().enumerate() {
        let (brain, ieee, packed) = (found[i], found[n + i], found[2 * n + i]);
        assert_eq!(brain, packed);
        if x.is_nan() {
            assert_eq!((brain, ieee), (0x7fff, 0x7fff));
        } else {
            assert_eq!(brain, bf16::from_f32(x).to_bits(), "{x:e}");
            assert_eq!(ieee, f16::from_f32(x).to_bits(), "{x:e}");
        }
    }
}

/// The value by definition: bias 7, three bits of mantissa, subnormal numbers below 2^-6, NaN instead of the largest.
fn e4m3_by_definition(bits: u8) -> f64 {
    let sign = if bits & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(bits >> 3 & 0xf), f64::from(bits & 7));
    match (bits & 0x7f, exponent) {
        (0x7f, _) => f64::NAN,
        (_, 0) => sign * mantissa * 2.0_f64.powi(-9),
        _ => sign * (1.0 + mantissa / 8.0) * 2.0_f64.powi(exponent - 7),
    }
}

#[test]
fn every_e4m3_widens_exactly() {
    let patterns: Vec<u8> = (0..=255).collect();
    let found: Vec<f32> = Probe::new("probe_widen_e4m3", 64).run(0, &patterns, 512);
    for bits in patterns {
        let (expected, at) = (e4m3_by_definition(bits) as f32, usize::from(bits));
        let host = E4m3(bits).to_f32();
        if expected.is_nan() {
            // The conversion of four at a time reads NaN as the number that would follow the largest.
            assert!(found[at].is_nan() && host.is_nan() && found[256 + at].abs() == 480.0);
        } else {
            let all = [found[at], found[256 + at], host].map(f32::to_bits);
            assert_eq!(all, [expected.to_bits(); 3], "{bits:02x}");
        }
    }
}

#[test]
fn floats_narrow_to_the_nearest_e4m3() {
    // Every bf16, the ties between neighbours, and the floats next to the ties.
    let mut floats: Vec<f32> = (0..=u16::MAX).map(|bits| bf16::from_bits(bits).to_f32()).collect();
    for bits in 0..0x7e {
        let tie = E4m3(bits).to_f32().midpoint(E4m3(bits + 1).to_f32());
        floats.extend([tie, tie.next_up(), tie.next_down(), -tie, -tie.next_up(), -tie.next_down()]);
    }
    let n = floats.len();
    let probe = Probe {
        grid: [n.div_ceil(256) as u32, 1, 1],
        args: [n as u32, 0, 0, 0],
        ..Probe::new("probe_narrow_e4m3", 256)
    };
    let found: Vec<u8> = probe.run(0, &floats, n);
    for (x, found) in floats.into_iter().zip(found) {
        assert_eq!(found, E4m3::from_f32(x).0, "{x:e}");
        let sign = if x.is_sign_negative() { 0x80 } else { 0 };
        let distance = |bits: &u8| (e4m3_by_definition(*bits) - f64::from(x.abs().min(448.0))).abs();
        let nearest =
            (0..0x7f).min_by(|a, b| distance(a).total_cmp(&distance(b)).then((a & 1).cmp(&(b & 1))));
        let expected = if x.is_nan() {
            0x7f
        } else if x.is_infinite() {
            0x7e
        } else {
            nearest.unwrap()
        };
        assert_eq!(found, sign | expected, "{x:e}");
    }
}

#[test]
fn a_row_of_e4m3_reaches_its_greatest_number() {
    let of = |row: &[f32]| {
        let mut to = vec![E4m3(0xff); row.len()];
        let scale = quantize(row, &mut to);
        to.into_iter().map(|x| x.to_f32() * scale).collect::<Vec<_>>()
    };
    assert_eq!(of(&[0.0, -0.0]), [0.0, 0.0]);
    assert_eq!(of(&[0.1, -7.0, 3.5]), [0.101_562_5, -7.0, 3.5]);
    assert!(of(&[1.0, f32::NAN, 2.0]).iter().all(|x| x.is_nan()));
    for greatest in [1e-38, 1e-30, f32::MAX] {
        let error = (of(&[greatest, greatest / 3.0])[1] * 3.0 / greatest - 1.0).abs();
        assert!(error < 0.07, "{greatest:e}: {error}");
    }
}
