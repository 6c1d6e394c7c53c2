// A warp's query rows against tiles of keys and values on tensor cores: S = Q K^T, softmax as it goes along
// (Milakov and Gimelshein 2018), O = P V (the tiling of FlashAttention, Dao et al. 2022).
//
// Fragments, as PTX lays out mma.m16n8k16: of a 16 x 8 tile of S or O a lane holds row lane / 4, columns
// 2 (lane % 4) + {0, 1} in registers 0 and 1, and row lane / 4 + 8 of the same columns in 2 and 3. The same
// registers, rounded and packed, are the left operand of the next product: P never leaves them.
#pragma once

#include "cache.cuh"

// Rows of DIM bf16 in shared memory, made of 16-byte chunks. The eight rows that ldmatrix reads at once must
// lie in different banks: chunks are permuted by the row where a row fills all banks, rows are padded by a
// chunk elsewhere.
template <int DIM>
struct SharedRows {
    static constexpr bool PERMUTED = DIM % 64 == 0;
    static constexpr int CHUNKS = DIM / 8;
    static constexpr int PITCH = PERMUTED ? DIM : DIM + 8;  // elements

    static DEVICE bf16* chunk(bf16* rows, u32 row, u32 chunk) {
        return rows + row * PITCH + (PERMUTED ? chunk ^ (row % 8) : chunk) * 8;
    }
    static DEVICE const bf16* chunk(const bf16* rows, u32 row, u32 chunk) {
        return SharedRows::chunk(const_cast<bf16*>(rows), row, chunk);
    }
};

// Asks for the keys and values at `rows[KEYS]` of the cache, zeros where there is NONE: weighted by nothing,
// they must not be NaN either. `thread` of THREADS.
template <int DIM, int KEYS, int THREADS>
DEVICE void copy_keys(bf16* keys, bf16* values, const bf16* cache, const u32* rows, u32 to_value,
                      u32 thread) {
    using Rows = SharedRows<DIM>;
    static_assert(KEYS * Rows::CHUNKS % THREADS == 0, "");
#pragma unroll 2
    for (u32 i = 0; i < KEYS * Rows::CHUNKS / THREADS; ++i) {
        const u32 index = thread + i * THREADS, row = index / Rows::CHUNKS, chunk = index % Rows::CHUNKS;
        const bool valid = rows[row] != NONE;
        const bf16* from = cache + (valid ? u64(rows[row]) * DIM + chunk * 8 : 0);
        cp_async16(Rows::chunk(keys, row, chunk), from, valid);
        cp_async16(Rows::chunk(values, row, chunk), from + (valid ? u64(to_value) * DIM : 0), valid);
    }
}

// M * 16 query rows of a warp.
template <int DIM, int M>
struct QueryRows {
    float out[M][DIM / 8][4];  // weighted values, relative to the greatest product
    float top[M][2];           // the greatest product so far
    float sum[M][2];           // of the weights of this lane's columns

    DEVICE void clear() {
#pragma unroll
        for (int m = 0; m < M; ++m) {
            top[m][0] = top[m][1] = -INFINITY;
            sum[m][0] = sum[m][1] = 0;
#pragma unroll
            for (int d = 0; d < DIM / 8; ++d) out[m][d][0] = out[m][d][1] = out[m][d][2] = out[m][d][3] = 0;
        }
    }

