// Products without tensor cores: f32, where every digit counts, and rows of bf16 that are not made of 16-byte
// chunks. A warp takes an output and goes through the tile's rows, a few at a time.
#pragma once

#include "groups.cuh"

template <class T>
struct PlainProducts {
    static constexpr int HEIGHT = 16;
    static constexpr u32 WARPS = 4;
    static constexpr int HELD = 4;  // rows

    static DEVICE void run(const GroupedMatmulParams& p) {
        RowTile tile;
        if (!find_tile<HEIGHT>(p, blockIdx.x, tile)) return;
        const u32 output = blockIdx.y * WARPS + threadIdx.x / 32;
        if (output >= p.outputs) return;
        for (u32 row = tile.first; row < tile.end; row += HELD) rows(p, tile, row, output);
    }

    // A lane sums every 32nd product, then the lanes their sums.
    static DEVICE void rows(const GroupedMatmulParams& p, const RowTile& tile, u32 first, u32 output) {
        const u32 lane = threadIdx.x % 32;
        const u64 weight_row = u64(tile.group) * p.outputs + output;
        const T* const weight = static_cast<const T*>(p.weight) + weight_row * p.inputs;
        const T* x[HELD];
        float sums[HELD] = {};
#pragma unroll
        for (int i = 0; i < HELD; ++i)
            x[i] = static_cast<const T*>(p.x) + u64(tile.source(p, min(first + i, tile.end - 1))) * p.inputs;
        for (u32 input = lane; input < p.inputs; input += 32) {
            const float w = to_float(weight[input]);
#pragma unroll
            for (int i = 0; i < HELD; ++i) sums[i] = fmaf(to_float(x[i][input]), w, sums[i]);
        }
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            const float sum = warp_sum(sums[i]);
            if (lane != 0 || first + i >= tile.end) continue;
            const float value = finished<T>(p, sum, weight_row);
            const u64 at = u64(first + i) * p.outputs + output;
            if (p.out_is_f32) {
                static_cast<float*>(p.out)[at] = value;
            } else {
                static_cast<T*>(p.out)[at] = from_float<T>(value);
            }
        }
    }
};
