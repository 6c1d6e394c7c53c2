// Numbers of eight bits: a sign, four bits of exponent (bias 7) and three of mantissa. The largest is 448;
// there is no infinity and one NaN of either sign (E4M3 of the OCP's 8-bit floating point formats, PyTorch's
// float8_e4m3fn). Each row has one scale, and a value is number times scale.
//
// Conversions use bit arithmetic on every architecture. Widening takes as many instructions as the
// conversions of sm_89 and later, which run at half the rate, and the GPU runs the code that the host has
// tested.
#pragma once

#include "prelude.cuh"

struct e4m3 {
    u8 bits;
};

// Whether rows of type T have scales.
template <class T>
constexpr bool IS_SCALED = false;
template <>
inline constexpr bool IS_SCALED<e4m3> = true;

constexpr float E4M3_MAX = 448;
constexpr u32 E4M3_NAN = 0x7f;

// Exponent and mantissa, moved to their places in a float or a bf16, make the number times 2^-120, because
// the biases differ by 120. This also holds for subnormal numbers.
constexpr u32 TWO_TO_120_F32 = 247u << 23;
constexpr u32 TWO_TO_120_BF16X2 = 0x7b807b80;

DEVICE float to_float(e4m3 x) {
    const u32 magnitude = x.bits & 0x7f, sign = u32(x.bits & 0x80) << 24;
    const float widened = __uint_as_float(magnitude << 20) * __uint_as_float(TWO_TO_120_F32);
    return __uint_as_float(sign | (magnitude == E4M3_NAN ? 0x7fc00000 : __float_as_uint(widened)));
}

// Rounds to nearest, ties to even, and saturates at the largest number.
template <>
DEVICE e4m3 from_float<e4m3>(float x) {
    const u32 bits = __float_as_uint(x), sign = bits >> 24 & 0x80, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return {u8(sign | E4M3_NAN)};
    const u32 bounded = min(magnitude, __float_as_uint(E4M3_MAX));
    // Below the least normal number 2^-6, the sum with 2^14 has the rounded multiple of 2^-9 in its low bits.
    const u32 subnormal = __float_as_uint(__uint_as_float(bounded) + 16384.0f) - __float_as_uint(16384.0f);
    const u32 normal = (bounded + 0x7ffff + (bounded >> 20 & 1) - (120u << 23)) >> 20;
    return {u8(sign | (bounded < __float_as_uint(0.015625f) ? subnormal : normal))};
}

// Widens four numbers to bf16, exactly: bytes 0 and 2 to `even`, bytes 1 and 3 to `odd`, the lower byte to
// the low half. A NaN becomes 480. PRECOND: no number is NaN.
DEVICE void widen(u32 four, u32& even, u32& odd) {
    const auto place = [](u32 high) { return (high & 0x80008000) | (high >> 4 & 0x07f007f0); };
    even = mul_bf16x2(place(four << 8), TWO_TO_120_BF16X2);
    odd = mul_bf16x2(place(four), TWO_TO_120_BF16X2);
}

// The bits of a float's magnitude, which have the order of magnitudes. NaN is the greatest.
DEVICE u32 magnitude_bits(float x) { return __float_as_uint(x) & 0x7fffffff; }

// The scale of a row, given the greatest magnitude_bits of its numbers. The scale of a row with a NaN is NaN,
// and so is the whole row.
DEVICE float e4m3_scale(u32 greatest) { return __uint_as_float(greatest) / E4M3_MAX; }

// `x` in units of its row's scale, not rounded yet.
DEVICE float in_units(float x, float scale) { return scale == 0 ? 0.0f : x / scale; }
