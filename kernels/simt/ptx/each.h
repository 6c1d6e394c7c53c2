// Instructions that do the same in every lane, as loops that the compiler turns into vector code.
#pragma once

#include <tuple>
#include <utility>

#include "form.h"
#include "warp.h"

namespace ptx {

template <class F, class D, class... S, size_t... I>
void run_each(Warp& warp, const Instruction& at, u32 lanes, std::index_sequence<I...>) {
    Stored<D>* const to = warp.lanes_of<D>(at.operands[0]);
    const std::tuple<const Stored<S>*...> from(warp.lanes_of<S>(at.operands[1 + I])...);
    const auto run = [&](u32 lane) __attribute__((always_inline)) {
        to[lane] = Stored<D>(D(F{}(S(std::get<I>(from)[lane])...)));
    };
    if (lanes == all_lanes) {
#pragma GCC ivdep
        for (u32 lane = 0; lane < 32; ++lane) run(lane);
    } else {
        for (u32 left = lanes; left; left &= left - 1) run(lowest(left));
    }
}

// Writes f(sources...) of type D, where f has no state and the sources are of the types S.
template <class D, class... S, class F>
Execute each(F) {
    return [](Warp& warp, const Instruction& at, u32 lanes) {
        run_each<F, D, S...>(warp, at, lanes, std::index_sequence_for<S...>());
    };
}

// f(x), where x has the integer type that `type` names; null for other types.
template <class F>
Execute for_integers(Type type, F f) {
    switch (type) {
        case Type::u16:
            return f(u16());
        case Type::u32:
            return f(u32());
        case Type::u64:
            return f(u64());
        case Type::s16:
            return f(i16());
        case Type::s32:
            return f(i32());
        case Type::s64:
            return f(i64());
        default:
            return nullptr;
    }
}

// The same for types of bits, whose signs do not matter.
template <class F>
Execute for_bits(Type type, F f) {
    switch (type) {
        case Type::b16:
            return f(u16());
        case Type::b32:
            return f(u32());
        case Type::b64:
            return f(u64());
        default:
            return nullptr;
    }
}

inline Form unary(Execute execute, Type type) { return {execute, {type}, {type}}; }
inline Form binary(Execute execute, Type type) { return {execute, {type}, {type, type}}; }
inline Form ternary(Execute execute, Type type) { return {execute, {type}, {type, type, type}}; }

}  // namespace ptx
