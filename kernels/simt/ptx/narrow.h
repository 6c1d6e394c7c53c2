// Rounds to the formats of 8 and 16 bits, and to the float of fewer bits that tensor cores read.
#pragma once

#include "opcode.h"
#include "types.h"

namespace ptx {

// A binary format of a sign, an exponent and a mantissa.
struct Format {
    int mantissa_bits, least_exponent;
    u32 infinity;      // the code after the largest number; where a format has no infinity, that of NaN
    u32 not_a_number;  // canonical
    u32 sign;          // the bit
};

constexpr Format bf16_format{7, -126, 0x7f80, 0x7fff, 0x8000};
constexpr Format f16_format{10, -14, 0x7c00, 0x7fff, 0x8000};
// Open Compute Project, "8-bit Floating Point Specification": E4M3 has no infinity.
constexpr Format e4m3_format{3, -6, 0x7f, 0x7f, 0x80};
constexpr Format e5m2_format{2, -14, 0x7c, 0x7f, 0x80};
constexpr Format tf32_format{10, -126, 0x7f800000 >> 13, 0x7fffffff >> 13, 0x80000000 >> 13};

// The code of x. A number too large becomes infinity, or the largest number if it `saturates` or is rounded
// towards that. NaN stays NaN.
u32 narrow(double x, const Format& format, Rounding rounding, bool saturates);

// The number of a code.
double widen(u32 code, const Format& format);

// x + y rounded so that a second rounding, to at most half of a double's bits, is as if there were only that
// one: a sum that is not exact gets an odd mantissa.
double add_for_narrowing(double x, double y);

}  // namespace ptx
