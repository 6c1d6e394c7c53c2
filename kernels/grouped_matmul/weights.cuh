// Formats of weights: the layout of their rows in shared memory, and how they become the right operand of a
// product of bf16. Tiles takes any struct with the members of Bf16Weights.
#pragma once

#include "../e4m3.cuh"

// Rows of DEPTH numbers in shared memory, made of 16-byte chunks. The eight rows that ldmatrix reads at once
// must lie in different banks. So chunks are permuted by the row, or by the pair of rows that fills all
// banks.
template <class T, int DEPTH>
struct TileRows {
    static constexpr int CHUNK = 16 / sizeof(T);  // in numbers
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

    // The fragments of outputs `row..row + 8` and `row + 8..row + 16` and of the inputs 16 k.. of a tile of
    // DEPTH inputs. Of output lane / 4, a lane's registers hold inputs 2 (lane % 4) + {0, 1} and the inputs 8
    // after them (PTX ISA, mma.m16n8k16, B). Another format may use another order of the 16 inputs of a step
    // if x has the same order.
    template <int DEPTH>
    static DEVICE void fragments(u32 (&low)[2], u32 (&high)[2], const bf16* tile, u32 row, u32 k, u32 lane) {
        u32 b[4];
        ldmatrix_x4(b,
                    TileRows<bf16, DEPTH>::chunk(tile, row + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
        low[0] = b[0], low[1] = b[1];
        high[0] = b[2], high[1] = b[3];
    }
};

// e4m3, which has half the bytes. ldmatrix returns four neighbouring bytes of an output to a lane, and
// `widen` makes one pair of the even bytes and one of the odd bytes. These pairs are the inputs that
// Bf16Weights returns, because src/device/gpu/ops/matrix.rs deals each 16 inputs of a row: byte 4 i + j is
// input 2 i + j / 2 of the lower eight if j is even, of the upper eight if j is odd.
struct E4m3Weights {
    using Element = e4m3;

    template <int DEPTH>
    static DEVICE void fragments(u32 (&low)[2], u32 (&high)[2], const e4m3* tile, u32 row, u32 k, u32 lane) {
        u32 b[2];
        ldmatrix_x2(b, TileRows<e4m3, DEPTH>::chunk(tile, row + lane % 16, k));
        widen(b[0], low[0], low[1]);
        widen(b[1], high[0], high[1]);
    }
};
