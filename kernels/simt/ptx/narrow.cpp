#include "narrow.h"

#include <algorithm>
#include <cmath>

namespace ptx {
namespace {

// The integer to which a number that is not negative is rounded.
double round_magnitude(double x, Rounding rounding, bool is_negative) {
    switch (rounding) {
        case Rounding::nearest:
            return std::nearbyint(x);
        case Rounding::zero:
            return std::floor(x);
        case Rounding::down:
            return is_negative ? std::ceil(x) : std::floor(x);
        case Rounding::up:
            return is_negative ? std::floor(x) : std::ceil(x);
    }
    return x;
}

bool goes_to_infinity(Rounding rounding, bool is_negative) {
    return rounding == Rounding::nearest || rounding == (is_negative ? Rounding::down : Rounding::up);
}

}  // namespace

u32 narrow(double x, const Format& format, Rounding rounding, bool saturates) {
    if (x != x) return format.not_a_number;
    const bool is_negative = std::signbit(x);
    const u32 sign = is_negative ? format.sign : 0, largest = format.infinity - 1;
    if (std::isinf(x)) return sign | (saturates ? largest : format.infinity);
    const double magnitude = std::fabs(x);
    const int exponent =
        magnitude ? std::max(std::ilogb(magnitude), format.least_exponent) : format.least_exponent;
    // In units of the last bit at this exponent. A carry goes into the exponent's bits by itself.
    const double units = std::ldexp(magnitude, format.mantissa_bits - exponent);
    const u64 code = (u64(exponent - format.least_exponent) << format.mantissa_bits) +
                     u64(round_magnitude(units, rounding, is_negative));
    if (code < format.infinity) return sign | u32(code);
    return sign | (saturates || !goes_to_infinity(rounding, is_negative) ? largest : format.infinity);
}

double widen(u32 code, const Format& format) {
    const u32 magnitude = code & (format.sign - 1);
    const double sign = code & format.sign ? -1 : 1;
    if (magnitude >= format.infinity) {
        const bool is_infinite = magnitude == format.infinity && format.infinity != format.not_a_number;
        return is_infinite ? sign * INFINITY : NAN;
    }
    const int exponent = int(magnitude >> format.mantissa_bits);
    const u32 mantissa = magnitude & ((1u << format.mantissa_bits) - 1);
    const u32 units = exponent ? mantissa | 1u << format.mantissa_bits : mantissa;
    return sign * std::ldexp(units, format.least_exponent - format.mantissa_bits + std::max(exponent, 1) - 1);
}

double add_for_narrowing(double x, double y) {
    const double sum = x + y;
    if (!std::isfinite(sum)) return sum;
    // The error of the sum: D. E. Knuth, "The Art of Computer Programming", volume 2, 4.2.2.
    const double of_y = sum - x, error = (x - (sum - of_y)) + (y - of_y);
    const u64 bits = bits_as<u64>(sum);
    if (error == 0 || bits & 1) return sum;
    return std::nextafter(sum, error > 0 ? INFINITY : -INFINITY);
}

}  // namespace ptx
