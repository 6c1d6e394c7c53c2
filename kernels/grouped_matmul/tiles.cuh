// Products on tensor cores. A block takes a tile of a group's rows and a tile of its outputs. It sums over
// the inputs, DEPTH at a time, and copies the next stages meanwhile.
//
// A warp takes all rows of the tile and a part of its outputs, so that it widens a weight once for all of
// them. The loop is compiled for each number of row fragments, and a block runs the one that its rows need.
//
// One warp sums an output over ascending inputs, 16 a step, in every tile. So a row's bits depend on the row
// alone.
#pragma once

#include "copies.cuh"
#include "outputs.cuh"

// WEIGHTS is a format of weights.cuh. A tile has at most ROWS rows, and OUTPUTS outputs, of which a warp has
// WARP_OUTPUTS.
template <class WEIGHTS, int ROWS, int OUTPUTS, int WARP_OUTPUTS, int STAGES>
struct Tiles {
    static constexpr int DEPTH = 64, STEPS = DEPTH / 16, THREADS = OUTPUTS / WARP_OUTPUTS * 32;
    static constexpr int N = WARP_OUTPUTS / 8;  // fragments of a warp's outputs
    using Element = typename WEIGHTS::Element;

    static DEVICE void run(const GroupedMatmulParams& p) {
        RowTile tile;
        if (!find_tile(p, blockIdx.x, tile)) return;
        const u32 output = blockIdx.y * OUTPUTS + threadIdx.x / 32 * WARP_OUTPUTS;
        Sums sums = {};
        add<1>(p, tile, sums);
        store_sums(p, tile, output, sums);
    }

    // A warp's part of the tile in fragments of mma.m16n8k16.
    using Sums = float[ROWS / 16][N][4];

    // Runs the loop for as few fragments of rows as hold the tile's rows, at least M.
    template <int M>
    static DEVICE void add(const GroupedMatmulParams& p, const RowTile& tile, Sums& sums) {
        if constexpr (M < ROWS / 16) {
            if (tile.end - tile.first > M * 16) return add<M + 1>(p, tile, sums);
        }
        Loop<M>().run(p, tile, sums);
    }

    // The stages in shared memory. STAGES - 1 of them are copied ahead.
    struct Stages {
        Element* weight;  // [STAGES, OUTPUTS, DEPTH]
        bf16* x;          // [STAGES, tile_rows, DEPTH]
        u32 x_size;

        DEVICE explicit Stages(const GroupedMatmulParams& p)
            : weight(reinterpret_cast<Element*>(shared_memory())),
              x(reinterpret_cast<bf16*>(weight + STAGES * OUTPUTS * DEPTH)),
              x_size(p.tile_rows * DEPTH) {}

        DEVICE bf16* x_of(u32 stage) const { return x + stage * x_size; }
        DEVICE Element* weight_of(u32 stage) const { return weight + stage * OUTPUTS * DEPTH; }
    };

    // The loop of a warp over the inputs, for M fragments of rows.
    template <int M>
    struct Loop {
        // Fragments of x are loaded AHEAD products of fragments before their own, into a ring.
        static constexpr int AHEAD = 2, RING = 4;
        static_assert(STEPS * M % RING == 0 && STEPS % 2 == 0, "a stage begins where the last one did");

        u32 x[RING][4];
        u32 words[N][WEIGHTS::WORDS];  // the weights of the next 16 inputs, as they are stored
        u32 weights[2][N][2];          // those of these 16 inputs and of the next, widened
        u32 x_place, w_place;          // what the lane addresses in a stage

        DEVICE void run(const GroupedMatmulParams& p, const RowTile& tile, Sums& sums) {
            const Stages stages(p);
            const Copies<Element, M * 16, OUTPUTS, DEPTH, THREADS> copies(p, tile, blockIdx.y * OUTPUTS);
            const u32 steps = (p.inputs + DEPTH - 1) / DEPTH;
#pragma unroll
            for (u32 stage = 0; stage < STAGES - 1; ++stage)
                copies.begin(stage, stages.x_of(stage), stages.weight_of(stage));
            cp_async_wait<STAGES - 2>();
            __syncthreads();
            load_first(stages);

            for (u32 step = 0, stage = 0; step < steps; ++step) {
                const u32 next = stage == STAGES - 1 ? 0 : stage + 1;
                const bf16* const xs[] = {stages.x_of(stage), stages.x_of(next)};
                const Element* const ws[] = {stages.weight_of(stage), stages.weight_of(next)};
#pragma unroll
                for (int k = 0; k < STEPS; ++k) {
                    if (k == STEPS / 2) {
                        // The next stage is there, and all threads have read the last one, which is now
                        // overwritten.
                        const u32 last = stage == 0 ? STAGES - 1 : stage - 1;
                        cp_async_wait<STAGES - 3>();
                        __syncthreads();
                        copies.begin(step + STAGES - 1, stages.x_of(last), stages.weight_of(last));
                    }
                    multiply(k, xs, ws, sums);
                }
                stage = next;
            }
        }

        // Loads what `multiply` finds loaded: the first weights, and the first fragments of x.
        DEVICE void load_first(const Stages& stages) {
            const u32 lane = threadIdx.x % 32, column = threadIdx.x / 32 * WARP_OUTPUTS;
            x_place = TileRows<bf16, DEPTH>::place(lane % 16, lane / 16);
            w_place = WEIGHTS::template place<DEPTH>(column, lane);
            WEIGHTS::template load<DEPTH, N>(words, stages.weight + w_place);
#pragma unroll
            for (int n = 0; n < N; ++n) WEIGHTS::widened(weights[0][n], words[n]);
#pragma unroll
            for (int i = 0; i < AHEAD; ++i) load_x(i, stages.x);
        }

        // Loads the fragment of x for the i-th product of fragments of a stage.
        DEVICE void load_x(int i, const bf16* stage) {
            ldmatrix_x4(x[i % RING],
                        stage + TileRows<bf16, DEPTH>::further(x_place, i / M) + i % M * 16 * DEPTH);
        }

        // Multiplies inputs 16 k.. of a stage, and meanwhile loads and widens what comes next, of this stage
        // or of the one after it.
        DEVICE void multiply(int k, const bf16* const (&xs)[2], const Element* const (&ws)[2], Sums& sums) {
            const Element* const next = ws[(k + 1) / STEPS];
            WEIGHTS::template load<DEPTH, N>(
                words, next + TileRows<Element, DEPTH>::further(w_place, (k + 1) % STEPS));
#pragma unroll
            for (int m = 0; m < M; ++m) {
                const int i = k * M + m, ahead = i + AHEAD;
                load_x(ahead % (STEPS * M), xs[ahead / (STEPS * M)]);
#pragma unroll
                for (int n = 0; n < N; ++n) mma_bf16(sums[m][n], x[i % RING], weights[k % 2][n]);
#pragma unroll
                for (int n = 0; n < N; ++n)
                    if (m == widens_after(n)) WEIGHTS::widened(weights[(k + 1) % 2][n], words[n]);
            }
        }

        // The fragment of rows after whose products the next weights of 8 outputs are widened. They are
        // spread, and leave the first products for the loads to arrive.
        static DEVICE int widens_after(int n) { return M == 1 ? 0 : 1 + n * (M - 1) / N; }
    };
};
