// A warp's query rows against tiles of keys and values on tensor cores: S = Q K^T, an online softmax (Milakov
// and Gimelshein 2018), and O = P V (the tiling of FlashAttention, Dao et al. 2022).
//
// Fragments have PTX's layout of mma.m16n8k16. Of a 16 x 8 tile of S or O, a lane holds columns 2 (lane % 4)
// + {0, 1} of row lane / 4 in registers 0 and 1, and of row lane / 4 + 8 in registers 2 and 3. The same
// registers, rounded and packed, are the left operand of the next product, so P never leaves the registers.
#pragma once

#include "tiles.cuh"

// The right operands of products with 16 keys from key `n * 16` and 16 columns from `k * 16`: `left` for the
// first eight keys, `right` for the others. A register of e4m3 has four columns of a key; load_query explains
// their order.
template <int DIM>
DEVICE void load_keys(u32 (&left)[2], u32 (&right)[2], const bf16* keys, u32 n, u32 k, u32 lane) {
    u32 b[4];
    const u32 key = n * 16 + lane / 16 * 8 + lane % 8;
    ldmatrix_x4(b, SharedRows<bf16, DIM>::chunk(keys, key, 2 * k + lane / 8 % 2));
    left[0] = b[0], left[1] = b[1], right[0] = b[2], right[1] = b[3];
}
template <int DIM>
DEVICE void load_keys(u32 (&left)[2], u32 (&right)[2], const e4m3* keys, u32 n, u32 k, u32 lane) {
    u32 b[2];
    ldmatrix_x2(b, SharedRows<e4m3, DIM>::chunk(keys, n * 16 + lane % 16, k));
    widen(b[0], left[0], left[1]);
    widen(b[1], right[0], right[1]);
}

// The right operands of products with 16 values from `k * 16` and 16 columns from `d * 16`: `left` for the
// first eight columns, or for the even columns of e4m3.
template <int DIM>
DEVICE void load_values(u32 (&left)[2], u32 (&right)[2], const bf16* values, u32 k, u32 d, u32 lane) {
    u32 b[4];
    ldmatrix_x4_trans(b, SharedRows<bf16, DIM>::chunk(values, k * 16 + lane % 16, 2 * d + lane / 16));
    left[0] = b[0], left[1] = b[1], right[0] = b[2], right[1] = b[3];
}
template <int DIM>
DEVICE void load_values(u32 (&left)[2], u32 (&right)[2], const e4m3* values, u32 k, u32 d, u32 lane) {
    u32 b[2];
    ldmatrix_x2_trans(b, SharedRows<e4m3, DIM>::chunk(values, k * 16 + lane % 16, d));
    widen(b[0], left[0], right[0]);
    widen(b[1], left[1], right[1]);
}

// Copies the query's columns from `group * 16` on to their row of shared memory, or zeros if !valid. The
// columns have the order in which load_keys returns columns of T: for e4m3, the even ones come first.
template <class T, int DIM>
DEVICE void load_query(bf16* queries, u32 row, u32 group, const bf16* from, bool valid) {
    const u32* at = reinterpret_cast<const u32*>(from + group * 16);
    Vec<u32, 4> first = {}, second = {};
    if (valid) first = load_vec<4>(at), second = load_vec<4>(at + 4);
    if constexpr (IS_SCALED<T>) {
        Vec<u32, 4> even, odd;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const u32 a = i < 2 ? first.v[2 * i] : second.v[2 * i - 4];
            const u32 b = i < 2 ? first.v[2 * i + 1] : second.v[2 * i - 3];
            even.v[i] = (a & 0xffff) | b << 16;
            odd.v[i] = a >> 16 | (b & 0xffff0000);
        }
        first = even, second = odd;
    }
    store_vec(reinterpret_cast<u32*>(SharedRows<bf16, DIM>::chunk(queries, row, 2 * group)), first);
    store_vec(reinterpret_cast<u32*>(SharedRows<bf16, DIM>::chunk(queries, row, 2 * group + 1)), second);
}

// The left operand of products of 16 query rows and 16 columns from `k * 16`.
template <int DIM>
DEVICE void load_operand(u32 (&q)[4], const bf16* queries, u32 k, u32 lane) {
    ldmatrix_x4(q, SharedRows<bf16, DIM>::chunk(queries, lane % 16, 2 * k + lane / 16));
}

// M * 16 query rows of a warp, and their outputs over tiles of T.
template <class T, int DIM, int M>
struct QueryRows {
    float out[M][DIM / 8][4];  // weighted values, relative to the greatest product
    float top[M][2];           // the greatest product so far
    float sum[M][2];           // sums of weights over this lane's columns

