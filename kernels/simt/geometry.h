// The shape of a launch: what is refused, and in which order its blocks run.
#pragma once

#include <string>
#include <vector>

#include "types.h"

namespace simt {

struct Geometry {
    uint3 grid, block;
    size_t shared_bytes;
    u64 first, count;  // the blocks to run

    u64 blocks() const { return u64(grid.x) * grid.y * grid.z; }
    // The index of the `linear`-th block, x fastest.
    uint3 block_at(u64 linear) const {
        return {u32(linear % grid.x), u32(linear / grid.x % grid.y), u32(linear / grid.x / grid.y)};
    }
};

// The reason to refuse the launch of a kernel with these limits, or nothing.
std::string objection(const Geometry& geometry, size_t params_bytes, size_t kernel_params_bytes,
                      u32 max_threads);

// The order of the blocks that are to run.
std::vector<u64> order(const Geometry& geometry, u64 seed);

}  // namespace simt
