// Comparisons and choices: PTX ISA, "Comparison and Selection Instructions".
#include <array>

#include "each.h"

namespace ptx {
namespace {

enum class Relation : u8 { eq, ne, lt, le, gt, ge, equ, neu, ltu, leu, gtu, geu, num, nan };

std::optional<Relation> take_relation(Opcode& opcode) {
    // The names of unsigned comparisons are those of the signed ones otherwise.
    if (const auto found = opcode.take_one({"lo", "ls", "hi", "hs"}))
        return std::array{Relation::lt, Relation::le, Relation::gt, Relation::ge}[*found];
    const auto found = opcode.take_one(
        {"eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"});
    if (!found) return std::nullopt;
    return Relation(*found);
}

// The relations of numbers are false if one is NaN, and those that end in u are true.
template <Relation RELATION, class T>
bool holds(T a, T b) {
    switch (RELATION) {
        case Relation::eq:
            return a == b;
        case Relation::ne:
            return a < b || a > b;
        case Relation::lt:
            return a < b;
        case Relation::le:
            return a <= b;
        case Relation::gt:
            return a > b;
        case Relation::ge:
            return a >= b;
        case Relation::equ:
            return !(a < b || a > b);
        case Relation::neu:
            return !(a == b);
        case Relation::ltu:
            return !(a >= b);
        case Relation::leu:
            return !(a > b);
        case Relation::gtu:
            return !(a <= b);
        case Relation::geu:
            return !(a < b);
        case Relation::num:
            return a == a && b == b;
        case Relation::nan:
            return a != a || b != b;
    }
    return false;
}

enum class Join : u8 { none, conjunction, disjunction, exclusion };

Join take_join(Opcode& opcode) {
    const auto found = opcode.take_one({"and", "or", "xor"});
    return found ? Join(1 + *found) : Join::none;
}

u32 joined(Join join, u32 a, u32 b) {
    switch (join) {
        case Join::conjunction:
            return a & b;
        case Join::disjunction:
            return a | b;
        case Join::exclusion:
            return a ^ b;
        case Join::none:
            break;
    }
    return a;
}

// What becomes of a comparison's result; the immediate of an instruction.
struct Shape {
    Join join;
    bool has_second;   // p|q: the other predicate gets the opposite
    bool is_register;  // `set`: all bits of a register, or none