    // s = Q K^T
    template <int KEYS>
    static DEVICE void products(float (&s)[M][KEYS / 8][4], const bf16* queries, const bf16* keys, u32 lane) {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int n = 0; n < KEYS / 8; ++n) s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0;
// Unrolled whole, more of it is loaded ahead than there are registers for.
#pragma unroll 4
        for (int k = 0; k < DIM / 16; ++k) {
            u32 q[M][4];
#pragma unroll
            for (int m = 0; m < M; ++m)
                ldmatrix_x4(q[m], SharedRows<DIM>::chunk(queries, m * 16 + lane % 16, 2 * k + lane / 16));
#pragma unroll
            for (int n = 0; n < KEYS / 16; ++n) {
                u32 b[4];
                const u32 key = n * 16 + lane / 16 * 8 + lane % 8;
                ldmatrix_x4(b, SharedRows<DIM>::chunk(keys, key, 2 * k + lane / 8 % 2));
                const u32 left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
#pragma unroll
                for (int m = 0; m < M; ++m) {
                    mma_bf16(s[m][2 * n], q[m], left);
                    mma_bf16(s[m][2 * n + 1], q[m], right);
                }
            }
        }
    }

    // Leaves only the products that `sees(row, key)` allows; both count from the tile's first.
    template <int KEYS, class Sees>
    static DEVICE void hide(float (&s)[M][KEYS / 8][4], u32 lane, Sees sees) {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const auto sees_key = sees(m * 16 + half * 8 + lane / 4);
#pragma unroll
                for (int n = 0; n < KEYS / 8; ++n)
#pragma unroll
                    for (int e = 0; e < 2; ++e)
                        if (!sees_key(n * 8 + lane % 4 * 2 + e)) s[m][n][half * 2 + e] = -INFINITY;
            }
    }

    // Turns products into weights, and what was summed before into terms of the same base.
    template <int KEYS>
    DEVICE void weigh(float (&s)[M][KEYS / 8][4], float scale) {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float before = top[m][half];
                float now = before;
#pragma unroll
                for (int n = 0; n < KEYS / 8; ++n)
                    now = fmaxf(now, fmaxf(s[m][n][half * 2], s[m][n][half * 2 + 1]));
                now = fmaxf(now, __shfl_xor_sync(0xffffffff, now, 1));
                now = fmaxf(now, __shfl_xor_sync(0xffffffff, now, 2));
                const float base = now == -INFINITY ? 0 : now * scale;
                const float fade = exp2_approx(before * scale - base);
                float added = 0;
#pragma unroll
                for (int n = 0; n < KEYS / 8; ++n)
#pragma unroll
                    for (int e = 0; e < 2; ++e) {
                        float& weight = s[m][n][half * 2 + e];
                        weight = exp2_approx(fmaf(weight, scale, -base));
                        added += weight;
                    }
                top[m][half] = now;
                sum[m][half] = fmaf(sum[m][half], fade, added);
#pragma unroll
                for (int d = 0; d < DIM / 8; ++d) {
                    out[m][d][half * 2] *= fade;
                    out[m][d][half * 2 + 1] *= fade;
                }
            }
    }

    // out += P V
    template <int KEYS>
    DEVICE void add(const float (&weights)[M][KEYS / 8][4], const bf16* values, u32 lane) {
#pragma unroll
        for (int k = 0; k < KEYS / 16; ++k) {
            u32 a[M][4];
#pragma unroll
            for (int m = 0; m < M; ++m) {
                const auto& left = weights[m][2 * k];
                const auto& right = weights[m][2 * k + 1];
                a[m][0] = pack_bf16(left[0], left[1]);
                a[m][1] = pack_bf16(left[2], left[3]);
                a[m][2] = pack_bf16(right[0], right[1]);
                a[m][3] = pack_bf16(right[2], right[3]);
            }
#pragma unroll
            for (int d = 0; d < DIM / 16; ++d) {
                u32 b[4];
                ldmatrix_x4_trans(b, SharedRows<DIM>::chunk(values, k * 16 + lane % 16, 2 * d + lane / 16));
                const u32 left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
#pragma unroll
                for (int m = 0; m < M; ++m) {
                    mma_bf16(out[m][2 * d], a[m], left);
                    mma_bf16(out[m][2 * d + 1], a[m], right);
                }
            }
        }
    }

    // The sums of weights over all columns.
    DEVICE void finish() {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                sum[m][half] += __shfl_xor_sync(0xffffffff, sum[m][half], 1);
                sum[m][half] += __shfl_xor_sync(0xffffffff, sum[m][half], 2);
            }
    }
};
