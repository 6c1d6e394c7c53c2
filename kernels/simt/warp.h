// Warp-wide operations: the lanes that a mask names meet at a collective, and the last one to arrive
// completes it.
#pragma once

#include "types.h"

namespace simt {

// A warp-wide operation. Each operation is one object, whose address identifies it.
struct Collective {
    const char* name;
    // Does the work of all lanes of `mask`; operands[lane] is the argument of that lane's meet().
    void (*complete)(void* const operands[32], u32 mask);
};

// The meeting of lanes at one collective. Groups of lanes with disjoint masks may meet at several.
struct Rendezvous {
    const Collective* collective;
    u32 mask;     // the lanes that must arrive
    u32 arrived;  // the lanes that have arrived; if there are none, this rendezvous is free
};

struct Warp {
    void begin(u32 lane_mask);
    // The rendezvous that `lane` must go to next. PRECOND: the lane is claimed.
    const Rendezvous& claim_on(u32 lane) const;

    // Sets of lanes.
    u32 lanes;       // all lanes; fewer than 32 in the last warp if the block's size is not a multiple of 32
    u32 ready;       // lanes that can run
    u32 exited;      // lanes that have exited
    u32 at_barrier;  // lanes that wait at __syncthreads()
    u32 claimed;     // lanes in the mask of a rendezvous, which they must go to next

    Rendezvous rendezvous[32];  // indexed by the lowest lane of the mask
    void* operands[32];
};

// The current thread meets the lanes of `mask` at `collective`. Returns when it is complete.
void meet(const Collective& collective, u32 mask, void* operands);

constexpr u32 all_lanes = 0xffffffff;

extern const Collective syncwarp, ballot, any, all;
extern const Collective shuffle_index, shuffle_up, shuffle_down, shuffle_xor;

// The value that lane `source` passes. Faults if that lane is not in the mask.
u64 shuffle(const Collective& kind, u32 mask, u64 value, u32 source);
// The lanes of the mask whose predicate is true.
u32 vote(const Collective& kind, u32 mask, bool predicate);

}  // namespace simt
