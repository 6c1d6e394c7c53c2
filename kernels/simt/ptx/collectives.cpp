// What the lanes of a warp do together: PTX ISA, "shfl.sync", "vote.sync", "match.sync", "redux.sync" and the
// barriers. The warp sees to it that all lanes of the mask are there.
#include <algorithm>

#include "block.h"
#include "form.h"
#include "warp.h"

namespace ptx {
namespace {

void write_all(u32* to, u32 lanes, u32 value) {
    for (u32 left = lanes; left; left &= left - 1) to[lowest(left)] = value;
}

enum class Direction : u8 { up, down, butterfly, index };

// The lane that `lane` reads from, and whether it lies in its segment.
struct Source {
    u32 lane;
    bool is_inside;
};

Source source_of(Direction direction, u32 lane, u32 b, u32 c) {
    const i32 offset = i32(b & 31), clamp = i32(c & 31), segments = i32(c >> 8 & 31);
    const i32 self = i32(lane), last = (self & segments) | (clamp & ~segments & 31), first = self & segments;
    switch (direction) {
        case Direction::up:
            return {u32(self - offset), self - offset >= last};
        case Direction::down:
            return {u32(self + offset), self + offset <= last};
        case Direction::butterfly:
            return {u32(self ^ offset), (self ^ offset) <= last};
        case Direction::index:
            break;
    }
    const i32 wanted = first | (offset & ~segments & 31);
    return {u32(wanted), wanted <= last};
}

// The immediate: the direction, and in bit 2 whether there is a predicate.
void run_shfl(Warp& warp, const Instruction& at, u32 lanes) {
    const Direction direction = Direction(at.immediate & 3);
    const bool has_predicate = at.immediate & 4;
    const u32* const sources = at.operands + 1 + has_predicate;
    u32 values[32];
    std::copy_n(warp.lanes_of<u32>(sources[0]), 32, values);
    const u32 *b = warp.lanes_of<u32>(sources[1]), *c = warp.lanes_of<u32>(sources[2]);
    u32* const to = warp.lanes_of<u32>(at.operands[0]);
    u32 inside = 0;
    for (u32 left = lanes; left; left &= left - 1) {
        const u32 lane = lowest(left);
        Source source = source_of(direction, lane, b[lane], c[lane]);
        if (!source.is_inside) source.lane = lane;
        if (!(lanes >> source.lane & 1))
            fault(warp, at, lane, "reads from lane %u, which is not in the mask", source.lane);
        to[lane] = values[source.lane];
        inside |= u32(source.is_inside) << lane;
    }
    if (has_predicate) warp.set_predicate(at.operands[1], lanes, inside);
}

enum class Vote : u8 { all, any, uni };

void run_vote(Warp& warp, const Instruction& at, u32 lanes) {
    const u32 votes = warp.predicate(at.operands[1]) & lanes;
    bool result = votes == lanes;
    if (Vote(at.immediate) == Vote::any) result = votes != 0;
    if (Vote(at.immediate) == Vote::uni) result = votes == lanes || votes == 0;
    warp.set_predicate(at.operands[0], lanes, result ? all_lanes : 0);
}

void run_ballot(Warp& warp, const Instruction& at, u32 lanes) {
    write_all(warp.lanes_of<u32>(at.operands[0]), lanes, warp.predicate(at.operands[1]) & lanes);
}

template <class T>
u32 lanes_with(const T* values, u32 lanes, T value) {
    u32 same = 0;
    for (u32 left = lanes; left; left &= left - 1) same |= u32(values[lowest(left)] == value) << lowest(left);
    return same;
}

template <class T>
void run_match_any(Warp& warp, const Instruction& at, u32 lanes) {
    T values[32];
    std::copy_n(warp.lanes_of<T>(at.operands[1]), 32, values);
    u32* const to = warp.lanes_of<u32>(at.operands[0]);
    for (u32 left = lanes; left; left &= left - 1)
        to[lowest(left)] = lanes_with(values, lanes, values[lowest(left)]);
}

// The immediate: whether there is a predicate.
template <class T>
void run_match_all(Warp& warp, const Instruction& at, u32 lanes) {
    const T* const values = warp.lanes_of<T>(at.operands[1 + at.immediate]);
    const bool is_same = lanes_with(values, lanes, values[lowest(lanes)]) == lanes;
    write_all(warp.lanes_of<u32>(at.operands[0]), lanes, is_same ? lanes : 0);
    if (at.immediate) warp.set_predicate(at.operands[1], lanes, is_same ? all_lanes : 0);
}

template <class T, class F>
Execute reduce(F) {
    return [](Warp& warp, const Instruction& at, u32 lanes) {
        const T* const values = warp.lanes_of<T>(at.operands[1]);
        T result = values[lowest(lanes)];
        for (u32 left = lanes & (lanes - 1); left; left &= left - 1)
            result = F{}(result, values[lowest(left)]);
        write_all(warp.lanes_of<u32>(at.operands[0]), lanes, u32(result));
    };
}

template <class T>
Execute reduction_of(size_t operation) {
    switch (operation) {
        case 0:
            return reduce<T>([](T a, T b) { return T(u32(a) + u32(b)); });
        case 1:
            return reduce<T>([](T a, T b) { return std::min(a, b); });
        case 2:
            return reduce<T>([](T a, T b) { return std::max(a, b); });
        case 3:
            return reduce<T>([](T a, T b) { return T(a & b); });
        case 4:
            return reduce<T>([](T a, T b) { return T(a | b); });
        default:
            return reduce<T>([](T a, T b) { return T(a ^ b); });
    }
}

// A collective whose mask is the last of its sources.
Form collective(Execute execute, std::vector<Type> destinations, std::vector<Type> sources,
                u64 immediate = 0) {
    sources.push_back(Type::b32);
    Form form{execute, std::move(destinations), std::move(sources), immediate, Kind::collective};
    form.mask = int(form.sources.size()) - 1;
    return form;
}

bool has_pair(const Statement& statement) {
    return !statement.operands.empty() && statement.operands[0].kind == Operand::vector;
}

}  // namespace

Form shfl(Opcode& opcode, const Statement& statement) {
    const bool is_sync = opcode.take("sync");
    const auto direction = opcode.take_one({"up", "down", "bfly", "idx"});
    if (!is_sync || !direction || opcode.take_type() != Type::b32) return {};
    const bool has_predicate = has_pair(statement);
    std::vector<Type> destinations{Type::b32};
    if (has_predicate) destinations.push_back(Type::pred);
    return collective(run_shfl, destinations, {Type::b32, Type::b32, Type::b32},
                      *direction | u64(has_predicate) << 2);
}

Form vote(Opcode& opcode, const Statement&) {
    if (!opcode.take("sync")) return {};
    if (opcode.take("ballot"))
        return opcode.take_type() == Type::b32 ? collective(run_ballot, {Type::b32}, {Type::pred}) : Form();
    const auto vote = opcode.take_one({"all", "any", "uni"});
    if (!vote || opcode.take_type() != Type::pred) return {};
    return collective(run_vote, {Type::pred}, {Type::pred}, *vote);
}

Form match(Opcode& opcode, const Statement& statement) {
    const auto which = opcode.take_one({"any", "all"});
    const bool is_sync = opcode.take("sync");
    const Type type = opcode.take_type().value_or(Type::pred);
    if (!which || !is_sync || (type != Type::b32 && type != Type::b64)) return {};
    const bool is_wide = type == Type::b64, has_predicate = *which == 1 && has_pair(statement);
    std::vector<Type> destinations{Type::b32};
    if (has_predicate) destinations.push_back(Type::pred);
    const Execute any = is_wide ? run_match_any<u64> : run_match_any<u32>;
    const Execute all = is_wide ? run_match_all<u64> : run_match_all<u32>;
    return collective(*which == 0 ? any : all, destinations, {type}, has_predicate);
}

Form redux(Opcode& opcode, const Statement&) {
    const bool is_sync = opcode.take("sync");
    const auto operation = opcode.take_one({"add", "min", "max", "and", "or", "xor"});
    const Type type = opcode.take_type().value_or(Type::pred);
    if (!is_sync || !operation || (*operation < 3) != is_integer(type) || size_of(type) != 4) return {};
    return collective(is_signed(type) ? reduction_of<i32>(*operation) : reduction_of<u32>(*operation), {type},
                      {type});
}

// The lanes that execute this together now.
Form activemask(Opcode& opcode, const Statement&) {
    if (opcode.take_type() != Type::b32) return {};
    return {[](Warp& warp, const Instruction& at, u32 lanes) {
                write_all(warp.lanes_of<u32>(at.operands[0]), lanes, lanes);
            },
            {Type::b32},
            {}};
}

// One lane of the mask: the manual does not say which, so the seed draws it.
Form elect(Opcode& opcode, const Statement&) {
    if (!opcode.take("sync")) return {};
    return collective(
        [](Warp& warp, const Instruction& at, u32 lanes) {
            const u32 elected = warp.block->random.choose(lanes);
            write_all(warp.lanes_of<u32>(at.operands[0]), lanes, elected);
            warp.set_predicate(at.operands[1], lanes, 1u << elected);
        },
        {Type::b32, Type::pred}, {});
}

// bar.sync a{, b} for a whole block, and bar.warp.sync for lanes.
Form bar(Opcode& opcode, const Statement& statement) {
    if (opcode.take("warp"))
        return opcode.take("sync") ? collective([](Warp&, const Instruction&, u32) {}, {}, {}) : Form();
    opcode.take("cta");
    const bool is_aligned = opcode.name() == "bar" || opcode.take("aligned");
    if (!opcode.take("sync") || !is_aligned) return {};
    // The immediate: whether b is there.
    const size_t operands = statement.operands.size();
    Form form{nullptr, {}, std::vector<Type>(operands, Type::u32), operands == 2, Kind::barrier};
    return operands == 1 || operands == 2 ? form : Form();
}

}  // namespace ptx
