// bfloat16 and IEEE half as storage formats. Conversions round to nearest, ties to even, as on the GPU.
#pragma once

#include <cstring>

#include "types.h"

inline u32 __float_as_uint(float x) {
    u32 bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

inline float __uint_as_float(u32 bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

struct bf16 {
    u16 bits;
};

struct half {
    u16 bits;
};

inline float to_float(float x) { return x; }

inline float to_float(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }

inline float to_float(half x) {
    const u32 sign = u32(x.bits & 0x8000) << 16, magnitude = x.bits & 0x7fff;
    // A normal half has 13 fewer mantissa bits than a float, and its exponent differs by 112.
    if (magnitude >= 0x7c00) return __uint_as_float(sign | 0x7f800000 | (magnitude << 13));
    if (magnitude >= 0x0400) return __uint_as_float(sign | ((magnitude << 13) + (112u << 23)));
    const float subnormal = float(magnitude) * 0x1p-24f;  // exact
    return sign ? -subnormal : subnormal;
}

template <class T>
T from_float(float x);

template <>
inline float from_float<float>(float x) {
    return x;
}

template <>
inline bf16 from_float<bf16>(float x) {
    const u32 bits = __float_as_uint(x);
    if (x != x) return {0x7fff};  // the GPU's canonical NaN
    return {u16((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

template <>
inline half from_float<half>(float x) {
    const u32 bits = __float_as_uint(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return {0x7fff};
    // The nearest half of 65520 and more is infinity.
    if (magnitude >= 0x477ff000) return {u16(sign | 0x7c00)};
    if (magnitude < 0x38800000) {
        // Below the least normal half, the sum with 0.5 has the rounded multiple of 2^-24 in its low bits.
        const u32 shifted = __float_as_uint(__uint_as_float(magnitude) + 0.5f);
        return {u16(sign | (shifted - 0x3f000000))};
    }
    const u32 rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    return {u16(sign | ((rounded - (112u << 23)) >> 13))};
}

// Rounds two floats to bf16 and packs them into one register, `lo` in the low half.
inline u32 pack_bf16(float lo, float hi) {
    return u32(from_float<bf16>(lo).bits) | u32(from_float<bf16>(hi).bits) << 16;
}

// The rounded products of two pairs of bf16.
inline u32 mul_bf16x2(u32 a, u32 b) {
    const auto low = [](u32 x) { return __uint_as_float(x << 16); };
    const auto high = [](u32 x) { return __uint_as_float(x & 0xffff0000); };
    return pack_bf16(low(a) * low(b), high(a) * high(b));  // a float holds the product of two bf16 exactly
}
