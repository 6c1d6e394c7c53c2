// Atomic operations: PTX ISA, "atom" and "red". Blocks run on several threads of the host, so those on global
// memory are its atomics.
#include <type_traits>

#include "each.h"
#include "memory.h"

namespace ptx {
namespace {

enum class Update : u8 { add, min, max, land, lor, lxor, exch, cas, inc, dec };

template <Update UPDATE, class T>
T updated(T old, T operand, T replacement) {
    switch (UPDATE) {
        case Update::add:
            return T(old + operand);
        case Update::min:
            return operand < old ? operand : old;
        case Update::max:
            return old < operand ? operand : old;
        case Update::exch:
            return operand;
        case Update::cas:
            return bits_as<std::conditional_t<sizeof(T) == 8, u64, u32>>(old) ==
                           bits_as<std::conditional_t<sizeof(T) == 8, u64, u32>>(operand)
                       ? replacement
                       : old;
        default:
            break;
    }
    if constexpr (std::is_integral_v<T>) {
        switch (UPDATE) {
            case Update::land:
                return old & operand;
            case Update::lor:
                return old | operand;
            case Update::lxor:
                return old ^ operand;
            case Update::inc:
                return old >= operand ? T(0) : T(old + 1);
            case Update::dec:
                return old == 0 || old > operand ? operand : T(old - 1);
            default:
                break;
        }
    }
    return old;
}

template <Update UPDATE, class T>
T update(T* at, T operand, T replacement) {
    T old;
    __atomic_load(at, &old, __ATOMIC_RELAXED);
    for (;;) {
        T next = updated<UPDATE>(old, operand, replacement);
        if (__atomic_compare_exchange(at, &old, &next, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return old;
    }
}

// The lanes take turns in an order that the seed draws.
template <Update UPDATE, class T, bool RETURNS>
void run(Warp& warp, const Instruction& at, u32 lanes) {
    const u32* const sources = at.operands + RETURNS;
    u64 addresses[32];
    addresses_of(warp, at, RETURNS, 0, addresses);
    const T* const operands = warp.lanes_of<T>(sources[1]);
    const T* const replacements = UPDATE == Update::cas ? warp.lanes_of<T>(sources[2]) : operands;
    T* const to = RETURNS ? warp.lanes_of<T>(at.operands[0]) : nullptr;
    for (u32 left = lanes; left;) {
        const u32 lane = warp.block->random.choose(left);
        left &= ~(1u << lane);
        u8* const place = locate(warp, at, lane, Space(at.immediate), addresses[lane], sizeof(T));
        const T old = update<UPDATE>(reinterpret_cast<T*>(place), operands[lane], replacements[lane]);
        if (RETURNS) to[lane] = old;
    }
}

template <bool RETURNS, Update UPDATE, class T>
Execute of() {
    return run<UPDATE, T, RETURNS>;
}

template <bool RETURNS, class T>
Execute of_integer(Update update) {
    switch (update) {
        case Update::add:
            return of<RETURNS, Update::add, T>();
        case Update::min:
            return of<RETURNS, Update::min, T>();
        case Update::max:
            return of<RETURNS, Update::max, T>();
        case Update::inc:
            return std::is_same_v<T, u32> ? of<RETURNS, Update::inc, T>() : nullptr;
        case Update::dec:
            return std::is_same_v<T, u32> ? of<RETURNS, Update::dec, T>() : nullptr;
        default:
            return nullptr;
    }
}

template <bool RETURNS, class T>
Execute of_bits(Update update) {
    switch (update) {
        case Update::land:
            return of<RETURNS, Update::land, T>();
        case Update::lor:
            return of<RETURNS, Update::lor, T>();
        case Update::lxor:
            return of<RETURNS, Update::lxor, T>();
        case Update::exch:
            return of<RETURNS, Update::exch, T>();
        case Update::cas:
            return of<RETURNS, Update::cas, T>();
        default:
            return nullptr;
    }
}

template <bool RETURNS>
Execute execute_of(Update update, Type type) {
    switch (type) {
        case Type::u32:
            return of_integer<RETURNS, u32>(update);
        case Type::s32:
            return of_integer<RETURNS, i32>(update);
        case Type::u64:
            return of_integer<RETURNS, u64>(update);
        case Type::s64:
            return of_integer<RETURNS, i64>(update);
        case Type::b32:
            return of_bits<RETURNS, u32>(update);
        case Type::b64:
            return of_bits<RETURNS, u64>(update);
        case Type::f32:
            return update == Update::add ? of<RETURNS, Update::add, float>() : nullptr;
        case Type::f64:
            return update == Update::add ? of<RETURNS, Update::add, double>() : nullptr;
        default:
            return nullptr;
    }
}

template <bool RETURNS>
Form atomic(Opcode& opcode) {
    opcode.take_one({"relaxed", "acquire", "release", "acq_rel"});
    opcode.take_one({"cta", "cluster", "gpu", "sys"});
    const bool has_policy = opcode.take("L2::cache_hint");
    const auto space = opcode.take_one({"global", "shared", "shared::cta"});
    const auto update =
        opcode.take_one({"add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"});
    const Type type = opcode.take_type().value_or(Type::pred);
    if (!update) return {};
    Form form{execute_of<RETURNS>(Update(*update), type), {}, {address, type}};
    if (RETURNS) form.destinations = {type};
    if (Update(*update) == Update::cas) form.sources.push_back(type);
    if (has_policy) form.sources.push_back(Type::b64);
    form.immediate = u64(!space ? Space::generic : *space == 0 ? Space::global : Space::shared);
    return form;
}

}  // namespace

Form atom(Opcode& opcode, const Statement&) { return atomic<true>(opcode); }
Form red(Opcode& opcode, const Statement&) { return atomic<false>(opcode); }

}  // namespace ptx
