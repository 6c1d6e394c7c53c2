// Attention of spans of one token, whose time is the reading of keys and values. A block takes one key/value
// head of one sequence and one split of its context. The query heads that share the head are the rows of a
// tensor core's tile, so that keys and values are read once. Each warp streams its own tiles through its own
// part of shared memory.
//
// Splits begin at multiples of SPLIT and are summed in their order, so that neither the batch nor the number
// of splits of its longest row changes a bit. 256 tokens of a head of 128 are 128 KiB. That is enough for a
// block to spend its time streaming, and few enough that 8 heads of one context of 4K fill a GPU. The result
// of a split is small beside it. The last block of a row and head to be done adds the splits.
#pragma once

#include "rows.cuh"

constexpr u32 SPLIT = 256;
constexpr u32 DECODE_ROWS = 16;

// The splits of the context that a span's last token sees.
struct Splits {
    DEVICE Splits(const AttentionParams& p, const SpanWords& span)
        : position(span.context - 1), from(first_seen(position, p.window)), first(from / SPLIT) {
        count = position / SPLIT - first + 1;
    }

    u32 position;  // the token's position
    u32 from;      // the first position that the token sees
    u32 first;     // the split of that position
    u32 count;     // the number of splits
};

DEVICE void store_scaled(bf16* to, const Vec<float, 4>& out, float scale) {
    store_vec(reinterpret_cast<u32*>(to), Vec<u32, 2>{{pack_bf16(out.v[0] * scale, out.v[1] * scale),
                                                       pack_bf16(out.v[2] * scale, out.v[3] * scale)}});
}

// The result of one split of the block's span for one query head: the greatest product in units of log2, the
// sum of weights, two unused floats, and the sums of weighted values [head_dim].
DEVICE float* partial(const AttentionParams& p, u32 split, u32 query_head) {
    const u64 heads = u64(p.kv_heads) * p.group, index = u64(blockIdx.y) * gridDim.z + split;
    return p.partials + (index * heads + query_head) * (p.head_dim + 4);
}

template <class T, int DIM>
struct Decode {
    static constexpr int WARPS = DIM <= 128 ? 4 : 2;
    static constexpr int THREADS = WARPS * 32;
    static constexpr int KEYS = 16;  // of a warp's tile
    // Tiles that a warp has in flight, about equally many bytes in either format.
    static constexpr int STAGES = IS_SCALED<T> ? 4 : DIM <= 96 ? 3 : 2;
    // Whether the registers hold the queries over all tiles.
    static constexpr bool KEEPS_QUERIES = DIM <= 128;
    static constexpr int TILES = SPLIT / (KEYS * WARPS);  // of one warp in a split
    static constexpr int MERGED_PITCH = DIM + 8;          // floats; rows are eight banks apart
    using Rows = SharedRows<bf16, DIM>;                   // of the queries
    using Tile = KeyTile<T, DIM, KEYS>;
    using Mine = QueryRows<T, DIM, 1>;
    static constexpr int STREAM = STAGES * Tile::BYTES;  // bytes of a warp's part of shared memory
    static_assert(DECODE_ROWS * MERGED_PITCH * sizeof(float) <= STREAM, "the sums fit into the warp's part");

    unsigned char* streams;  // [WARPS, STAGES] tiles; the warps' sums at the end
    bf16* queries;           // [DECODE_ROWS, DIM]
    u32* key_rows;           // [SPLIT]
    float* tops;             // [WARPS, DECODE_ROWS]
    float* sums;             // [WARPS, DECODE_ROWS]

    DEVICE explicit Decode(unsigned char* shared)
        : streams(shared),
          queries(reinterpret_cast<bf16*>(streams + WARPS * STREAM)),
          key_rows(reinterpret_cast<u32*>(queries + DECODE_ROWS * Rows::PITCH)),
          tops(reinterpret_cast<float*>(key_rows + SPLIT)),
          sums(tops + WARPS * DECODE_ROWS) {}

