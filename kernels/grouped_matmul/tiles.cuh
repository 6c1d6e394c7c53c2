// Products on tensor cores. A block takes a tile of a group's rows and a tile of its outputs. It sums over
// the inputs, DEPTH at a time, and copies the next stages meanwhile.
//
// One warp sums an output over ascending inputs, 16 a step, for every height of the tile. So a row's bits
// depend on the row alone.
#pragma once

#include "groups.cuh"
#include "weights.cuh"

// WEIGHTS is a format of weights.cuh. ROWS x OUTPUTS is the block's tile, WARP_ROWS x WARP_OUTPUTS a warp's
// part of it.
template <class WEIGHTS, int ROWS_, int OUTPUTS_, int WARP_ROWS, int WARP_OUTPUTS, int STAGES_>
struct Tiles {
    static constexpr int ROWS = ROWS_, OUTPUTS = OUTPUTS_, STAGES = STAGES_, DEPTH = 64;
    static constexpr int WARPS = ROWS / WARP_ROWS * (OUTPUTS / WARP_OUTPUTS), THREADS = WARPS * 32;
    static constexpr int M = WARP_ROWS / 16, N = WARP_OUTPUTS / 16;
    using Element = typename WEIGHTS::Element;
    using XRows = TileRows<bf16, DEPTH>;
    using WRows = TileRows<Element, DEPTH>;
    // Rows that the threads copy at once, one chunk a thread.
    static constexpr int X_SWEEP = THREADS / XRows::CHUNKS, W_SWEEP = THREADS / WRows::CHUNKS;
    static_assert(ROWS % X_SWEEP == 0 && OUTPUTS % W_SWEEP == 0, "every thread copies equally many chunks");

    bf16* x;          // [STAGES, ROWS, DEPTH]
    Element* weight;  // [STAGES, OUTPUTS, DEPTH]

    DEVICE explicit Tiles(unsigned char* shared)
        : x(reinterpret_cast<bf16*>(shared)), weight(reinterpret_cast<Element*>(x + STAGES * ROWS * DEPTH)) {}

    DEVICE void run(const GroupedMatmulParams& p) const {
        RowTile tile;
        if (!find_tile<ROWS>(p, blockIdx.x, tile)) return;
        const u32 first_output = blockIdx.y * OUTPUTS;
        const Source from(p, tile, first_output);
        const u32 steps = (p.inputs + DEPTH - 1) / DEPTH;
#pragma unroll
        for (u32 stage = 0; stage < STAGES - 1; ++stage) copy(p, from, stage, stage);

        Sums sums;
        sums.clear();
        for (u32 step = 0, stage = 0; step < steps; ++step) {
            cp_async_wait<STAGES - 2>();
            __syncthreads();
            // This stage overwrites the one that all threads have read before the barrier.
            copy(p, from, step + STAGES - 1, stage == 0 ? STAGES - 1 : stage - 1);
            sums.add(x + stage * ROWS * DEPTH, weight + stage * OUTPUTS * DEPTH);
            stage = stage == STAGES - 1 ? 0 : stage + 1;
        }
        sums.store(p, tile, first_output);
    }

    // The source of a thread's copies: a chunk of every X_SWEEP-th row of x and of every W_SWEEP-th row of
    // the weight.
    struct Source {
        u32 x_rows[ROWS / X_SWEEP];  // NONE: the tile has no such row
        const Element* weight;       // the first of its rows of the weight
        u32 outputs;                 // the number of outputs from there on

        static constexpr u32 NONE = 0xffffffff;

        DEVICE Source(const GroupedMatmulParams& p, const RowTile& tile, u32 first_output) {
            const u32 row = threadIdx.x / XRows::CHUNKS, output = first_output + threadIdx.x / WRows::CHUNKS;
#pragma unroll
            for (int i = 0; i < ROWS / X_SWEEP; ++i) {
                const u32 at = tile.first + row + i * X_SWEEP;
                x_rows[i] = at < tile.end ? tile.source(p, at) : NONE;
            }
            outputs = output < p.outputs ? p.outputs - output : 0;
            weight = static_cast<const Element*>(p.weight) +
                     (u64(tile.group) * p.outputs + (outputs ? output : 0)) * p.inputs;
        }
    };

