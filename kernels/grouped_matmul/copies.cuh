// The copies of one thread from global memory to the stages of a tile.
#pragma once

#include "groups.cuh"
#include "weights.cuh"

// Of x, a thread copies a chunk of every X_SWEEP-th row of the tile; of the weight, a chunk of every
// W_SWEEP-th row. The tile has at most ROWS rows and OUTPUTS outputs, and a stage has DEPTH inputs of them.
template <class Element, int ROWS, int OUTPUTS, int DEPTH, int THREADS>
struct Copies {
    using XRows = TileRows<bf16, DEPTH>;
    using WRows = TileRows<Element, DEPTH>;
    static constexpr int X_SWEEP = THREADS / XRows::CHUNKS, W_SWEEP = THREADS / WRows::CHUNKS;
    static constexpr int X_COPIES = (ROWS + X_SWEEP - 1) / X_SWEEP, W_COPIES = OUTPUTS / W_SWEEP;
    static_assert(OUTPUTS % W_SWEEP == 0, "every thread copies equally many chunks of the weight");
    static_assert(X_SWEEP % XRows::PERIOD == 0 && W_SWEEP % WRows::PERIOD == 0,
                  "a thread's chunks are permuted alike");

    const bf16* x;           // its chunk of row 0 of x
    u32 x_rows[X_COPIES];    // the rows of x, in chunks from there
    u32 rows;                // the number of rows of the tile from its first on
    const Element* weight;   // its chunk of its first row of the weight
    u64 w_stride;            // from one of its rows of the weight to the next
    u32 outputs;             // the number of outputs from its first on
    u32 x_inputs, w_inputs;  // the number of inputs from its chunks on
    u32 x_to, w_to;          // the places of its first chunks in a stage

    DEVICE Copies(const GroupedMatmulParams& p, const RowTile& tile, u32 first_output) {
        const u32 x_row = threadIdx.x / XRows::CHUNKS, x_chunk = threadIdx.x % XRows::CHUNKS;
        const u32 w_row = threadIdx.x / WRows::CHUNKS, w_chunk = threadIdx.x % WRows::CHUNKS;
        const u32 first = tile.first + x_row, output = first_output + w_row;
        x = static_cast<const bf16*>(p.x) + x_chunk * XRows::CHUNK;
        rows = first < tile.end ? tile.end - first : 0;
#pragma unroll
        for (int i = 0; i < X_COPIES; ++i)
            x_rows[i] =
                u32(i * X_SWEEP) < rows ? tile.source(p, first + i * X_SWEEP) * (p.inputs / XRows::CHUNK) : 0;
        outputs = output < p.outputs ? p.outputs - output : 0;
        weight = static_cast<const Element*>(p.weight) +
                 (u64(tile.group) * p.outputs + (outputs ? output : 0)) * p.inputs + w_chunk * WRows::CHUNK;
        w_stride = u64(W_SWEEP) * p.inputs;
        x_inputs = p.inputs - min(p.inputs, x_chunk * XRows::CHUNK);
        w_inputs = p.inputs - min(p.inputs, w_chunk * WRows::CHUNK);
        x_to = XRows::place(x_row, x_chunk);
        w_to = WRows::place(w_row, w_chunk);
    }

    // Begins the copies of the DEPTH inputs of a step. What lies past the end becomes zero.
    DEVICE void begin(u32 step, bf16* x_stage, Element* w_stage) const {
        const u32 input = step * DEPTH;
        const u32 x_valid = input < x_inputs ? rows : 0, w_valid = input < w_inputs ? outputs : 0;
#pragma unroll
        for (int i = 0; i < X_COPIES; ++i) {
            const u32 sweep = i * X_SWEEP;
            // The last sweep may reach past the rows of a stage.
            const bool is_partial = ROWS % X_SWEEP != 0 && i == X_COPIES - 1;
            if (is_partial && sweep + threadIdx.x / XRows::CHUNKS >= ROWS) break;
            cp_async16(x_stage + x_to + sweep * DEPTH, x + input + u64(x_rows[i]) * XRows::CHUNK,
                       sweep < x_valid);
        }
        const Element* from = weight + input;
#pragma unroll
        for (int i = 0; i < W_COPIES; ++i, from += w_stride)
            cp_async16(w_stage + w_to + i * W_SWEEP * DEPTH, from, u32(i * W_SWEEP) < w_valid);
        cp_async_commit();
    }
};
