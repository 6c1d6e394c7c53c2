// Logic, shifts and fields of bits: PTX ISA, "Logic and Shift Instructions" and the integer instructions on
// bits.
#include <algorithm>
#include <type_traits>

#include "each.h"

namespace ptx {
namespace {

Type type_of(Opcode& opcode) { return opcode.take_type().value_or(Type::u8); }

// A logical operation on predicates, which are sets of lanes.
template <class F>
Execute on_predicates(F) {
    return [](Warp& warp, const Instruction& at, u32 lanes) {
        warp.set_predicate(at.operands[0], lanes,
                           F{}(warp.predicate(at.operands[1]), warp.predicate(at.operands[2])));
    };
}

template <class F>
Form logic(Opcode& opcode, F f) {
    const Type type = type_of(opcode);
    if (type == Type::pred) return binary(on_predicates(f), type);
    return binary(for_bits(type,
                           [](auto x) {
                               using T = decltype(x);
                               return each<T, T, T>([](T a, T b) { return T(F{}(a, b)); });
                           }),
                  type);
}

template <class T>
constexpr u32 bits_in = 8 * sizeof(T);

// A count of bits beyond the type's is taken as their number.
template <class T>
T shift_right(T x, u32 count) {
    if (count < bits_in<T>) return T(x >> count);
    return x < T(0) ? T(-1) : T(0);
}
template <class T>
T shift_left(T x, u32 count) {
    return count < bits_in<T> ? T(x << count) : T(0);
}

// The high or low half of the shifted pair of registers.
template <bool IS_LEFT, bool CLAMPS>
u32 funnel(u32 a, u32 b, u32 count) {
    const u32 by = CLAMPS ? std::min(count, 32u) : count & 31;
    const u64 pair = u64(b) << 32 | a;
    return IS_LEFT ? u32((by == 32 ? u64(a) << 32 : pair << by) >> 32) : u32(pair >> by);
}

template <class T>
T reversed(T x) {
    T made = 0;
    for (u32 i = 0; i < bits_in<T>; ++i) made |= T(x >> i & 1) << (bits_in<T> - 1 - i);
    return made;
}

u32 leading_zeros(u32 x) { return x ? u32(__builtin_clz(x)) : 32; }
u32 leading_zeros(u64 x) { return x ? u32(__builtin_clzll(x)) : 64; }

// The place of the highest bit that differs from the sign, from bit 0 or from the highest bit on.
template <bool IS_SHIFT, class T>
u32 find_highest(T x) {
    using U = std::make_unsigned_t<T>;
    const u32 zeros = leading_zeros(U(x < T(0) ? ~x : x));
    if (zeros == bits_in<T>) return 0xffffffff;
    return IS_SHIFT ? zeros : bits_in<T> - 1 - zeros;
}

// `count` bits of x from `at` on, as a number. The sign is that of the field's last bit that x has.
template <class T>
T extract(T x, u32 at, u32 count) {
    using U = std::make_unsigned_t<T>;
    at &= 0xff;
    count &= 0xff;
    if (!count) return 0;
    const bool is_negative = std::is_signed_v<T> && U(x) >> std::min(at + count - 1, bits_in<T> - 1) & 1;
    const U field = shift_right(U(x), at);
    const U kept = shift_left(U(~U(0)), std::min(count, at < bits_in<T> ? bits_in<T> - at : 0));
    return T((field & ~kept) | (is_negative ? kept : 0));
}

template <class T>
T insert(T a, T b, u32 at, u32 count) {
    at &= 0xff;
    count &= 0xff;
    const T field = T(shift_left(T(~T(shift_left(T(~T(0)), count))), at));
    return T((b & ~field) | (shift_left(a, at) & field));
}

u32 byte_of(u64 bytes, u32 selector) {
    const u8 byte = u8(bytes >> 8 * (selector & 7));
    return selector & 8 ? (byte & 0x80 ? 0xff : 0) : byte;  // bit 3 takes the byte's sign only
}

// The selectors of prmt's modes, four bits a byte, by the low bits of c.
constexpr u32 selectors[6][4] = {
    {0x3210, 0x4321, 0x5432, 0x6543},  // f4e
    {0x5670, 0x6701, 0x7012, 0x0123},  // b4e
    {0x0000, 0x1111, 0x2222, 0x3333},  // rc8
    {0x3210, 0x3211, 0x3222, 0x3333},  // ecl
    {0x0000, 0x1110, 0x2210, 0x3210},  // ecr
    {0x1010, 0x3232, 0x1010, 0x3232},  // rc16
};

u32 permute(u32 a, u32 b, u32 selector) {
    const u64 bytes = u64(b) << 32 | a;
    u32 made = 0;
    for (u32 i = 0; i < 4; ++i) made |= byte_of(bytes, selector >> 4 * i & 15) << 8 * i;
    return made;
}

}  // namespace

Form bitwise_and(Opcode& opcode, const Statement&) {
    return logic(opcode, [](auto a, auto b) { return a & b; });
}
Form bitwise_or(Opcode& opcode, const Statement&) {
    return logic(opcode, [](auto a, auto b) { return a | b; });
}
Form bitwise_xor(Opcode& opcode, const Statement&) {
    return logic(opcode, [](auto a, auto b) { return a ^ b; });
}

Form bitwise_not(Opcode& opcode, const Statement&) {
    const Type type = type_of(opcode);
    if (type == Type::pred) {
        return unary(
            [](Warp& warp, const Instruction& at, u32 lanes) {
                warp.set_predicate(at.operands[0], lanes, ~warp.predicate(at.operands[1]));
            },
            type);
    }
    return unary(for_bits(type,
                          [](auto x) {
                              using T = decltype(x);
                              return each<T, T>([](T a) { return T(~a); });
                          }),
                 type);
}

Form cnot(Opcode& opcode, const Statement&) {
    const Type type = type_of(opcode);
    return unary(for_bits(type,
                          [](auto x) {
                              using T = decltype(x);
                              return each<T, T>([](T a) { return T(a == 0); });
                          }),
                 type);
}

// Any function of three bits: bit 4 a + 2 b + c of the table is its value.
Form lop3(Opcode& opcode, const Statement&) {
    if (type_of(opcode) != Type::b32) return {};
    return {each<u32, u32, u32, u32, u32>([](u32 a, u32 b, u32 c, u32 table) {
                u32 made = 0;
                for (u32 i = 0; i < 8; ++i) {
                    const u32 is_case = (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
                    made |= table >> i & 1 ? is_case : 0;
                }
                return made;
            }),
            {Type::b32},
            {Type::b32, Type::b32, Type::b32, Type::b32}};
}

Form shl(Opcode& opcode, const Statement&) {
    const Type type = type_of(opcode);
    return {for_bits(type,
                     [](auto x) {
                         using T = decltype(x);
                         return each<T, T, u32>([](T a, u32 count) { return shift_left(a, count); });
                     }),
            {type},
            {type, Type::u32}};
}

Form shr(Opcode& opcode, const Statement&) {
    const Type type = type_of(opcode);
    const auto shift = [](auto x) {
        using T = decltype(x);
        return each<T, T, u32>([](T a, u32 count) { return shift_right(a, count); });
    };
    return {is_integer(type) ? for_integers(type, shift) : for_bits(type, shift), {type}, {type, Type::u32}};
}

Form shf(Opcode& opcode, const Statement&) {
    const auto side = opcode.take_one({"l", "r"});
    const auto mode = opcode.take_one({"clamp", "wrap"});
    if (!side || !mode || type_of(opcode) != Type::b32) return {};
    const Execute all[2][2] = {
        {each<u32, u32, u32, u32>([](u32 a, u32 b, u32 c) { return funnel<true, true>(a, b, c); }),
         each<u32, u32, u32, u32>([](u32 a, u32 b, u32 c) { return funnel<true, false>(a, b, c); })},
        {each<u32, u32, u32, u32>([](u32 a, u32 b, u32 c) { return funnel<false, true>(a, b, c); }),
         each<u32, u32, u32, u32>([](u32 a, u32 b, u32 c) { return funnel<false, false>(a, b, c); })}};
    return ternary(all[*side][*mode], Type::b32);
}

Form popc(Opcode& opcode, const Statement&) {
    const Type type = type_of(opcode);
    return {for_bits(type,
                     [](auto x) {
                         using T = decltype(x);
                         return each<u32, T>([](T a) { return u32(__builtin_popcountll(a)); });
                     }),
            {Type::u32},
            {type}};
}

Form clz(Opcode& opcode, const Statement&) {
    const Type type = type_of(opcode);
    if (type == Type::b32)
        return {each<u32, u32>([](u32 a) { return leading_zeros(a); }), {Type::u32}, {type}};
    if (type == Type::b64)
        return {each<u32, u64>([](u64 a) { return leading_zeros(a); }), {Type::u32}, {type}};
    return {};
}

Form brev(Opcode& opcode, const Statement&) {
    const Type type = type_of(opcode);
    return unary(for_bits(type,
                          [](auto x) {
                              using T = decltype(x);
                              return each<T, T>([](T a) { return reversed(a); });
                          }),
                 type);
}

Form bfind(Opcode& opcode, const Statement&) {
    const bool is_shift = opcode.take("shiftamt");
    const Type type = type_of(opcode);
    return {for_integers(type,
                         [&](auto x) {
                             using T = decltype(x);
                             if constexpr (sizeof(T) == 2)
                                 return Execute();
                             else
                                 return is_shift ? each<u32, T>([](T a) { return find_highest<true>(a); })
                                                 : each<u32, T>([](T a) { return find_highest<false>(a); });
                         }),
            {Type::u32},
            {type}};
}

Form bfe(Opcode& opcode, const Statement&) {
    const Type type = type_of(opcode);
    return {for_integers(type,
                         [](auto x) {
                             using T = decltype(x);
                             if constexpr (sizeof(T) == 2)
                                 return Execute();
                             else
                                 return each<T, T, u32, u32>(
                                     [](T a, u32 at, u32 count) { return extract(a, at, count); });
                         }),
            {type},
            {type, Type::u32, Type::u32}};
}

Form bfi(Opcode& opcode, const Statement&) {
    const Type type = type_of(opcode);
    if (type == Type::b16) return {};
    return {for_bits(type,
                     [](auto x) {
                         using T = decltype(x);
                         return each<T, T, T, u32, u32>(
                             [](T a, T b, u32 at, u32 count) { return insert(a, b, at, count); });
                     }),
            {type},
            {type, type, Type::u32, Type::u32}};
}

Form prmt(Opcode& opcode, const Statement&) {
    if (type_of(opcode) != Type::b32) return {};
    const auto mode = opcode.take_one({"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"});
    if (!mode)
        return ternary(each<u32, u32, u32, u32>([](u32 a, u32 b, u32 c) { return permute(a, b, c); }),
                       Type::b32);
    Form form = ternary(
        [](Warp& warp, const Instruction& at, u32 lanes) {
            u32* const to = warp.lanes_of<u32>(at.operands[0]);
            const u32 *a = warp.lanes_of<u32>(at.operands[1]), *b = warp.lanes_of<u32>(at.operands[2]);
            const u32* c = warp.lanes_of<u32>(at.operands[3]);
            for (u32 left = lanes; left; left &= left - 1) {
                const u32 lane = lowest(left);
                to[lane] = permute(a[lane], b[lane], selectors[at.immediate][c[lane] & 3]);
            }
        },
        Type::b32);
    form.immediate = *mode;
    return form;
}

}  // namespace ptx