    // Begins the copy of a step of inputs; it copies zeros past the end.
    DEVICE void copy(const GroupedMatmulParams& p, const Source& from, u32 step, u32 stage) const {
        const u32 x_chunk = threadIdx.x % XRows::CHUNKS, x_row = threadIdx.x / XRows::CHUNKS;
        const u32 x_input = step * DEPTH + x_chunk * XRows::CHUNK;
#pragma unroll
        for (int i = 0; i < ROWS / X_SWEEP; ++i) {
            const bool valid = from.x_rows[i] != Source::NONE && x_input < p.inputs;
            cp_async16(XRows::chunk(x + stage * ROWS * DEPTH, x_row + i * X_SWEEP, x_chunk),
                       static_cast<const bf16*>(p.x) + (valid ? u64(from.x_rows[i]) * p.inputs + x_input : 0),
                       valid);
        }
        const u32 w_chunk = threadIdx.x % WRows::CHUNKS, w_row = threadIdx.x / WRows::CHUNKS;
        const u32 w_input = step * DEPTH + w_chunk * WRows::CHUNK;
#pragma unroll
        for (int i = 0; i < OUTPUTS / W_SWEEP; ++i) {
            const bool valid = u32(i * W_SWEEP) < from.outputs && w_input < p.inputs;
            cp_async16(WRows::chunk(weight + stage * OUTPUTS * DEPTH, w_row + i * W_SWEEP, w_chunk),
                       from.weight + (valid ? u64(i * W_SWEEP) * p.inputs + w_input : 0), valid);
        }
        cp_async_commit();
    }

    // A warp's part of the tile in fragments of mma.m16n8k16. A lane holds columns 2 (lane % 4) + {0, 1} of
    // row lane / 4 in registers 0 and 1, and of row lane / 4 + 8 in registers 2 and 3.
    struct Sums {
        float v[M][2 * N][4];

        DEVICE void clear() {
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int n = 0; n < 2 * N; ++n) v[m][n][0] = v[m][n][1] = v[m][n][2] = v[m][n][3] = 0;
        }

        DEVICE void add(const bf16* x, const Element* weight) {
            const u32 lane = threadIdx.x % 32;
#pragma unroll
            for (int k = 0; k < DEPTH / 16; ++k) {
                u32 a[M][4];
#pragma unroll
                for (int m = 0; m < M; ++m)
                    ldmatrix_x4(a[m], XRows::chunk(x, first_row() + m * 16 + lane % 16, 2 * k + lane / 16));
#pragma unroll
                for (int n = 0; n < N; ++n) {
                    u32 low[2], high[2];
                    WEIGHTS::template fragments<DEPTH>(low, high, weight, first_column() + n * 16, k, lane);
#pragma unroll
                    for (int m = 0; m < M; ++m) {
                        mma_bf16(v[m][2 * n], a[m], low);
                        mma_bf16(v[m][2 * n + 1], a[m], high);
                    }
                }
            }
        }

        DEVICE void store(const GroupedMatmulParams& p, const RowTile& tile, u32 first_output) const {
            const u32 lane = threadIdx.x % 32;
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const u32 row = tile.first + first_row() + m * 16 + half * 8 + lane / 4;
                    if (row >= tile.end) continue;
                    const u32 target = tile.target(p, row);
#pragma unroll
                    for (int n = 0; n < 2 * N; ++n)
                        store_pair(p, tile.group, target,
                                   first_output + first_column() + n * 8 + lane % 4 * 2, v[m][n][half * 2],
                                   v[m][n][half * 2 + 1]);
                }
        }

        static DEVICE u32 first_row() { return threadIdx.x / 32 / (OUTPUTS / WARP_OUTPUTS) * WARP_ROWS; }
        static DEVICE u32 first_column() {
            return threadIdx.x / 32 % (OUTPUTS / WARP_OUTPUTS) * WARP_OUTPUTS;
        }
    };

    // Stores two neighbouring outputs, in one access if every row begins at an even index.
    static DEVICE void store_pair(const GroupedMatmulParams& p, u32 group, u32 target, u32 output, float left,
                                  float right) {
        if (output >= p.outputs) return;
        const bool has_right = output + 1 < p.outputs;
        const u64 weight_row = u64(group) * p.outputs + output, at = u64(target) * p.outputs + output;
        left = finished<bf16>(p, left, weight_row);
        if (has_right) right = finished<bf16>(p, right, weight_row + 1);
        if (p.out_is_f32) {
            float* const out = static_cast<float*>(p.out) + at;
            if (p.outputs % 2 == 0) return store_vec(out, Vec<float, 2>{{left, right}});
            out[0] = left;
            if (has_right) out[1] = right;
        } else {
            bf16* const out = static_cast<bf16*>(p.out) + at;
            if (p.outputs % 2 == 0)
                return store_vec(out, Vec<bf16, 2>{{from_float<bf16>(left), from_float<bf16>(right)}});
            out[0] = from_float<bf16>(left);
            if (has_right) out[1] = from_float<bf16>(right);
        }
    }
};
