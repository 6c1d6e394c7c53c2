// What a warp does together: the lanes that a mask names meet at a collective; the last to come completes it.
#pragma once

#include "types.h"

namespace simt {

// A warp-wide operation. There is one object of each, whose address is its identity.
struct Collective {
    const char* name;
    // Does the work of all lanes of `mask`; operands[lane] is what that lane brought to meet().
    void (*complete)(void* const operands[32], u32 mask);
};

// Lanes on their way to one collective. Groups of lanes with disjoint masks may be at several.
struct Rendezvous {
    const Collective* collective;
    u32 mask;     // who is to come
    u32 arrived;  // who is there; none: this rendezvous is free
};

struct Warp {
    void begin(u32 lane_mask);
    // The rendezvous to which `lane` must go next. PRECOND: it is claimed.
    const Rendezvous& claim_on(u32 lane) const;

    // Sets of lanes.
    u32 lanes;  // that exist: not all 32 where the block's size is no multiple of it
    u32 ready;  // to run
    u32 exited;
    u32 at_barrier;  // waiting at __syncthreads()
    u32 claimed;     // named by the mask of a rendezvous: it is where these must go next

    Rendezvous rendezvous[32];  // by its mask's lowest lane
    void* operands[32];
};

// The current thread meets the lanes of `mask`; returns once `collective` is complete.
void meet(const Collective& collective, u32 mask, void* operands);

constexpr u32 all_lanes = 0xffffffff;

extern const Collective syncwarp, ballot, any, all;
extern const Collective shuffle_index, shuffle_up, shuffle_down, shuffle_xor;

// The value that lane `source` brings. Faults where that lane is not in the mask.
u64 shuffle(const Collective& kind, u32 mask, u64 value, u32 source);
// Those lanes of the mask whose predicate is true.
u32 vote(const Collective& kind, u32 mask, bool predicate);

}  // namespace simt