    DEVICE void run(const AttentionParams& p) const {
        const SpanWords span = p.spans[p.first_span + blockIdx.y];
        if (span.tokens != 1 || span.context == 0) return;
        const Splits splits(p, span);
        if (blockIdx.z >= splits.count) return;

        // Several blocks share a group that is larger than a tile.
        const u32 parts = (p.group + DECODE_ROWS - 1) / DECODE_ROWS;
        const u32 head = blockIdx.x / parts, in_group = blockIdx.x % parts * DECODE_ROWS;
        const u32 first_head = head * p.group + in_group, rows = min(p.group - in_group, DECODE_ROWS);
        const u32 start = (splits.first + blockIdx.z) * SPLIT;
        const u32 first = max(start, splits.from), last = min(start + SPLIT - 1, splits.position);

        load_queries(p, span, first_head, rows);
        const Keys at{p, span.first_block, head, first, last};
#pragma unroll
        for (u32 i = 0; i < SPLIT; i += THREADS) key_rows[i + threadIdx.x] = at.row(start + i + threadIdx.x);
        __syncthreads();

        Mine mine;
        mine.clear();
        stream(p, at, start, mine);
        mine.finish();
        leave_sums(mine);
        __syncthreads();
        merge(p, span, splits.count, first_head, rows);
        if (splits.count > 1 && is_last(p, splits.count)) add_splits(p, span, splits.count, first_head, rows);
    }

    DEVICE void load_queries(const AttentionParams& p, const SpanWords& span, u32 first_head,
                             u32 rows) const {
        const u64 width = u64(p.kv_heads) * (p.group + 2);
        const bf16* from = static_cast<const bf16*>(p.qkv) + (span.first_token * width + first_head) * DIM;
        for (u32 i = threadIdx.x; i < DECODE_ROWS * DIM / 16; i += THREADS) {
            const u32 row = i / (DIM / 16), group = i % (DIM / 16);
            load_query<T, DIM>(queries, row, group, from + row * DIM, row < rows);
        }
    }

    // Processes the warp's tiles, every WARPS-th one, of the split that begins at `start`.
    DEVICE void stream(const AttentionParams& p, const Keys& at, u32 start, Mine& mine) const {
        const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        unsigned char* own = streams + warp * STREAM;
        const auto first_key = [&](u32 tile) { return (tile * WARPS + warp) * KEYS; };
        const auto is_seen = [&](u32 tile) {
            const u32 key = start + first_key(tile);
            return tile < TILES && key <= at.last && key + KEYS > at.first;
        };
        const auto keys_of = [&](u32 tile) { return Tile(own + tile % STAGES * Tile::BYTES); };
        const auto is_whole = [&](u32 tile) {
            const u32 key = start + first_key(tile);
            return key >= at.first && key + KEYS - 1 <= at.last;
        };
        const Copier<T, DIM, KEYS, 32> copier(p, at.to_value(), lane);
        const bool has_runs = p.block_size % LONGEST_RUN == 0;
        const auto ask = [&](u32 tile) {
            if (is_seen(tile))
                copier.template copy<Planes::BOTH>(keys_of(tile), key_rows + first_key(tile),
                                                   has_runs && is_whole(tile));
            cp_async_commit();
        };

#pragma unroll 1
        for (u32 tile = 0; tile < STAGES; ++tile) ask(tile);
        u32 kept[KEEPS_QUERIES ? DIM / 16 : 1][4];
        if constexpr (KEEPS_QUERIES) {
#pragma unroll
            for (int k = 0; k < DIM / 16; ++k) load_operand<DIM>(kept[k], queries, k, lane);
        }
#pragma unroll 1
        for (u32 tile = 0; tile < TILES; ++tile) {
            cp_async_wait<STAGES - 1>();
            __syncwarp();
            if (is_seen(tile)) {
                const u32 key = start + first_key(tile);
                const Tile keys = keys_of(tile);
                float s[1][KEYS / 8][4];
                if constexpr (KEEPS_QUERIES) {
                    mine.template products<KEYS, DIM / 16>(
                        s, [&](u32(&q)[4], int, int k) { memcpy(q, kept[k], sizeof q); }, keys, lane);
                } else {
                    mine.template products<KEYS, 4>(
                        s, [&](u32(&q)[4], int, int k) { load_operand<DIM>(q, queries, k, lane); }, keys,
                        lane);
                }
                if (!is_whole(tile)) {
                    const u32 from = at.first, to = at.last;
                    mine.template hide<KEYS>(s, lane, [=](u32) {
                        return [=](u32 i) { return key + i >= from && key + i <= to; };
                    });
                }
                mine.template weigh<KEYS>(s, p.scale);
                u32 packed[1][KEYS / 16][4];
                mine.template pack<KEYS>(packed, s, keys, lane);
                mine.template add<KEYS>(packed, keys, lane);
            }
            if (STAGES < TILES) {
                __syncwarp();
                ask(tile + STAGES);
            } else {
                cp_async_commit();  // of nothing: the wait above counts one group a tile
            }
        }
    }

