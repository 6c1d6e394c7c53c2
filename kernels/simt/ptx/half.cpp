// Arithmetic on f16 and bf16, alone and in pairs: PTX ISA, "Half Precision Floating Point Instructions".
#include <cmath>

#include "form.h"
#include "narrow.h"
#include "warp.h"

namespace ptx {
namespace {

struct Mode {
    bool is_bf16, flushes, saturates, relu, keeps_nan;

    static Mode of(u64 bits) {
        return {(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0, (bits & 16) != 0};
    }
    u64 bits() const {
        return u64(is_bf16) | u64(flushes) << 1 | u64(saturates) << 2 | u64(relu) << 3 | u64(keeps_nan) << 4;
    }
    const Format& format() const { return is_bf16 ? bf16_format : f16_format; }
};

double value_of(u16 code, Mode mode) {
    if (mode.is_bf16) return to_float(bf16{code});
    const double x = to_float(half{code});
    return mode.flushes && std::fabs(x) < 0x1p-14 ? std::copysign(0.0, x) : x;
}

double extreme(double a, double b, bool is_max, bool keeps_nan) {
    if (a != a || b != b) {
        if (keeps_nan || (a != a && b != b)) return NAN;
        return a == a ? a : b;
    }
    const bool is_less = a < b || (a == b && std::signbit(a));
    return is_less != is_max ? a : b;
}

template <HalfOperation OPERATION>
double compute(double a, double b, double c, Mode mode) {
    switch (OPERATION) {
        case HalfOperation::add:
            return add_for_narrowing(a, b);
        case HalfOperation::sub:
            return add_for_narrowing(a, -b);
        case HalfOperation::mul:
            return a * b;  // exact
        case HalfOperation::fma:
            return add_for_narrowing(a * b, c);
        case HalfOperation::min:
            return extreme(a, b, false, mode.keeps_nan);
        case HalfOperation::max:
            return extreme(a, b, true, mode.keeps_nan);
        case HalfOperation::exponential:
            return std::exp2(a);
        default:
            return a;
    }
}

u16 code_of(double x, Mode mode) {
    if (mode.relu && !(x > 0)) x = x == x ? 0 : x;
    if (mode.saturates) x = x > 0 ? std::fmin(x, 1) : 0;
    if (mode.is_bf16 && double(float(x)) == x) return from_float<bf16>(float(x)).bits;
    const u16 code = u16(narrow(x, mode.format(), Rounding::nearest, false));
    const bool is_subnormal = (code & 0x7fff) < 0x0400;
    return mode.flushes && !mode.is_bf16 && is_subnormal ? code & 0x8000 : code;
}

template <HalfOperation OPERATION>
u16 apply(u16 a, u16 b, u16 c, Mode mode) {
    // These change the sign's bit alone.
    if (OPERATION == HalfOperation::neg) return a ^ 0x8000;
    if (OPERATION == HalfOperation::abs) return a & 0x7fff;
    return code_of(compute<OPERATION>(value_of(a, mode), value_of(b, mode), value_of(c, mode), mode), mode);
}

template <HalfOperation OPERATION>
constexpr u32 operands_of = OPERATION == HalfOperation::fma ? 3
                            : OPERATION == HalfOperation::abs || OPERATION == HalfOperation::neg ||
                                    OPERATION == HalfOperation::exponential
                                ? 1
                                : 2;

// T holds one number or two.
template <HalfOperation OPERATION, class T>
void run(Warp& warp, const Instruction& at, u32 lanes) {
    const Mode mode = Mode::of(at.immediate);
    constexpr u32 count = operands_of<OPERATION>;
    T* const to = warp.lanes_of<T>(at.operands[0]);
    const T* const a = warp.lanes_of<T>(at.operands[1]);
    const T* const b = count > 1 ? warp.lanes_of<T>(at.operands[2]) : a;
    const T* const c = count > 2 ? warp.lanes_of<T>(at.operands[3]) : a;
    for (u32 left = lanes; left; left &= left - 1) {
        const u32 lane = lowest(left);
        T made = 0;
        for (u32 shift = 0; shift < 8 * sizeof(T); shift += 16)
            made |=
                T(apply<OPERATION>(u16(a[lane] >> shift), u16(b[lane] >> shift), u16(c[lane] >> shift), mode))
                << shift;
        to[lane] = made;
    }
}

template <HalfOperation OPERATION>
Form form_of(Type type, Mode mode) {
    const bool is_pair = size_of(type) == 4;
    Form form{is_pair ? run<OPERATION, u32> : run<OPERATION, u16>, {type}, {}};
    form.sources.assign(operands_of<OPERATION>, type);
    form.immediate = mode.bits();
    return form;
}

}  // namespace

Form half_arithmetic(HalfOperation operation, Opcode& opcode, Type type) {
    opcode.take("rn");
    if (operation == HalfOperation::exponential) opcode.take("approx");
    const Mode mode{type == Type::bf16 || type == Type::bf16x2, opcode.take("ftz"), opcode.take("sat"),
                    opcode.take("relu"), opcode.take("NaN")};
    switch (operation) {
        case HalfOperation::add:
            return form_of<HalfOperation::add>(type, mode);
        case HalfOperation::sub:
            return form_of<HalfOperation::sub>(type, mode);
        case HalfOperation::mul:
            return form_of<HalfOperation::mul>(type, mode);
        case HalfOperation::fma:
            return form_of<HalfOperation::fma>(type, mode);
        case HalfOperation::min:
            return form_of<HalfOperation::min>(type, mode);
        case HalfOperation::max:
            return form_of<HalfOperation::max>(type, mode);
        case HalfOperation::abs:
            return form_of<HalfOperation::abs>(type, mode);
        case HalfOperation::neg:
            return form_of<HalfOperation::neg>(type, mode);
        case HalfOperation::exponential:
            return form_of<HalfOperation::exponential>(type, mode);
    }
    return {};
}

}  // namespace ptx
