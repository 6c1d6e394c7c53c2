//! The 8-bit number format e4m3, in rows with one f32 scale each: a value is its number times the scale.
//!
//! Equal to the kernels' conversion (`kernels/e4m3.cuh`), bit for bit.

use bytemuck::{Pod, Zeroable};

/// One sign bit, four exponent bits (bias 7), three mantissa bits. The largest number is 448; there is no infinity,
/// and one NaN of either sign. (E4M3 of the OCP's 8-bit floating point formats, `PyTorch`'s `float8_e4m3fn`.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct E4m3(pub u8);

/// The largest number.
pub(super) const MAX: f32 = 448.0;
/// The smallest normal number.
const LEAST_NORMAL: f32 = 0.015_625;
const NAN: u32 = 0x7f;

impl E4m3 {
    /// Rounds to the nearest number, ties to even. Values beyond the largest number become the largest, where
    /// `PyTorch` makes them NaN.
    #[inline]
    pub fn from_f32(x: f32) -> Self {
        let (sign, magnitude) = ((x.to_bits() >> 24) & 0x80, magnitude_bits(x));
        let bounded = magnitude.min(MAX.to_bits());
        // Below the least normal number, adding 2^14 leaves a multiple of 2^-9, rounded, in the low bits.
        let subnormal = (f32::from_bits(bounded) + 16384.0).to_bits() - 16384.0_f32.to_bits();
        let normal = (bounded + 0x7_ffff + ((bounded >> 20) & 1)).wrapping_sub(120 << 23) >> 20;
        let finite = if bounded < LEAST_NORMAL.to_bits() { subnormal } else { normal };
        let bits = if magnitude > f32::INFINITY.to_bits() { NAN } else { finite };
        Self((sign | bits) as u8)
    }

    /// The exact value.
    #[allow(clippy::inline_always, reason = "it is compiled for the instruction set of the CPU's kernels")]
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        // Shifted into the place of a float's fields, exponent and mantissa stand for 2^-120 of the number, subnormal
        // ones too.
        const TWO_TO_120: f32 = f32::from_bits((127 + 120) << 23);
        let (sign, magnitude) = (u32::from(self.0 & 0x80) << 24, u32::from(self.0) & 0x7f);
        let finite = (f32::from_bits(magnitude << 20) * TWO_TO_120).to_bits();
        f32::from_bits(sign | if magnitude == NAN { f32::NAN.to_bits() } else { finite })
    }
}

/// The bits of a float's magnitude. They order magnitudes, and NaN is the greatest.
#[inline]
pub(super) fn magnitude_bits(x: f32) -> u32 {
    x.to_bits() & 0x7fff_ffff
}