    static Shape of(u64 bits) { return {Join(bits & 3), (bits & 4) != 0, (bits & 8) != 0}; }
    u64 bits() const { return u64(join) | u64(has_second) << 2 | u64(is_register) << 3; }
};

void finish(Warp& warp, const Instruction& at, u32 lanes, u32 found) {
    const Shape shape = Shape::of(at.immediate);
    const u32* const sources = at.operands + 1 + shape.has_second;
    const u32 other = shape.join == Join::none ? 0 : warp.predicate(sources[2]);
    const u32 result = joined(shape.join, found, other);
    if (shape.is_register) {
        u32* const to = warp.lanes_of<u32>(at.operands[0]);
        for (u32 left = lanes; left; left &= left - 1)
            to[lowest(left)] = result >> lowest(left) & 1 ? 0xffffffff : 0;
        return;
    }
    warp.set_predicate(at.operands[0], lanes, result);
    if (shape.has_second) warp.set_predicate(at.operands[1], lanes, joined(shape.join, ~found, other));
}

float number_of(bf16 x) { return to_float(x); }
float number_of(half x) { return to_float(x); }
template <class T>
T number_of(T x) {
    return x;
}

template <Relation RELATION, class T>
void compare(Warp& warp, const Instruction& at, u32 lanes) {
    const u32* const sources = at.operands + 1 + Shape::of(at.immediate).has_second;
    const Stored<T>*a = warp.lanes_of<T>(sources[0]), *b = warp.lanes_of<T>(sources[1]);
    u32 found = 0;
    for (u32 lane = 0; lane < 32; ++lane)
        found |= u32(holds<RELATION>(number_of(T(a[lane])), number_of(T(b[lane])))) << lane;
    finish(warp, at, lanes, found);
}

template <class T, u8... I>
Execute choose(Relation relation, std::integer_sequence<u8, I...>) {
    constexpr Execute all[] = {compare<Relation(I), T>...};
    return all[u32(relation)];
}

template <class T>
Execute compare_of(Relation relation) {
    return choose<T>(relation, std::make_integer_sequence<u8, u8(Relation::nan) + 1>());
}

// Whether the relation is one of the type: eq and ne of bits, none of NaN for integers.
bool suits(Relation relation, Type type) {
    if (is_float(type)) return true;
    return is_integer(type) ? relation <= Relation::ge : relation <= Relation::ne;
}

Execute compare_of(Relation relation, Type type) {
    if (!suits(relation, type)) return nullptr;
    switch (type) {
        case Type::b16:
        case Type::u16:
            return compare_of<u16>(relation);
        case Type::s16:
            return compare_of<i16>(relation);
        case Type::b32:
        case Type::u32:
            return compare_of<u32>(relation);
        case Type::s32:
            return compare_of<i32>(relation);
        case Type::b64:
        case Type::u64:
            return compare_of<u64>(relation);
        case Type::s64:
            return compare_of<i64>(relation);
        case Type::f16:
            return compare_of<half>(relation);
        case Type::bf16:
            return compare_of<bf16>(relation);
        case Type::f32:
            return compare_of<float>(relation);
        case Type::f64:
            return compare_of<double>(relation);
        default:
            return nullptr;
    }
}

template <class T>
void run_selp(Warp& warp, const Instruction& at, u32 lanes) {
    T* const to = warp.lanes_of<T>(at.operands[0]);
    const T *a = warp.lanes_of<T>(at.operands[1]), *b = warp.lanes_of<T>(at.operands[2]);
    const u32 chosen = warp.predicate(at.operands[3]);
    if (lanes == all_lanes) {
        for (u32 lane = 0; lane < 32; ++lane) to[lane] = chosen >> lane & 1 ? a[lane] : b[lane];
    } else {
        for (u32 left = lanes; left; left &= left - 1) {
            const u32 lane = lowest(left);
            to[lane] = chosen >> lane & 1 ? a[lane] : b[lane];
        }
    }
}

// A comparison that writes a predicate, or a register of this type.
Form comparison(Opcode& opcode, const Statement& statement, std::optional<Type> register_type) {
    const std::optional<Relation> relation = take_relation(opcode);
    Shape shape{take_join(opcode), false, register_type.has_value()};
    opcode.take("ftz");
    const Type type = opcode.take_type().value_or(Type::pred);
    if (!relation) return {};
    const bool is_pair = !statement.operands.empty() && statement.operands[0].kind == Operand::vector;
    shape.has_second = is_pair && !register_type;
    Form form{compare_of(*relation, type), {register_type.value_or(Type::pred)}, {type, type}, shape.bits()};
    if (shape.has_second) form.destinations.push_back(Type::pred);
    if (shape.join != Join::none) form.sources.push_back(Type::pred);
    return form;
}

}  // namespace

Form setp(Opcode& opcode, const Statement& statement) { return comparison(opcode, statement, std::nullopt); }

Form set(Opcode& opcode, const Statement& statement) {
    const Type to = opcode.take_type().value_or(Type::pred);
    if (to != Type::u32 && to != Type::s32) return {};
    return comparison(opcode, statement, to);
}

Form selp(Opcode& opcode, const Statement&) {
    const Type type = opcode.take_type().value_or(Type::pred);
    Execute execute = nullptr;
    switch (size_of(type)) {
        case 2:
            execute = run_selp<u16>;
            break;
        case 4:
            execute = run_selp<u32>;
            break;
        case 8:
            execute = run_selp<u64>;
            break;
    }
    return {execute, {type}, {type, type, Type::pred}};
}

}  // namespace ptx
