#include "warp.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>

#include "block.h"

namespace ptx {
namespace {

// A warp of codit's kernels takes some thousands in a block.
constexpr u64 most_jumps = u64(1) << 24;

constexpr u32 no_limit = 0xffffffff;

}  // namespace

void fault(const Warp& warp, const Instruction& at, u32 lane, const char* format, ...) {
    char what[256];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    const Block& block = *warp.block;
    const Kernel& kernel = *block.launch.kernel;
    const uint3 shape = block.launch.geometry.block;
    const u32 thread = warp.index * 32 + lane;
    char text[512];
    std::snprintf(text, sizeof text, "%s, block (%u, %u, %u), thread (%u, %u, %u), %s:%u: %s",
                  kernel.name.c_str(), block.index.x, block.index.y, block.index.z, thread % shape.x,
                  thread / shape.x % shape.y, thread / shape.x / shape.y, kernel.file.c_str(), at.line, what);
    throw Fault{text};
}

void Warp::begin(u32 all) {
    lanes = all;
    exited = parked = 0;
    barrier = nullptr;
    jumps = 0;
    std::fill(std::begin(pcs), std::end(pcs), 0);
}

void Warp::run(u64 count) {
    const u64 end = std::min(count ? jumps + count : most_jumps, most_jumps);
    while (!barrier && jumps < end) {
        if (lanes & ~(exited | parked)) {
            advance(pick(), end);
        } else if (parked) {
            complete_collective();
        } else {
            return;
        }
    }
    const u32 left = lanes & ~exited;
    if (jumps >= most_jumps && left) {
        const Instruction& at = block->launch.kernel->code[pcs[lowest(left)]];
        fault(*this, at, lowest(left), "%llu jumps and no end", jumps);
    }
}

// The lanes that are furthest behind, since the others wait for them where the paths meet. Where a block
// scatters, a random part of the lanes at one place.
Warp::Group Warp::pick() {
    const u32 ready = lanes & ~(exited | parked);
    u32 pc = pcs[block->scatters ? block->random.choose(ready) : lowest(ready)];
    if (!block->scatters)
        for (u32 left = ready; left; left &= left - 1) pc = std::min(pc, pcs[lowest(left)]);
    Group group{pc, 0, no_limit};
    for (u32 left = ready; left; left &= left - 1) {
        const u32 lane = lowest(left);
        if (pcs[lane] == pc) {
            group.lanes |= 1u << lane;
        } else if (!block->scatters) {
            group.limit = std::min(group.limit, pcs[lane]);
        }
    }
    if (block->scatters) {
        const u32 part = group.lanes & block->random.draw(no_limit);
        if (part) group.lanes = part;
    }
    return group;
}

// Runs a group until it divides, meets others, waits or has exited.
void Warp::advance(Group group, u64 jumps_end) {
    const Instruction* const code = block->launch.kernel->code.data();
    while (group.pc < group.limit) {
        const Instruction& at = code[group.pc];
        const u32 active = group.lanes & (predicate(at.guard) ^ at.flip);
        if (at.kind == Kind::plain) {
            if (active) at.execute(*this, at, active);
            ++group.pc;
            continue;
        }
        if (!active) {
            ++group.pc;
            continue;
        }
        switch (at.kind) {
            case Kind::branch:
                if (active != group.lanes) return jump(group, at.target, active);
                group.pc = at.target;
                if (++jumps >= jumps_end) return set_pc(group.lanes, group.pc);
                break;
            case Kind::collective:
                if (active != group.lanes || !meets(at, active)) return park(group, active);
                at.execute(*this, at, active);
                ++group.pc;
                break;
            case Kind::exit:
                exited |= active;
                for (u32 left = active; left; left &= left - 1) copies[lowest(left)].forget();
                return set_pc(group.lanes, group.pc + 1);
            case Kind::barrier:
                return park(group, active);
            case Kind::indexed_branch: {
                // Each lane has its own target.
                const u32* indices = lanes_of<u32>(at.operands[0]);
                set_pc(group.lanes & ~active, group.pc + 1);
                for (u32 left = active; left; left &= left - 1) {
                    const u32 lane = lowest(left);
                    if (indices[lane] >= at.target)
                        fault(*this, at, lane, "index %u of %u targets", indices[lane], at.target);
                    pcs[lane] = block->launch.kernel->targets[at.immediate + indices[lane]];
                }
                ++jumps;
                return;
            }
            case Kind::plain:
                break;
        }
    }
    set_pc(group.lanes, group.pc);
}

void Warp::set_pc(u32 of, u32 pc) {
    for (u32 left = of; left; left &= left - 1) pcs[lowest(left)] = pc;
}

// The active lanes go to `pc`, the others to the next instruction.
void Warp::jump(const Group& group, u32 pc, u32 active) {
    ++jumps;
    set_pc(active, pc);
    set_pc(group.lanes & ~active, group.pc + 1);
}

void Warp::park(const Group& group, u32 active) {
    set_pc(active, group.pc);
    set_pc(group.lanes & ~active, group.pc + 1);
    parked |= active;
}

// The lanes that a lane waits for.
u32 Warp::members(const Instruction& at, u32 lane) const {
    // Where all lanes of the warp must be: at a barrier those that it has, at an instruction of all 32
    // lanes 32.
    return at.kind == Kind::barrier ? lanes : lanes_of<u32>(at.mask)[lane];
}

// Whether every lane of a group, which is at one collective, names just this group.
bool Warp::meets(const Instruction& at, u32 group) const {
    for (u32 left = group; left; left &= left - 1)
        if (members(at, lowest(left)) != group) return false;
    return true;
}

// No lane can go on: one of the collectives at which lanes wait must have all of its lanes.
void Warp::complete_collective() {
    const std::vector<Instruction>& code = block->launch.kernel->code;
    for (u32 left = parked; left;) {
        const u32 lane = lowest(left), pc = pcs[lane];
        const Instruction& at = code[pc];
        // Several groups may be at one instruction, each with its own mask.
        const u32 wanted = members(at, lane);
        u32 group = 0;
        for (u32 others = parked; others; others &= others - 1) {
            const u32 other = lowest(others);
            if (pcs[other] == pc && members(at, other) == wanted) group |= 1u << other;
        }
        if (group == wanted) {
            parked &= ~group;
            set_pc(group, pc + 1);
            if (at.kind == Kind::barrier) {
                barrier = &at;
            } else {
                at.execute(*this, at, group);
            }
            return;
        }
        left &= ~group;
    }
    refuse_wait();
}

void Warp::refuse_wait() const {
    const std::vector<Instruction>& code = block->launch.kernel->code;
    const u32 lane = lowest(parked);
    const Instruction& at = code[pcs[lane]];
    const char* what = at.kind == Kind::barrier ? "a barrier" : "a collective";
    const u32 wanted = members(at, lane);
    for (u32 left = parked; left; left &= left - 1) {
        const u32 other = lowest(left);
        if (&code[pcs[other]] == &at && !(members(at, other) >> other & 1))
            fault(*this, at, other, "%s of lanes %08x, of which this lane is none", what, members(at, other));
    }
    for (u32 left = wanted & ~(1u << lane); left; left &= left - 1) {
        const u32 other = lowest(left);
        const Instruction& there = code[std::min<size_t>(pcs[other], code.size() - 1)];
        if (!(lanes >> other & 1))
            fault(*this, at, lane, "%s names lane %u, which is not in the warp", what, other);
        if (exited >> other & 1)
            fault(*this, at, lane, "%s waits for lane %u, which has exited", what, other);
        if (&there != &at)
            fault(*this, at, lane, "%s waits for lane %u, which waits at line %u", what, other, there.line);
        if (members(at, other) != wanted)
            fault(*this, at, lane, "%s of lanes %08x, but of %08x for lane %u", what, wanted,
                  members(at, other), other);
    }
    fault(*this, at, lane, "%s waits for ever", what);
}

}  // namespace ptx
