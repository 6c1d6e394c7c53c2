//! Numeric building blocks that the compiler vectorizes, each with one fixed order of operations.

use super::simd::{LANES, Simd, mul_add, mul_add_f64};

/// `sum x * y`, lane by lane, then the lanes in a tree.
#[inline(always)]
pub fn dot<S: Simd>(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = S::splat(0.0);
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in x.iter().zip(y) {
        lanes = S::mul_add(S::load(x), S::load(y), lanes);
    }
    let mut lanes = array::<S>(lanes);
    for ((lane, x), y) in lanes.iter_mut().zip(x_rest).zip(y_rest) {
        *lane = mul_add::<S>(*x, *y, *lane);
    }
    tree(lanes)
}

/// Stores the lanes.
#[inline(always)]
pub fn array<S: Simd>(lanes: S::Lanes) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    S::store(lanes, &mut out);
    out
}

/// The sum of the lanes, halves first.
#[inline(always)]
pub fn tree(lanes: [f32; LANES]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|lane| lanes[lane] + lanes[lane + 8]);
    let four: [f32; 4] = std::array::from_fn(|lane| eight[lane] + eight[lane + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// `sum x`, lane by lane, then the lanes in a tree.
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (x, rest) = x.as_chunks::<LANES>();
    for x in x {
        for lane in 0..LANES {
            lanes[lane] += x[lane];
        }
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, x)| *lane += x);
    tree(lanes)
}

/// The largest element, ignoring NaNs.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (x, rest) = x.as_chunks::<LANES>();
    for x in x {
        for lane in 0..LANES {
            lanes[lane] = if x[lane] > lanes[lane] { x[lane] } else { lanes[lane] };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// `e^x` to 2 units in the last place (Cephes' polynomial); 0 under -87, NaN for NaN, at most `e^88`.
#[inline(always)]
pub fn exp<S: Simd>(x: f32) -> f32 {
    // 1.5 * 2^23: adding it leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let bounded = if x > 88.0 { 88.0 } else { x };
    let shifted = mul_add::<S>(bounded, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add::<S>(n, -0.693_359_4, bounded);
    let r = mul_add::<S>(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = mul_add::<S>(p, r, coefficient);
    }
    let fraction = mul_add::<S>(p, r * r, r) + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < -87.0 { 0.0 } else { fraction * power }
}

/// `e^x` to 2 units in the last place for `x <= 0`; 0 under -700.
#[inline(always)]
pub fn exp_f64<S: Simd>(x: f64) -> f64 {
    // 1.5 * 2^52, for the same reason.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let shifted = mul_add_f64::<S>(x, std::f64::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add_f64::<S>(n, -0.693_147_180_369_123_8, x);
    let r = mul_add_f64::<S>(n, -1.908_214_929_270_587_7e-10, r);
    let mut p = 1.0 / 6_227_020_800.0;
    for factorial in
        [479_001_600.0, 39_916_800.0, 3_628_800.0, 362_880.0, 40_320.0, 5_040.0, 720.0, 120.0, 24.0, 6.0, 2.0]
    {
        p = mul_add_f64::<S>(p, r, 1.0 / factorial);
    }
    let fraction = mul_add_f64::<S>(p, r * r, r) + 1.0;
    let power = f64::from_bits((shifted.to_bits() << 52).wrapping_add(0x3ff0_0000_0000_0000));
    if x < -700.0 { 0.0 } else { fraction * power }
}

/// The nearest bf16 in the upper half of the word, ties to even; NaN stays NaN.
#[inline(always)]
pub fn nearest_bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    (if x.is_nan() { bits | 0x0040_0000 } else { nearest }) & 0xffff_0000
}

/// Moves exponent and mantissa into place and corrects the exponent's bias by a multiplication, which also makes
/// subnormal halves normal. Unlike a call to the `half` crate, it is vectorized.
#[inline(always)]
pub fn f16_to_f32(half: u16) -> f32 {
    const TWO_TO_112: f32 = f32::from_bits((127 + 112) << 23);
    let (sign, magnitude) = (u32::from(half & 0x8000) << 16, u32::from(half & 0x7fff));
    let finite = (f32::from_bits(magnitude << 13) * TWO_TO_112).to_bits();
    let bits = if magnitude >= 0x7c00 { (magnitude << 13) | 0x7f80_0000 } else { finite };
    f32::from_bits(bits | sign)
}
