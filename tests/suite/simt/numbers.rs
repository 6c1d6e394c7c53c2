//! bf16 and half.

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
    // All halves and bf16s, the ties between neighbours, and the floats beside those.
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