    DEVICE void clear() {
#pragma unroll
        for (int m = 0; m < M; ++m) {
            top[m][0] = top[m][1] = -INFINITY;
            sum[m][0] = sum[m][1] = 0;
#pragma unroll
            for (int d = 0; d < DIM / 8; ++d) out[m][d][0] = out[m][d][1] = out[m][d][2] = out[m][d][3] = 0;
        }
    }

    // s = Q K^T. `query(q, m, k)` gives the left operand: columns from `k * 16` of the m-th tile of rows.
    // UNROLL tiles of columns are loaded ahead, as the registers allow.
    template <int KEYS, int UNROLL, class Query>
    static DEVICE void products(float (&s)[M][KEYS / 8][4], const Query& query,
                                const KeyTile<T, DIM, KEYS>& tile, u32 lane) {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int n = 0; n < KEYS / 8; ++n) s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0;
#pragma unroll UNROLL
        for (int k = 0; k < DIM / 16; ++k) {
            u32 q[M][4];
#pragma unroll
            for (int m = 0; m < M; ++m) query(q[m], m, k);
#pragma unroll
            for (int n = 0; n < KEYS / 16; ++n) {
                u32 left[2], right[2];
                load_keys<DIM>(left, right, tile.keys, n, k, lane);
#pragma unroll
                for (int m = 0; m < M; ++m) {
                    mma_bf16(s[m][2 * n], q[m], left);
                    mma_bf16(s[m][2 * n + 1], q[m], right);
                }
            }
        }
#pragma unroll
        for (int n = 0; n < KEYS / 8; ++n) {
            const Vec<float, 2> scale = tile.scale(0, n, lane);
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int i = 0; i < 4; ++i) s[m][n][i] *= scale.v[i % 2];
        }
    }

    // Hides the products that `sees(row)(key)` does not allow. Both indices count from the tile's first.
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

    // Turns products into weights and rescales the sums so far to the same base.
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

    // Rounds weights to the left operands of products with a tile's values. PRECOND: the tile has the values'
    // scales, if its format has scales.
    template <int KEYS>
    static DEVICE void pack(u32 (&packed)[M][KEYS / 16][4], const float (&weights)[M][KEYS / 8][4],
                            const KeyTile<T, DIM, KEYS>& tile, u32 lane) {
#pragma unroll
        for (int n = 0; n < KEYS / 8; ++n) {
            const Vec<float, 2> scale = tile.scale(1, n, lane);
#pragma unroll
            for (int m = 0; m < M; ++m) {
                const auto& of = weights[m][n];
                packed[m][n / 2][n % 2 * 2] = pack_bf16(of[0] * scale.v[0], of[1] * scale.v[1]);
                packed[m][n / 2][n % 2 * 2 + 1] = pack_bf16(of[2] * scale.v[0], of[3] * scale.v[1]);
            }
        }
    }

    // out += P V
    template <int KEYS>
    DEVICE void add(const u32 (&packed)[M][KEYS / 16][4], const KeyTile<T, DIM, KEYS>& tile, u32 lane) {
#pragma unroll
        for (int k = 0; k < KEYS / 16; ++k)
#pragma unroll
            for (int d = 0; d < DIM / 16; ++d) {
                u32 left[2], right[2];
                load_values<DIM>(left, right, tile.values, k, d, lane);
#pragma unroll
                for (int m = 0; m < M; ++m) {
                    mma_bf16(out[m][2 * d], packed[m][k], left);
                    mma_bf16(out[m][2 * d + 1], packed[m][k], right);
                }
            }
    }

    // The first column of the d-th of the DIM / 8 pairs of neighbouring columns of `out` that this lane
    // holds.
    static DEVICE u32 column(int d, u32 lane) {
        return IS_SCALED<T> ? d / 2 * 16 + lane % 4 * 4 + d % 2 * 2 : d * 8 + lane % 4 * 2;
    }
    // The d-th pair of row half * 8 + lane / 4 of the m-th tile.
    DEVICE Vec<float, 2> pair(int m, int half, int d) const {
        if constexpr (IS_SCALED<T>) {
            // Even columns are in one register of products, odd columns in the next.
            const int i = half * 2 + d % 2;
            return {{out[m][d / 2 * 2][i], out[m][d / 2 * 2 + 1][i]}};
        }
        return {{out[m][d][half * 2], out[m][d][half * 2 + 1]}};
    }

    // Completes the sums of weights over all columns.
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