    // A row of sums in the warp's part of shared memory, which replaces the tiles.
    DEVICE float* merged(u32 warp, u32 row) const {
        return reinterpret_cast<float*>(streams + warp * STREAM) + row * MERGED_PITCH;
    }

    DEVICE void leave_sums(const Mine& mine) const {
        const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const u32 row = half * 8 + lane / 4;
            if (lane % 4 == 0) {
                tops[warp * DECODE_ROWS + row] = mine.top[0][half];
                sums[warp * DECODE_ROWS + row] = mine.sum[0][half];
            }
#pragma unroll
            for (int d = 0; d < DIM / 8; ++d)
                store_vec(merged(warp, row) + Mine::column(d, lane), mine.pair(0, half, d));
        }
    }

    // Adds the warps' sums in their order. Stores the output, or a partial result if there are several
    // splits.
    DEVICE void merge(const AttentionParams& p, const SpanWords& span, u32 splits, u32 first_head,
                      u32 rows) const {
        for (u32 i = threadIdx.x; i < rows * (DIM / 4); i += THREADS) {
            const u32 row = i / (DIM / 4), column = i % (DIM / 4) * 4;
            float top = -INFINITY;
            for (u32 warp = 0; warp < WARPS; ++warp) top = fmaxf(top, tops[warp * DECODE_ROWS + row]);
            const float base = top == -INFINITY ? 0 : top * p.scale;
            float sum = 0;
            Vec<float, 4> out = {};
            for (u32 warp = 0; warp < WARPS; ++warp) {
                const u32 at = warp * DECODE_ROWS + row;
                const float factor = exp2_approx(tops[at] * p.scale - base);
                const Vec<float, 4> part = load_vec<4>(merged(warp, row) + column);
                sum = fmaf(sums[at], factor, sum);
                for (int e = 0; e < 4; ++e) out.v[e] = fmaf(part.v[e], factor, out.v[e]);
            }
            if (splits == 1) {
                store_scaled(output(p, span, first_head + row) + column, out, 1.0f / sum);
            } else {
                float* left = partial(p, blockIdx.z, first_head + row);
                if (column == 0) store_vec(left, Vec<float, 2>{{base, sum}});
                store_vec(left + 4 + column, out);
            }
        }
    }

    static DEVICE bf16* output(const AttentionParams& p, const SpanWords& span, u32 query_head) {
        return static_cast<bf16*>(p.out) + (u64(span.first_token) * p.kv_heads * p.group + query_head) * DIM;
    }

    // Whether all other blocks of this span and head have left their results, which this block may read then.
    DEVICE bool is_last(const AttentionParams& p, u32 splits) const {
        u32& before = key_rows[0];  // the number of splits whose results were there before
        __syncthreads();
        if (threadIdx.x == 0) {
            u32* counter = p.counters + blockIdx.y * gridDim.x + blockIdx.x;
            __threadfence();
            before = atomicAdd(counter, 1u);
            __threadfence();
            if (before == splits - 1) *counter = 0;  // for the next launch
        }
        __syncthreads();
        return before == splits - 1;
    }

    // Adds the results of the splits in their order.
    DEVICE void add_splits(const AttentionParams& p, const SpanWords& span, u32 splits, u32 first_head,
                           u32 rows) const {
        for (u32 i = threadIdx.x; i < rows * (DIM / 4); i += THREADS) {
            const u32 query_head = first_head + i / (DIM / 4), column = i % (DIM / 4) * 4;
            float base = -INFINITY;
#pragma unroll 4
            for (u32 split = 0; split < splits; ++split) base = fmaxf(base, *partial(p, split, query_head));
            float sum = 0;
            Vec<float, 4> out = {};
#pragma unroll 4
            for (u32 split = 0; split < splits; ++split) {
                const float* left = partial(p, split, query_head);
                const Vec<float, 2> base_and_sum = load_vec<2>(left);
                const Vec<float, 4> part = load_vec<4>(left + 4 + column);
                const float factor = exp2_approx(base_and_sum.v[0] - base);
                sum = fmaf(base_and_sum.v[1], factor, sum);
                for (int e = 0; e < 4; ++e) out.v[e] = fmaf(part.v[e], factor, out.v[e]);
            }
            store_scaled(output(p, span, query_head) + column, out, 1.0f / sum);
        }
    }
};
