// Gives registers their places in a warp's file. nvcc writes each result to a register of its own, thousands
// of them. Registers whose values are not needed at the same time share a place, so that the file stays in
// the caches.
#pragma once

#include <cstddef>
#include <vector>

#include "../types.h"

namespace ptx {

// What one instruction does to the registers, by their numbers, and where it goes on.
struct RegisterUse {
    std::vector<u32> reads, writes;
    bool is_partial;  // some lanes may not execute it, so it does not end what a register held before
    bool falls_through;
    std::vector<u32> targets;  // the instructions to which it may jump
};

struct Placement {
    std::vector<u32> offsets;  // by number of the register
    size_t bytes;
};

// PRECOND: `widths` has the bytes of a lane, or 0 for a predicate, which takes 4 bytes in all. Registers that
// are fixed have a place of their own.
Placement place_registers_of(const std::vector<RegisterUse>& uses, const std::vector<u32>& widths,
                             const std::vector<bool>& is_fixed);

}  // namespace ptx
