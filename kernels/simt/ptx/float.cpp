// Arithmetic on f32 and f64: PTX ISA, "Floating Point Instructions". What the manual calls approximate is
// computed to the last bit or nearly so, since it only bounds the error.
#include <cfenv>
#include <cmath>
#include <limits>

#include "each.h"
#include "fused.h"
#include "narrow.h"

namespace ptx {
namespace {

// How a result is made of the exact one; the immediate of an instruction.
struct Mode {
    Rounding rounding = Rounding::nearest;
    bool flushes = false;    // .ftz: subnormal numbers are zero, as operands and as results
    bool saturates = false;  // .sat: to 0..1, and NaN to 0

    static Mode of(u64 bits) { return {Rounding(bits & 3), (bits & 4) != 0, (bits & 8) != 0}; }
    u64 bits() const { return u64(rounding) | u64(flushes) << 2 | u64(saturates) << 3; }
};

Mode take_mode(Opcode& opcode, Type type) {
    Mode mode;
    mode.rounding = take_rounding(opcode).value_or(Rounding::nearest);
    if (type == Type::f32) {
        mode.flushes = opcode.take("ftz");
        mode.saturates = opcode.take("sat");
    }
    return mode;
}

// The GPU's only NaN of f32.
float canonical(float x) { return x == x ? x : bits_as<float>(0x7fffffffu); }
double canonical(double x) { return x; }

float flush(float x) { return std::fabs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x; }
double flush(double x) { return x; }

template <class T>
T saturate(T x) {
    return x > T(0) ? (x < T(1) ? x : T(1)) : T(0);
}

class RoundingScope {
public:
    explicit RoundingScope(Rounding rounding) {
        constexpr int all[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
        std::fesetround(all[u32(rounding)]);
    }
    ~RoundingScope() { std::fesetround(FE_TONEAREST); }
    RoundingScope(const RoundingScope&) = delete;
};

// As run_each, in the mode that the instruction names. The operands are volatile so that the compiler does
// not compute before the rounding is set.
template <class F, class T, size_t... I>
void run_in_mode(Warp& warp, const Instruction& at, u32 lanes, std::index_sequence<I...>) {
    const Mode mode = Mode::of(at.immediate);
    T* const to = warp.lanes_of<T>(at.operands[0]);
    const T* const from[] = {warp.lanes_of<T>(at.operands[1 + I])...};
    const RoundingScope scope(mode.rounding);
    for (u32 left = lanes; left; left &= left - 1) {
        const u32 lane = lowest(left);
        volatile T operands[] = {(mode.flushes ? flush(from[I][lane]) : from[I][lane])...};
        volatile T result = F{}(T(operands[I])...);
        T made = canonical(T(result));
        if (mode.flushes) made = flush(made);
        if (mode.saturates) made = saturate(made);
        to[lane] = made;
    }
}

template <class T, size_t... I, class F>
Execute in_mode(Mode mode, F, std::index_sequence<I...>) {
    if (mode.bits() == 0) return each<T, decltype(T(I))...>([](auto... x) { return canonical(F{}(x...)); });
    return [](Warp& warp, const Instruction& at, u32 lanes) {
        run_in_mode<F, T>(warp, at, lanes, std::index_sequence<I...>());
    };
}

// An operation of N operands of one type.
template <size_t N, class F>
Form operation(Mode mode, Type type, F f) {
    constexpr std::make_index_sequence<N> indices;
    Form form;
    if (type == Type::f32) form.execute = in_mode<float>(mode, f, indices);
    if (type == Type::f64) form.execute = in_mode<double>(mode, f, indices);
    form.destinations = {type};
    form.sources.assign(N, type);
    form.immediate = mode.bits();
    return form;
}

// An approximate function of an f32.
template <class F>
Form approximate(Opcode& opcode, F f) {
    opcode.take("approx");
    const Type type = opcode.take_type().value_or(Type::pred);
    if (type != Type::f32) return {};
    return operation<1>(take_mode(opcode, type), type, f);
}

// min and max. If only one operand is NaN, the result is the other, or NaN where `keeps_nan`. -0 is less than
// +0.
template <bool IS_MAX, bool KEEPS_NAN, class T>
T extreme(T a, T b) {
    if (a != a || b != b) {
        if (KEEPS_NAN || (a != a && b != b)) return std::numeric_limits<T>::quiet_NaN();
        return a == a ? a : b;
    }
    const bool is_less = a < b || (a == b && std::signbit(a));
    return is_less != IS_MAX ? a : b;
}

template <bool IS_MAX>
Form extreme_of(Opcode& opcode, Type type) {
    if (size_of(type) == 2 || type == Type::f16x2 || type == Type::bf16x2)
        return half_arithmetic(IS_MAX ? HalfOperation::max : HalfOperation::min, opcode, type);
    const Mode mode = take_mode(opcode, type);
    if (opcode.take("NaN"))
        return operation<2>(mode, type, [](auto a, auto b) { return extreme<IS_MAX, true>(a, b); });
    return operation<2>(mode, type, [](auto a, auto b) { return extreme<IS_MAX, false>(a, b); });
}

bool is_half(Type type) { return type != Type::f32 && type != Type::f64; }

// The reciprocal and its root in f64, of which the GPU computes the high word only.
template <class F>
Form of_high_words(F) {
    return unary(each<double, double>([](double x) {
                     constexpr u64 high = 0xffffffff00000000;
                     double operand = bits_as<double>(bits_as<u64>(x) & high);
                     if (std::fabs(operand) < std::numeric_limits<double>::min())
                         operand = std::copysign(0.0, x);
                     const double result = F{}(operand);
                     if (std::fabs(result) < std::numeric_limits<double>::min())
                         return std::copysign(0.0, result);
                     return bits_as<double>(bits_as<u64>(result) & high);
                 }),
                 Type::f64);
}

float divide_approximately(float a, float b) {
    // The reciprocal of such a number is a subnormal, which the GPU takes as zero.
    if (std::fabs(b) > 0x1p126f && !std::isinf(b)) return std::isinf(a) ? NAN : std::copysign(0.0f, a / b);
    return a / b;
}

// Whether a number of this kind has the property, by its place in the list of testp.
bool has_property(int kind, u64 property) {
    switch (property) {
        case 0:
            return kind != FP_INFINITE && kind != FP_NAN;
        case 1:
            return kind == FP_INFINITE;
        case 2:
            return kind != FP_NAN;
        case 3:
            return kind == FP_NAN;
        case 4:
            return kind == FP_NORMAL;
        default:
            return kind == FP_SUBNORMAL;
    }
}

}  // namespace

Form float_add(Opcode& opcode, Type type) {
    if (is_half(type)) return half_arithmetic(HalfOperation::add, opcode, type);
    return operation<2>(take_mode(opcode, type), type, [](auto a, auto b) { return a + b; });
}

Form float_sub(Opcode& opcode, Type type) {
    if (is_half(type)) return half_arithmetic(HalfOperation::sub, opcode, type);
    return operation<2>(take_mode(opcode, type), type, [](auto a, auto b) { return a - b; });
}

Form float_mul(Opcode& opcode, Type type) {
    if (is_half(type)) return half_arithmetic(HalfOperation::mul, opcode, type);
    return operation<2>(take_mode(opcode, type), type, [](auto a, auto b) { return a * b; });
}

Form float_div(Opcode& opcode, Type type) {
    if (is_half(type)) return {};
    const bool is_approximate = type == Type::f32 && opcode.take("approx");
    if (type == Type::f32) opcode.take("full");
    const Mode mode = take_mode(opcode, type);
    if (is_approximate)
        return operation<2>(mode, type,
                            [](auto a, auto b) { return divide_approximately(float(a), float(b)); });
    return operation<2>(mode, type, [](auto a, auto b) { return a / b; });
}

Form float_min(Opcode& opcode, Type type) { return extreme_of<false>(opcode, type); }
Form float_max(Opcode& opcode, Type type) { return extreme_of<true>(opcode, type); }

Form float_abs(Opcode& opcode, Type type) {
    if (is_half(type)) return half_arithmetic(HalfOperation::abs, opcode, type);
    return operation<1>(take_mode(opcode, type), type, [](auto a) { return std::fabs(a); });
}

Form float_neg(Opcode& opcode, Type type) {
    if (is_half(type)) return half_arithmetic(HalfOperation::neg, opcode, type);
    return operation<1>(take_mode(opcode, type), type, [](auto a) { return -a; });
}

// mad of floats is fma too.
Form fma(Opcode& opcode, const Statement&) {
    const Type type = opcode.take_type().value_or(Type::pred);
    if (!is_float(type)) return {};
    if (is_half(type)) return half_arithmetic(HalfOperation::fma, opcode, type);
    const Mode mode = take_mode(opcode, type);
    Form form = operation<3>(mode, type, [](auto a, auto b, auto c) { return std::fma(a, b, c); });
    if (mode.bits() == 0) form.execute = fused_multiply_add(type);
    return form;
}

Form reciprocal(Opcode& opcode, const Statement&) {
    const Type type = opcode.take_type().value_or(Type::pred);
    if (opcode.take("approx") && type == Type::f64)
        return opcode.take("ftz") ? of_high_words([](double x) { return 1 / x; }) : Form();
    return operation<1>(take_mode(opcode, type), type, [](auto a) { return 1 / a; });
}

Form square_root(Opcode& opcode, const Statement&) {
    const Type type = opcode.take_type().value_or(Type::pred);
    if (type == Type::f32) opcode.take("approx");
    return operation<1>(take_mode(opcode, type), type, [](auto a) { return std::sqrt(a); });
}

Form reciprocal_root(Opcode& opcode, const Statement&) {
    const Type type = opcode.take_type().value_or(Type::pred);
    if (!opcode.take("approx")) return {};
    if (type == Type::f64) {
        if (opcode.take("ftz")) return of_high_words([](double x) { return 1 / std::sqrt(x); });
        return operation<1>({}, type, [](auto a) { return 1 / std::sqrt(a); });
    }
    return operation<1>(take_mode(opcode, type), type,
                        [](auto a) { return decltype(a)(1 / std::sqrt(double(a))); });
}

Form exponential(Opcode& opcode, const Statement&) {
    const Type type = Opcode(opcode).take_type().value_or(Type::f32);
    if (is_half(type)) {
        opcode.take_type();
        return is_float(type) ? half_arithmetic(HalfOperation::exponential, opcode, type) : Form();
    }
    return approximate(opcode, [](auto a) { return std::exp2(a); });
}
Form logarithm(Opcode& opcode, const Statement&) {
    return approximate(opcode, [](auto a) { return std::log2(a); });
}
Form sine(Opcode& opcode, const Statement&) {
    return approximate(opcode, [](auto a) { return std::sin(a); });
}
Form cosine(Opcode& opcode, const Statement&) {
    return approximate(opcode, [](auto a) { return std::cos(a); });
}
Form tangent(Opcode& opcode, const Statement&) {
    return approximate(opcode, [](auto a) { return std::tanh(a); });
}

Form copysign(Opcode& opcode, const Statement&) {
    const Type type = opcode.take_type().value_or(Type::pred);
    if (type == Type::f32)
        return binary(each<float, float, float>([](float sign, float x) { return std::copysign(x, sign); }),
                      type);
    if (type == Type::f64)
        return binary(
            each<double, double, double>([](double sign, double x) { return std::copysign(x, sign); }), type);
    return {};
}

Form testp(Opcode& opcode, const Statement&) {
    const auto what = opcode.take_one({"finite", "infinite", "number", "notanumber", "normal", "subnormal"});
    const Type type = opcode.take_type().value_or(Type::pred);
    if (!what || (type != Type::f32 && type != Type::f64)) return {};
    const auto run = [](auto x) -> Execute {
        return [](Warp& warp, const Instruction& at, u32 lanes) {
            const auto* from = warp.lanes_of<decltype(x)>(at.operands[1]);
            u32 found = 0;
            for (u32 lane = 0; lane < 32; ++lane)
                found |= u32(has_property(std::fpclassify(from[lane]), at.immediate)) << lane;
            warp.set_predicate(at.operands[0], lanes, found);
        };
    };
    return {type == Type::f32 ? run(float()) : run(double()), {Type::pred}, {type}, *what};
}

}  // namespace ptx
