// Products without tensor cores, for f32 and for rows that are not made of 16-byte chunks. A thread takes one
// output and computes it for each row of the tile.
#pragma once

#include "groups.cuh"

template <class T, class W>  // activations, weights
struct PlainProducts {
    static constexpr u32 SUMS = 16;  // independent sums, so that rounding grows with a 16th of the inputs

    static DEVICE void run(const GroupedMatmulParams& p) {
        RowTile tile;
        if (!find_tile(p, blockIdx.x, tile)) return;
        const u32 output = blockIdx.y * blockDim.x + threadIdx.x;
        if (output >= p.outputs) return;
        const u64 weight_row = u64(tile.group) * p.outputs + output;
        const W* const weight = static_cast<const W*>(p.weight) + weight_row * p.inputs;
        for (u32 row = tile.first; row < tile.end; ++row) {
            const T* const x = static_cast<const T*>(p.x) + u64(tile.source(p, row)) * p.inputs;
            const float value = finished<T>(p, dot(x, weight, p.inputs), weight_row);
            const u64 at = u64(tile.target(p, row)) * p.outputs + output;
            if (p.out_is_f32) {
                static_cast<float*>(p.out)[at] = value;
            } else {
                static_cast<T*>(p.out)[at] = from_float<T>(value);
            }
        }
    }

    static DEVICE float dot(const T* x, const W* weight, u32 inputs) {
        float sums[SUMS] = {};
        const u32 whole = inputs / SUMS * SUMS;
        for (u32 first = 0; first < whole; first += SUMS)
#pragma unroll
            for (u32 i = 0; i < SUMS; ++i)
                sums[i] = fmaf(to_float(x[first + i]), to_float(weight[first + i]), sums[i]);
#pragma unroll
        for (u32 i = 0; i < SUMS; ++i)
            if (whole + i < inputs)
                sums[i] = fmaf(to_float(x[whole + i]), to_float(weight[whole + i]), sums[i]);
        float sum = 0;
#pragma unroll
        for (u32 i = 0; i < SUMS; ++i) sum += sums[i];
        return sum;
    }
};
