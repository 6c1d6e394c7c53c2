#include "warp.h"

#include "block.h"

namespace simt {
namespace {

u32 lowest(u32 lanes) { return u32(__builtin_ctz(lanes)); }

struct Vote {
    bool predicate;
    u32 ballot;
};

struct Shuffle {
    u64 value;  // the lane's own value, then the received one
    u32 source;
};

void complete_nothing(void* const*, u32) {}

void complete_vote(void* const operands[32], u32 mask) {
    u32 ballot = 0;
    for (u32 left = mask; left; left &= left - 1) {
        const u32 lane = lowest(left);
        ballot |= u32(static_cast<const Vote*>(operands[lane])->predicate) << lane;
    }
    for (u32 left = mask; left; left &= left - 1) static_cast<Vote*>(operands[lowest(left)])->ballot = ballot;
}

void complete_shuffle(void* const operands[32], u32 mask) {
    u64 values[32];
    for (u32 left = mask; left; left &= left - 1) {
        const u32 lane = lowest(left);
        values[lane] = static_cast<const Shuffle*>(operands[lane])->value;
    }
    for (u32 left = mask; left; left &= left - 1) {
        Shuffle& shuffle = *static_cast<Shuffle*>(operands[lowest(left)]);
        shuffle.value = values[shuffle.source];
    }
}

}  // namespace

const Collective syncwarp{"__syncwarp", complete_nothing};
const Collective ballot{"__ballot_sync", complete_vote};
const Collective any{"__any_sync", complete_vote};
const Collective all{"__all_sync", complete_vote};
const Collective shuffle_index{"__shfl_sync", complete_shuffle};
const Collective shuffle_up{"__shfl_up_sync", complete_shuffle};
const Collective shuffle_down{"__shfl_down_sync", complete_shuffle};
const Collective shuffle_xor{"__shfl_xor_sync", complete_shuffle};

void Warp::begin(u32 lane_mask) {
    lanes = ready = lane_mask;
    exited = at_barrier = claimed = 0;
    for (Rendezvous& at : rendezvous) at.arrived = 0;
}

const Rendezvous& Warp::claim_on(u32 lane) const {
    const Rendezvous* at = rendezvous;
    while (!at->arrived || !(at->mask >> lane & 1)) ++at;
    return *at;
}

void meet(const Collective& collective, u32 mask, void* operands) {
    Warp& warp = *thread->warp;
    const u32 self = 1u << thread->lane;
    const auto refuse = [&](u32 lanes, const char* why) {
        fault("%s(mask %08x) names lane %u, which %s", collective.name, mask, lowest(lanes), why);
    };
    if (!(mask & self))
        fault("%s(mask %08x) leaves out its caller, lane %u", collective.name, mask, thread->lane);
    if (mask & ~warp.lanes) refuse(mask & ~warp.lanes, "is not in the warp");
    if (mask & warp.exited) refuse(mask & warp.exited, "has exited");
    if (mask & warp.at_barrier) refuse(mask & warp.at_barrier, "waits at __syncthreads()");

    Rendezvous& at = warp.rendezvous[lowest(mask)];
    const bool joins = at.arrived && at.mask == mask && at.collective == &collective;
    if (!joins && (warp.claimed & mask)) {
        const Rendezvous& other = warp.claim_on(lowest(warp.claimed & mask));
        fault("%s(mask %08x) meets lane %u at %s(mask %08x)", collective.name, mask, lowest(other.arrived),
              other.collective->name, other.mask);
    }
    if (!joins) {
        at = {&collective, mask, 0};
        warp.claimed |= mask;
    }
    at.arrived |= self;
    warp.operands[thread->lane] = operands;
    if (at.arrived == mask) {
        collective.complete(warp.operands, mask);
        at.arrived = 0;
        warp.claimed &= ~mask;
        block->make_ready(warp, mask);
    }
    block->suspend();
}

u64 shuffle(const Collective& kind, u32 mask, u64 value, u32 source) {
    if (!(mask >> source & 1)) fault("%s(mask %08x) reads from lane %u", kind.name, mask, source);
    Shuffle operands{value, source};
    meet(kind, mask, &operands);
    return operands.value;
}

u32 vote(const Collective& kind, u32 mask, bool predicate) {
    Vote operands{predicate, 0};
    meet(kind, mask, &operands);
    return operands.ballot;
}

}  // namespace simt
