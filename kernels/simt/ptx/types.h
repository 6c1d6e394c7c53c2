// The fundamental types of PTX, and how a lane of a register holds them.
#pragma once

#include <cstring>
#include <optional>
#include <string_view>

#include "../number.h"
#include "../types.h"

using i8 = int8_t;
using i16 = int16_t;
using i64 = long long;

namespace ptx {

enum class Type : u8 {
    pred,
    b8,
    b16,
    b32,
    b64,
    u8,
    u16,
    u32,
    u64,
    s8,
    s16,
    s32,
    s64,
    f16,
    f16x2,
    bf16,
    bf16x2,
    tf32,
    e4m3,
    e4m3x2,
    e5m2,
    e5m2x2,
    f32,
    f64,
};

// The type of this name, such as "u32", if there is one.
std::optional<Type> type_named(std::string_view name);
const char* name_of(Type type);
// Bytes of one value in memory; 0 for a predicate, which memory does not hold.
u32 size_of(Type type);
bool is_signed(Type type);
bool is_integer(Type type);  // signed or unsigned, not the untyped bits
bool is_float(Type type);    // f16 to f64, not the formats of 8 bits

// Bytes of a lane of the register that holds the type: there are registers of 2, 4 and 8 bytes. A predicate's
// register is a set of lanes and has 4 bytes in all.
u32 width_of(Type type);

// What a register's lane holds for a value of type T: 8 bits are extended to 16.
template <class T>
struct StoredAs {
    using type = T;
};
template <>
struct StoredAs<u8> {
    using type = u16;
};
template <>
struct StoredAs<i8> {
    using type = i16;
};
template <class T>
using Stored = typename StoredAs<T>::type;

template <class To, class From>
To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

}  // namespace ptx
