#include "types.h"

namespace ptx {
namespace {

struct Properties {
    Type type;
    const char* name;
    u32 size, width;
};

constexpr Properties all[] = {
    {Type::pred, "pred", 0, 4},     {Type::b8, "b8", 1, 2},         {Type::b16, "b16", 2, 2},
    {Type::b32, "b32", 4, 4},       {Type::b64, "b64", 8, 8},       {Type::u8, "u8", 1, 2},
    {Type::u16, "u16", 2, 2},       {Type::u32, "u32", 4, 4},       {Type::u64, "u64", 8, 8},
    {Type::s8, "s8", 1, 2},         {Type::s16, "s16", 2, 2},       {Type::s32, "s32", 4, 4},
    {Type::s64, "s64", 8, 8},       {Type::f16, "f16", 2, 2},       {Type::f16x2, "f16x2", 4, 4},
    {Type::bf16, "bf16", 2, 2},     {Type::bf16x2, "bf16x2", 4, 4}, {Type::tf32, "tf32", 4, 4},
    {Type::e4m3, "e4m3", 1, 2},     {Type::e4m3x2, "e4m3x2", 2, 2}, {Type::e5m2, "e5m2", 1, 2},
    {Type::e5m2x2, "e5m2x2", 2, 2}, {Type::f32, "f32", 4, 4},       {Type::f64, "f64", 8, 8},
};

const Properties& of(Type type) { return all[u32(type)]; }

constexpr bool is_in_order() {
    for (u32 i = 0; i < std::size(all); ++i)
        if (u32(all[i].type) != i) return false;
    return true;
}
static_assert(is_in_order());

}  // namespace

std::optional<Type> type_named(std::string_view name) {
    for (const Properties& each : all)
        if (name == each.name) return each.type;
    return std::nullopt;
}

const char* name_of(Type type) { return of(type).name; }
u32 size_of(Type type) { return of(type).size; }
u32 width_of(Type type) { return of(type).width; }
bool is_signed(Type type) { return type >= Type::s8 && type <= Type::s64; }
bool is_integer(Type type) { return type >= Type::u8 && type <= Type::s64; }

bool is_float(Type type) {
    switch (type) {
        case Type::f16:
        case Type::f16x2:
        case Type::bf16:
        case Type::bf16x2:
        case Type::f32:
        case Type::f64:
            return true;
        default:
            return false;
    }
}

}  // namespace ptx
