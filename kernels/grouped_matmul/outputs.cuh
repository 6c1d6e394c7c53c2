// What follows the sums of a tile: scale, bias, rounding and the stores.
#pragma once

#include "groups.cuh"

// Two neighbouring outputs of a group, with what is applied to their sums.
struct OutputPair {
    u32 output;
    bool has_left, has_right;
    float scales[2], biases[2];

    DEVICE OutputPair(const GroupedMatmulParams& p, u32 group, u32 output)
        : output(output), has_left(output < p.outputs), has_right(output + 1 < p.outputs) {
        const u64 at = u64(group) * p.outputs + output;
        for (int i = 0; i < 2; ++i) {
            const bool is_there = output + i < p.outputs;
            scales[i] = p.scales && is_there ? p.scales[at + i] : 1.0f;
            biases[i] = p.bias && is_there ? to_float(static_cast<const bf16*>(p.bias)[at + i]) : 0.0f;
        }
    }

    DEVICE float finished(const GroupedMatmulParams& p, float sum, int i) const {
        if (p.scales) sum *= scales[i];
        return p.bias ? sum + biases[i] : sum;
    }

    // Stores both, in one access if every row begins at an even index.
    template <class T>
    DEVICE void store(const GroupedMatmulParams& p, u64 row, float left, float right) const {
        if (!has_left) return;
        T* const out = static_cast<T*>(p.out) + row * p.outputs + output;
        const T values[] = {from_float<T>(finished(p, left, 0)), from_float<T>(finished(p, right, 1))};
        if (p.outputs % 2 == 0) return store_vec(out, Vec<T, 2>{{values[0], values[1]}});
        out[0] = values[0];
        if (has_right) out[1] = values[1];
    }
};

// Stores a warp's sums, which are fragments of mma.m16n8k16: a lane holds columns 2 (lane % 4) + {0, 1} of
// row lane / 4 in registers 0 and 1, and of row lane / 4 + 8 in registers 2 and 3.
template <int M, int N>
DEVICE void store_sums(const GroupedMatmulParams& p, const RowTile& tile, u32 first_output,
                       const float (&sums)[M][N][4]) {
    const u32 lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < N; ++n) {
        const OutputPair pair(p, tile.group, first_output + n * 8 + lane % 4 * 2);
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const u32 row = tile.first + m * 16 + half * 8 + lane / 4;
                if (row >= tile.end) continue;
                const float left = sums[m][n][half * 2], right = sums[m][n][half * 2 + 1];
                if (p.out_is_f32) {
                    pair.store<float>(p, tile.target(p, row), left, right);
                } else {
                    pair.store<bf16>(p, tile.target(p, row), left, right);
                }
            }
    }
}
