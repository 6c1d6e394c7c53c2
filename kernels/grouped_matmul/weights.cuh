// Formats of weights: how their rows lie in shared memory, and how they become the right operand of a product
// of bf16. The tiles are made for any struct such as Bf16Weights.
#pragma once

#include "../prelude.cuh"

// Rows of DEPTH numbers in shared memory, made of 16-byte chunks. The eight rows that ldmatrix reads at once
// must lie in different banks: chunks are permuted by the row, or by the pair of rows that fills all banks.
template <class T, int DEPTH>
struct TileRows {
    static constexpr int CHUNK = 16 / sizeof(T);  // numbers
    static constexpr int CHUNKS = DEPTH / CHUNK;
    static constexpr int ROWS_A_LINE = 8 / CHUNKS;
    static_assert(CHUNKS <= 8 && 8 % CHUNKS == 0, "a row fills a part of the banks");

    static DEVICE T* chunk(T* rows, u32 row, u32 chunk) {
        return rows + row * DEPTH + (chunk ^ row / ROWS_A_LINE % CHUNKS) * CHUNK;
    }
    static DEVICE const T* chunk(const T* rows, u32 row, u32 chunk) {
        return TileRows::chunk(const_cast<T*>(rows), row, chunk);
    }
};

struct Bf16Weights {
    using Element = bf16;

    // The fragments of outputs `row..row + 8` and `row + 8..row + 16`, inputs 16 k.. of a tile of DEPTH inputs.
    // A lane's registers hold (PTX ISA, mma.m16n8k16, B) inputs 2 (lane % 4) + {0, 1} and 8 more than these, of
    // output lane / 4. Another format may give the inputs of a step of 16 in another order if x has them so too.
    template <int DEPTH>
    static DEVICE void fragments(u32 (&low)[2], u32 (&high)[2], const bf16* tile, u32 row, u32 k, u32 lane) {
        u32 b[4];
        ldmatrix_x4(b, TileRows<bf16, DEPTH>::chunk(tile, row + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
        low[0] = b[0], low[1] = b[1];
        high[0] = b[2], high[1] = b[3];
    }
};
