// The rows and the group that a block multiplies.
#pragma once

#include "../prelude.cuh"

struct GroupedMatmulParams {
    const void* x;        // [any, inputs]
    const void* weight;   // [groups, outputs, inputs]
    const float* scales;  // [groups, outputs] if the weight's format has scales, else null
    const void* bias;     // [groups, outputs], or null
    void* out;            // [rows, outputs]; [any, outputs] if it scatters
    const u32* sources;   // [rows]: the row of x; null: each row is its own source
    const u32* offsets;   // [groups + 1]: where each group's rows begin; last, where all end; or null
    u32 rows;             // without offsets: all rows, which are one group
    u32 groups;
    u32 outputs;
    u32 inputs;
    u32 out_is_f32;  // whether out is f32; else it has the format of x
    u32 scatters;    // whether a row of out has the index of its source
    u32 tile_rows;   // the most rows of a tile
    u32 unused;
};
MIRRORED(GroupedMatmulParams);

// Consecutive rows of one group.
struct RowTile {
    u32 group, first, end;

    DEVICE u32 source(const GroupedMatmulParams& p, u32 row) const {
        return p.sources ? p.sources[row] : row;
    }
    // The row of out that receives the product of `row`.
    DEVICE u32 target(const GroupedMatmulParams& p, u32 row) const {
        return p.scatters ? p.sources[row] : row;
    }
};

// Finds the `index`-th tile, where each group's rows are cut into tiles of p.tile_rows. Returns false if
// there are fewer tiles. Every group begins a new tile, so that no tile has rows of two groups.
//
// PRECOND: called by whole warps; each warp finds the tile for itself.
DEVICE bool find_tile(const GroupedMatmulParams& p, u32 index, RowTile& tile) {
    const u32 height = p.tile_rows;
    if (!p.offsets) {
        tile = {0, index * height, min(index * height + height, p.rows)};
        return tile.first < p.rows;
    }
    // Each lane counts the tiles of a share of consecutive groups.
    const u32 lane = threadIdx.x % 32, share = (p.groups + 31) / 32;
    const u32 first = min(lane * share, p.groups), last = min(first + share, p.groups);
    u32 count = 0;
    for (u32 group = first; group < last; ++group)
        count += (p.offsets[group + 1] - p.offsets[group] + height - 1) / height;
    u32 through = count;  // the tiles of this lane and the lanes before it
    for (u32 step = 1; step < 32; step *= 2) {
        const u32 before = __shfl_up_sync(0xffffffff, through, step);
        if (lane >= step) through += before;
    }
    const u32 holders = __ballot_sync(0xffffffff, through > index);
    if (!holders) return false;
    // The first lane whose count reaches the index searches its groups.
    const int holder = __ffs(i32(holders)) - 1;
    u32 group = first, begin = 0, end = 0;
    if (lane == u32(holder)) {
        u32 left = index - (through - count);
        for (;; ++group) {
            begin = p.offsets[group];
            end = p.offsets[group + 1];
            const u32 tiles = (end - begin + height - 1) / height;
            if (left < tiles) break;
            left -= tiles;
        }
        begin += left * height;
        end = min(end, begin + height);
    }
    tile.group = __shfl_sync(0xffffffff, group, holder);
    tile.first = __shfl_sync(0xffffffff, begin, holder);
    tile.end = __shfl_sync(0xffffffff, end, holder);
    return true;
}

// One number of the output, after scale and bias. `at` is the index among the outputs of all groups.
template <class X>
DEVICE float finished(const GroupedMatmulParams& p, float sum, u64 at) {
    if (p.scales) sum *= p.scales[at];
    return p.bias ? sum + to_float(static_cast<const X*>(p.bias)[at]) : sum;
}
