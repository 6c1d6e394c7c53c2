// Integer arithmetic: PTX ISA, "Integer Arithmetic Instructions".
#include <limits>
#include <type_traits>

#include "each.h"

namespace ptx {
namespace {

template <class T>
using Unsigned = std::make_unsigned_t<T>;

// The type of twice the size.
template <class T>
struct WiderOf;
template <>
struct WiderOf<u16> {
    using type = u32;
};
template <>
struct WiderOf<i16> {
    using type = i32;
};
template <>
struct WiderOf<u32> {
    using type = u64;
};
template <>
struct WiderOf<i32> {
    using type = i64;
};
template <>
struct WiderOf<u64> {
    using type = unsigned __int128;
};
template <>
struct WiderOf<i64> {
    using type = __int128;
};
template <class T>
using Wider = typename WiderOf<T>::type;

// Arithmetic that wraps around. Products of 16 bits must not become signed ones of 32.
template <class T>
T wrapping_add(T a, T b) {
    return T(Unsigned<T>(a) + Unsigned<T>(b));
}
template <class T>
T wrapping_mul(T a, T b) {
    return T(u64(a) * u64(b));
}
template <class T>
T high_of_product(T a, T b) {
    return T(Wider<T>(a) * Wider<T>(b) >> 8 * sizeof(T));
}
i32 saturate(i64 x) {
    constexpr i64 least = std::numeric_limits<i32>::min(), most = std::numeric_limits<i32>::max();
    return i32(x < least ? least : x > most ? most : x);
}

Type wider(Type type) {
    switch (type) {
        case Type::u16:
            return Type::u32;
        case Type::s16:
            return Type::s32;
        case Type::u32:
            return Type::u64;
        default:
            return Type::s64;
    }
}

Type type_of(Opcode& opcode) { return opcode.take_type().value_or(Type::pred); }

// f(a, b) for the integer type that `type` names.
template <class F>
Form on_integers(Type type, F) {
    const Execute execute = for_integers(type, [](auto x) {
        using T = decltype(x);
        return each<T, T, T>([](T a, T b) { return F{}(a, b); });
    });
    return binary(execute, type);
}

}  // namespace

Form add(Opcode& opcode, const Statement&) {
    const Type type = type_of(opcode);
    if (is_float(type)) return float_add(opcode, type);
    if (type == Type::s32 && opcode.take("sat"))
        return binary(each<i32, i32, i32>([](i32 a, i32 b) { return saturate(i64(a) + b); }), type);
    return on_integers(type, []<class T>(T a, T b) { return wrapping_add(a, b); });
}

Form sub(Opcode& opcode, const Statement&) {
    const Type type = type_of(opcode);
    if (is_float(type)) return float_sub(opcode, type);
    if (type == Type::s32 && opcode.take("sat"))
        return binary(each<i32, i32, i32>([](i32 a, i32 b) { return saturate(i64(a) - b); }), type);
    return on_integers(type, []<class T>(T a, T b) { return T(Unsigned<T>(a) - Unsigned<T>(b)); });
}

Form mul(Opcode& opcode, const Statement&) {
    const Type type = type_of(opcode);
    if (is_float(type)) return float_mul(opcode, type);
    if (opcode.take("wide")) {
        if (size_of(type) == 8) return {};
        return {for_integers(type,
                             [](auto x) {
                                 using T = decltype(x);
                                 if constexpr (sizeof(T) == 8)
                                     return Execute();
                                 else
                                     return each<Wider<T>, T, T>(
                                         [](T a, T b) { return Wider<T>(Wider<T>(a) * Wider<T>(b)); });
                             }),
                {wider(type)},
                {type, type}};
    }
    if (opcode.take("hi")) {
        return on_integers(type, []<class T>(T a, T b) { return high_of_product(a, b); });
    }
    if (!opcode.take("lo")) return {};
    return on_integers(type, []<class T>(T a, T b) { return wrapping_mul(a, b); });
}

Form mad(Opcode& opcode, const Statement& statement) {
    const bool is_wide = opcode.take("wide"), is_high = opcode.take("hi");
    if (!is_wide && !is_high && !opcode.take("lo")) return fma(opcode, statement);
    const Type type = type_of(opcode);
    if (is_wide) {
        if (size_of(type) == 8) return {};
        return {for_integers(type,
                             [](auto x) {
                                 using T = decltype(x);
                                 if constexpr (sizeof(T) == 8)
                                     return Execute();
                                 else
                                     return each<Wider<T>, T, T, Wider<T>>([](T a, T b, Wider<T> c) {
                                         return wrapping_add(Wider<T>(Wider<T>(a) * Wider<T>(b)), c);
                                     });
                             }),
                {wider(type)},
                {type, type, wider(type)}};
    }
    if (is_high) {
        if (type == Type::s32 && opcode.take("sat"))
            return ternary(each<i32, i32, i32, i32>(
                               [](i32 a, i32 b, i32 c) { return saturate(i64(high_of_product(a, b)) + c); }),
                           type);
        return ternary(for_integers(type,
                                    [](auto x) {
                                        using T = decltype(x);
                                        return each<T, T, T, T>([](T a, T b, T c) {
                                            return wrapping_add(high_of_product(a, b), c);
                                        });
                                    }),
                       type);
    }
    return ternary(for_integers(type,
                                [](auto x) {
                                    using T = decltype(x);
                                    return each<T, T, T, T>(
                                        [](T a, T b, T c) { return wrapping_add(wrapping_mul(a, b), c); });
                                }),
                   type);
}

// Division by zero gives what the manual leaves open: all bits, as on the GPU.
Form division(Opcode& opcode, const Statement&) {
    const Type type = type_of(opcode);
    if (is_float(type)) return float_div(opcode, type);
    return on_integers(type, []<class T>(T a, T b) {
        if (b == 0) return T(-1);
        // The quotient of the least number by -1 does not fit.
        if (std::is_signed_v<T> && b == T(-1)) return T(Unsigned<T>(0) - Unsigned<T>(a));
        return T(a / b);
    });
}

Form rem(Opcode& opcode, const Statement&) {
    const Type type = type_of(opcode);
    return on_integers(type, []<class T>(T a, T b) {
        if (b == 0) return a;
        if (std::is_signed_v<T> && b == T(-1)) return T(0);
        return T(a % b);
    });
}

Form minimum(Opcode& opcode, const Statement&) {
    const Type type = type_of(opcode);
    if (is_float(type)) return float_min(opcode, type);
    return on_integers(type, []<class T>(T a, T b) { return b < a ? b : a; });
}

Form maximum(Opcode& opcode, const Statement&) {
    const Type type = type_of(opcode);
    if (is_float(type)) return float_max(opcode, type);
    return on_integers(type, []<class T>(T a, T b) { return a < b ? b : a; });
}

Form absolute(Opcode& opcode, const Statement&) {
    const Type type = type_of(opcode);
    if (is_float(type)) return float_abs(opcode, type);
    if (!is_signed(type)) return {};
    return unary(for_integers(type,
                              [](auto x) {
                                  using T = decltype(x);
                                  return each<T, T>(
                                      [](T a) { return a < T(0) ? T(Unsigned<T>(0) - Unsigned<T>(a)) : a; });
                              }),
                 type);
}

Form negate(Opcode& opcode, const Statement&) {
    const Type type = type_of(opcode);
    if (is_float(type)) return float_neg(opcode, type);
    if (!is_signed(type)) return {};
    return unary(for_integers(type,
                              [](auto x) {
                                  using T = decltype(x);
                                  return each<T, T>([](T a) { return T(Unsigned<T>(0) - Unsigned<T>(a)); });
                              }),
                 type);
}

Form sad(Opcode& opcode, const Statement&) {
    const Type type = type_of(opcode);
    return ternary(for_integers(type,
                                [](auto x) {
                                    using T = decltype(x);
                                    return each<T, T, T, T>([](T a, T b, T c) {
                                        const Unsigned<T> apart = a < b ? Unsigned<T>(b) - Unsigned<T>(a)
                                                                        : Unsigned<T>(a) - Unsigned<T>(b);
                                        return T(Unsigned<T>(c) + apart);
                                    });
                                }),
                   type);
}

}  // namespace ptx
