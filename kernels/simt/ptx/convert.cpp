// Conversions: PTX ISA, "cvt".
#include <cmath>
#include <limits>
#include <type_traits>

#include "each.h"
#include "narrow.h"

namespace ptx {
namespace {

using i128 = __int128;

// From which type to which, how the result is rounded and what is cut off; the immediate of an instruction.
struct Mode {
    Type to, from;
    Rounding rounding;
    bool to_whole;   // .rni and so on: the result has no fraction
    bool saturates;  // .sat or .satfinite
    bool relu;
    bool flushes;

    static Mode of(u64 bits) {
        Mode mode;
        std::memcpy(&mode, &bits, sizeof mode);
        return mode;
    }
    u64 bits() const {
        u64 made = 0;
        std::memcpy(&made, this, sizeof *this);
        return made;
    }
};
static_assert(sizeof(Mode) <= sizeof(u64));

// A value of any type, exactly.
struct Number {
    bool is_integer;
    i128 integer;
    double real;
};

Number whole(i128 x) { return {true, x, 0}; }
Number real(double x) { return {false, 0, x}; }

Number read(Warp& warp, u32 offset, u32 lane, Type type) {
    switch (type) {
        case Type::u8:
            return whole(u8(warp.lanes_of<u16>(offset)[lane]));
        case Type::s8:
            return whole(i8(warp.lanes_of<u16>(offset)[lane]));
        case Type::u16:
            return whole(warp.lanes_of<u16>(offset)[lane]);
        case Type::s16:
            return whole(warp.lanes_of<i16>(offset)[lane]);
        case Type::u32:
            return whole(warp.lanes_of<u32>(offset)[lane]);
        case Type::s32:
            return whole(warp.lanes_of<i32>(offset)[lane]);
        case Type::u64:
            return whole(warp.lanes_of<u64>(offset)[lane]);
        case Type::s64:
            return whole(warp.lanes_of<i64>(offset)[lane]);
        case Type::f16:
            return real(to_float(warp.lanes_of<half>(offset)[lane]));
        case Type::bf16:
            return real(to_float(warp.lanes_of<bf16>(offset)[lane]));
        case Type::f32:
            return real(warp.lanes_of<float>(offset)[lane]);
        default:
            return real(warp.lanes_of<double>(offset)[lane]);
    }
}

double without_fraction(double x, Rounding rounding) {
    switch (rounding) {
        case Rounding::nearest:
            return std::nearbyint(x);
        case Rounding::zero:
            return std::trunc(x);
        case Rounding::down:
            return std::floor(x);
        case Rounding::up:
            return std::ceil(x);
    }
    return x;
}

double clamped_to_unit(double x) { return x > 0 ? std::fmin(x, 1) : 0; }

// Integers wrap around unless the instruction saturates. Floats always saturate.
template <class D>
D to_integer(const Number& x, Mode mode) {
    constexpr i128 least = std::numeric_limits<D>::min(), most = std::numeric_limits<D>::max();
    if (x.is_integer && !mode.saturates) return D(x.integer);
    i128 exact = x.integer;
    if (!x.is_integer) {
        // PTX ISA: NaN becomes zero, or the highest bit where a 64-bit type takes part.
        const bool is_wide = mode.from == Type::f64 || sizeof(D) == 8;
        if (x.real != x.real) return is_wide ? D(u64(1) << (8 * sizeof(D) - 1)) : D(0);
        // Beyond every integer type, but within an i128.
        exact = i128(without_fraction(std::fmin(std::fmax(x.real, -0x1p100), 0x1p100), mode.rounding));
    }
    return D(exact < least ? least : exact > most ? most : exact);
}

// An exact number to a float of fewer bits. The nearest is at most one step from the one that is asked for.
template <class D, class Exact>
D rounded(Exact x, Rounding rounding) {
    const D nearest = D(x);
    if (rounding == Rounding::nearest || !(Exact(nearest) < x || Exact(nearest) > x)) return nearest;
    const bool goes_down = rounding == Rounding::down || (rounding == Rounding::zero && x > 0);
    if ((Exact(nearest) > x) != goes_down) return nearest;
    constexpr D infinity = std::numeric_limits<D>::infinity();
    return std::nextafter(nearest, goes_down ? -infinity : infinity);
}

// Long doubles hold every 64-bit integer.
static_assert(std::numeric_limits<long double>::digits >= 64);

template <class D>
D to_float_of(const Number& x, Mode mode) {
    if (x.is_integer) return rounded<D>(static_cast<long double>(x.integer), mode.rounding);
    double exact = x.real;
    if (mode.flushes && std::fabs(exact) < 0x1p-126) exact = std::copysign(0.0, exact);
    if (mode.to_whole) exact = without_fraction(exact, mode.rounding);
    D made = rounded<D>(exact, mode.to_whole ? Rounding::nearest : mode.rounding);
    if (mode.flushes && std::fabs(made) < D(0x1p-126)) made = std::copysign(D(0), made);
    if (mode.saturates) made = D(clamped_to_unit(made));
    if (made == made) return made;
    if constexpr (sizeof(D) == 4)
        return bits_as<float>(0x7fffffffu);
    else
        return made;
}

u32 to_narrow(const Number& x, Mode mode, const Format& format) {
    double exact = x.real;
    if (x.is_integer) {
        const i64 high = i64(x.integer >> 32);
        exact = add_for_narrowing(double(high) * 0x1p32, double(u32(x.integer)));
    }
    if (mode.to_whole) exact = without_fraction(exact, mode.rounding);
    if (mode.relu && exact <= 0) exact = 0;
    // .sat clamps to 0..1 where the format has infinities and the type is one that has arithmetic.
    const bool has_arithmetic = &format == &f16_format || &format == &bf16_format;
    if (mode.saturates && has_arithmetic) exact = clamped_to_unit(exact);
    return narrow(exact, format, mode.to_whole ? Rounding::nearest : mode.rounding,
                  mode.saturates && !has_arithmetic);
}

void write(Warp& warp, u32 offset, u32 lane, const Number& x, Mode mode) {
    switch (mode.to) {
        case Type::u8:
            warp.lanes_of<u8>(offset)[lane] = to_integer<u8>(x, mode);
            break;
        case Type::s8:
            warp.lanes_of<i8>(offset)[lane] = to_integer<i8>(x, mode);
            break;
        case Type::u16:
            warp.lanes_of<u16>(offset)[lane] = to_integer<u16>(x, mode);
            break;
        case Type::s16:
            warp.lanes_of<i16>(offset)[lane] = to_integer<i16>(x, mode);
            break;
        case Type::u32:
            warp.lanes_of<u32>(offset)[lane] = to_integer<u32>(x, mode);
            break;
        case Type::s32:
            warp.lanes_of<i32>(offset)[lane] = to_integer<i32>(x, mode);
            break;
        case Type::u64:
            warp.lanes_of<u64>(offset)[lane] = to_integer<u64>(x, mode);
            break;
        case Type::s64:
            warp.lanes_of<i64>(offset)[lane] = to_integer<i64>(x, mode);
            break;
        case Type::f16:
            warp.lanes_of<u16>(offset)[lane] = u16(to_narrow(x, mode, f16_format));
            break;
        case Type::bf16:
            warp.lanes_of<u16>(offset)[lane] = u16(to_narrow(x, mode, bf16_format));
            break;
        case Type::tf32:
            warp.lanes_of<u32>(offset)[lane] = to_narrow(x, mode, tf32_format) << 13;
            break;
        case Type::f32:
            warp.lanes_of<float>(offset)[lane] = to_float_of<float>(x, mode);
            break;
        default:
            warp.lanes_of<double>(offset)[lane] = to_float_of<double>(x, mode);
    }
}

void run_any(Warp& warp, const Instruction& at, u32 lanes) {
    const Mode mode = Mode::of(at.immediate);
    for (u32 left = lanes; left; left &= left - 1) {
        const u32 lane = lowest(left);
        write(warp, at.operands[0], lane, read(warp, at.operands[1], lane, mode.from), mode);
    }
}

// The conversions that kernels use most, as loops of their own; null for others.
Execute frequent(const Mode& mode) {
    if (mode.to_whole || mode.saturates || mode.relu || mode.flushes || mode.rounding != Rounding::nearest)
        return nullptr;
    const auto is = [&](Type to, Type from) { return mode.to == to && mode.from == from; };
    if (is(Type::f32, Type::bf16)) return each<float, bf16>([](bf16 x) { return to_float(x); });
    if (is(Type::bf16, Type::f32)) return each<bf16, float>([](float x) { return from_float<bf16>(x); });
    if (is(Type::f64, Type::f32)) return each<double, float>([](float x) { return double(x); });
    if (is(Type::f32, Type::u32)) return each<float, u32>([](u32 x) { return float(x); });
    if (is(Type::f32, Type::s32)) return each<float, i32>([](i32 x) { return float(x); });
    if (is(Type::f64, Type::u32)) return each<double, u32>([](u32 x) { return double(x); });
    if (is(Type::f64, Type::s32)) return each<double, i32>([](i32 x) { return double(x); });
    if (is(Type::u32, Type::u64)) return each<u32, u64>([](u64 x) { return u32(x); });
    if (is(Type::u64, Type::u32)) return each<u64, u32>([](u32 x) { return u64(x); });
    if (is(Type::s64, Type::s32)) return each<i64, i32>([](i32 x) { return i64(x); });
    if (is(Type::u32, Type::u16)) return each<u32, u16>([](u16 x) { return u32(x); });
    if (is(Type::u64, Type::u16)) return each<u64, u16>([](u16 x) { return u64(x); });
    if (is(Type::u16, Type::u32)) return each<u16, u32>([](u32 x) { return u16(x); });
    return nullptr;
}

// Pairs: the first source is the upper element.

const Format& format_of(Type type) {
    switch (type) {
        case Type::f16x2:
            return f16_format;
        case Type::bf16x2:
            return bf16_format;
        case Type::e4m3x2:
            return e4m3_format;
        default:
            return e5m2_format;
    }
}

template <class D>
void pack_floats(Warp& warp, const Instruction& at, u32 lanes) {
    const Mode mode = Mode::of(at.immediate);
    const Format& format = format_of(mode.to);
    constexpr u32 shift = 4 * sizeof(D);
    D* const to = warp.lanes_of<D>(at.operands[0]);
    const float *upper = warp.lanes_of<float>(at.operands[1]), *lower = warp.lanes_of<float>(at.operands[2]);
    for (u32 left = lanes; left; left &= left - 1) {
        const u32 lane = lowest(left);
        to[lane] = D(to_narrow(real(upper[lane]), mode, format) << shift |
                     to_narrow(real(lower[lane]), mode, format));
    }
}

// A pair of one format to a pair of another, through the exact numbers.
template <class D, class S>
void repack(Warp& warp, const Instruction& at, u32 lanes) {
    const Mode mode = Mode::of(at.immediate);
    const Format &to_format = format_of(mode.to), &from_format = format_of(mode.from);
    D* const to = warp.lanes_of<D>(at.operands[0]);
    const S* const from = warp.lanes_of<S>(at.operands[1]);
    for (u32 left = lanes; left; left &= left - 1) {
        const u32 lane = lowest(left);
        const auto converted = [&](u32 code) {
            return to_narrow(real(widen(code, from_format)), mode, to_format);
        };
        const S pair = from[lane];
        const u32 shift = 4 * sizeof(S), upper = converted(pair >> shift),
                  lower = converted(pair & ((1u << shift) - 1));
        to[lane] = D(upper << 4 * sizeof(D) | lower);
    }
}

bool is_pair(Type type) {
    return type == Type::f16x2 || type == Type::bf16x2 || type == Type::e4m3x2 || type == Type::e5m2x2;
}

Form pair_conversion(const Mode& mode) {
    const bool is_wide = size_of(mode.to) == 4;
    if (mode.from == Type::f32) {
        const bool is_plain =
            mode.to == Type::bf16x2 && mode.rounding == Rounding::nearest && !mode.relu && !mode.saturates;
        Execute execute = is_wide ? pack_floats<u32> : pack_floats<u16>;
        if (is_plain)
            execute =
                each<u32, float, float>([](float upper, float lower) { return pack_bf16(lower, upper); });
        return {execute, {mode.to}, {Type::f32, Type::f32}, mode.bits()};
    }
    if (!is_pair(mode.from) || is_wide == (size_of(mode.from) == 4)) return {};
    return {is_wide ? repack<u32, u16> : repack<u16, u32>, {mode.to}, {mode.from}, mode.bits()};
}

}  // namespace

Form cvt(Opcode& opcode, const Statement&) {
    Mode mode{};
    const auto whole = opcode.take_one({"rni", "rzi", "rmi", "rpi"});
    const auto rounding = take_rounding(opcode);
    mode.rounding = whole ? Rounding(*whole) : rounding.value_or(Rounding::nearest);
    mode.flushes = opcode.take("ftz");
    const bool is_finite = opcode.take("satfinite");
    mode.saturates = opcode.take("sat") || is_finite;
    mode.relu = opcode.take("relu");
    opcode.take("rna");
    const auto to = opcode.take_type(), from = opcode.take_type();
    if (!to || !from || size_of(*to) == 0 || size_of(*from) == 0) return {};
    mode.to = *to;
    mode.from = *from;
    if (is_pair(mode.to)) return pair_conversion(mode);
    const auto is_scalar = [](Type type) {
        return is_integer(type) || type == Type::f16 || type == Type::bf16 || type == Type::f32 ||
               type == Type::f64;
    };
    if (!is_scalar(mode.from) || (!is_scalar(mode.to) && mode.to != Type::tf32)) return {};
    mode.to_whole = whole && is_float(mode.to);
    // Between floats of which the second holds every number of the first, and from float to integer without a
    // direction, the manual asks for one or for none; an integer is always rounded as it says.
    if (is_float(mode.from) && is_integer(mode.to) && !whole) return {};
    const Execute fast = frequent(mode);
    Form form{fast ? fast : run_any, {mode.to}, {mode.from}, mode.bits()};
    form.is_relaxed = true;
    return form;
}

}  // namespace ptx
