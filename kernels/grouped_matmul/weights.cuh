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
    // Rows this far apart are permuted alike.
    static constexpr int PERIOD = ROWS_A_LINE * CHUNKS;
    static_assert(CHUNKS <= 8 && 8 % CHUNKS == 0, "a row fills a part of the banks");

    // The index of a chunk's first number.
    static DEVICE u32 place(u32 row, u32 chunk) {
        return row * DEPTH + (chunk ^ row / ROWS_A_LINE % CHUNKS) * CHUNK;
    }
    // The place 16 k inputs further in the row of a place in its first 16 inputs. The permutation is an
    // exclusive or, and so is this step.
    static DEVICE u32 further(u32 place, u32 k) { return place ^ k * 16; }
};

// The fragments of 8 outputs and of inputs 16 k.. that mma.m16n8k16 takes as B: of output lane / 4, a lane's
// two registers hold inputs 2 (lane % 4) + {0, 1} and the inputs 8 after them (PTX ISA). Another format may
// use another order of the 16 inputs of a step if x has the same order.
struct Bf16Weights {
    using Element = bf16;
    static constexpr int WORDS = 2;  // registers of 8 outputs as they lie in shared memory

    // The row and the chunk that the lane addresses for `load`.
    template <int DEPTH>
    static DEVICE u32 place(u32 first_row, u32 lane) {
        return TileRows<bf16, DEPTH>::place(first_row + lane / 16 * 8 + lane % 8, lane / 8 % 2);
    }
    // Loads the words of 8 COLUMNS outputs and of 16 inputs.
    template <int DEPTH, int COLUMNS>
    static DEVICE void load(u32 (&words)[COLUMNS][WORDS], const bf16* at) {
        static_assert(COLUMNS % 2 == 0);
#pragma unroll
        for (int n = 0; n < COLUMNS; n += 2) {
            u32 r[4];
            ldmatrix_x4(r, at + n * 8 * DEPTH);
            words[n][0] = r[0], words[n][1] = r[1];
            words[n + 1][0] = r[2], words[n + 1][1] = r[3];
        }
    }
    static DEVICE void widened(u32 (&b)[2], const u32 (&words)[WORDS]) { b[0] = words[0], b[1] = words[1]; }
};

// e4m3, which has half the bytes. ldmatrix returns four neighbouring bytes of an output to a lane, and
// `widen` makes one pair of the even bytes and one of the odd bytes. These pairs are the inputs of
// Bf16Weights, because src/device/gpu/ops/matrix.rs deals each 16 inputs of a row: byte 4 i + j is input
// 2 i + j / 2 of the lower eight if j is even, of the upper eight if j is odd.
struct E4m3Weights {
    using Element = e4m3;
    static constexpr int WORDS = 1;

    template <int DEPTH>
    static DEVICE u32 place(u32 first_row, u32 lane) {
        return TileRows<e4m3, DEPTH>::place(first_row + lane, 0);
    }
    template <int DEPTH, int COLUMNS>
    static DEVICE void load(u32 (&words)[COLUMNS][WORDS], const e4m3* at) {
        static_assert(COLUMNS == 2 || COLUMNS == 4);
        u32 r[COLUMNS];
        if constexpr (COLUMNS == 4) {
            ldmatrix_x4(r, at);
        } else {
            ldmatrix_x2(r, at);
        }
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n) words[n][0] = r[n];
    }
    static DEVICE void widened(u32 (&b)[2], const u32 (&words)[WORDS]) { widen(words[0], b[0], b[1]); }
};
