// Attention of spans of several tokens, or of all spans. A block takes a tile of query rows of one key/value
// head; a row is one token and one of the query heads that share the head. The block visits the keys tile by
// tile. It copies a tile's values while it multiplies its keys, and the next tile's keys while it adds the
// values. So shared memory has one tile, and two blocks fit on a multiprocessor.
//
// Tiles of keys begin at multiples of their size in every span, and a tile that a row does not see changes
// nothing in the row. So the way in which a prompt is cut into chunks does not change a bit.
#pragma once

#include "rows.cuh"

template <class T, int DIM>
struct Prefill {
    // With 16 rows a warp, reads of keys and values from shared memory would bound the tensor cores; 32 rows
    // halve these reads. Heads of 256 leave registers for 16 rows only. Heads of 128 leave none for widening
    // 64 keys.
    static constexpr int M = DIM <= 128 ? 2 : 1;
    static constexpr int KEYS = DIM > 128 ? 32 : DIM == 128 && IS_SCALED<T> ? 48 : 64;
    static constexpr int WARPS = 4;
    static constexpr int THREADS = WARPS * 32;
    static constexpr int ROWS = WARPS * M * 16;
    using Rows = SharedRows<bf16, DIM>;  // of the queries
    using Tile = KeyTile<T, DIM, KEYS>;
    using Mine = QueryRows<T, DIM, M>;
    static constexpr int PITCH = Rows::PITCH;

    bf16* queries;        // [ROWS, DIM]; the outputs at the end
    unsigned char* tile;  // [Tile::BYTES]: keys and values
    u32* key_rows;        // [2, KEYS]: cache rows of the keys of this tile and the next
    u32* positions;       // [ROWS]; NONE in warps that have no row

    DEVICE explicit Prefill(unsigned char* shared)
        : queries(reinterpret_cast<bf16*>(shared)),
          tile(reinterpret_cast<unsigned char*>(queries + ROWS * PITCH)),
          key_rows(reinterpret_cast<u32*>(tile + Tile::BYTES)),
          positions(key_rows + 2 * KEYS) {}

    DEVICE void run(const AttentionParams& p) const {
        const SpanWords span = p.spans[p.prefills[blockIdx.z]];
        const u32 head = blockIdx.y, rows = span.tokens * p.group;
        // The last tiles see most keys. They come first, so that the longest blocks start first.
        const u32 first_row = (gridDim.x - 1 - blockIdx.x) * ROWS;
        if (first_row >= rows) return;

        const u32 thread = threadIdx.x, lane = thread % 32, warp_row = thread / 32 * M * 16;
        const u32 start = span.context - span.tokens;
        const auto position = [&](u32 row) { return start + min(first_row + row, rows - 1) / p.group; };
        const u32 last = position(ROWS - 1), first = first_seen(position(0), p.window);
        const Keys at{p, span.first_block, head, first, last};
        const Keys later_rows{p, span.first_block, head, 0, last};  // of tiles after the first
        u32 index = first / KEYS;                                   // of the tile

        copy_queries(p, span, head, first_row);
        for (u32 row = thread; row < ROWS; row += THREADS)
            positions[row] = first_row + row / (M * 16) * (M * 16) < rows ? position(row) : NONE;
        for (u32 i = thread; i < 2 * KEYS; i += THREADS)
            key_rows[(index * KEYS + i) % (2 * KEYS)] = at.row(index * KEYS + i);
        __syncthreads();

        const Tile keys(tile);
        const bool has_runs = p.block_size % LONGEST_RUN == 0;
        bool in_runs = has_runs && index * KEYS >= first && index * KEYS + KEYS - 1 <= last;
        const auto copier = [&] { return Copier<T, DIM, KEYS, THREADS>(p, at.to_value(), thread); };
        const auto query = [&](u32(&q)[4], int m, int k) {
            load_operand<DIM>(q, queries + (warp_row + m * 16) * PITCH, k, lane);
        };
        copier().template copy<Planes::KEYS>(keys, key_rows + index % 2 * KEYS, in_runs);
        cp_async_commit();

        Mine mine;
        mine.clear();
        for (; index * KEYS <= last; ++index) {
            const u32 warp_first = positions[warp_row], warp_last = positions[warp_row + M * 16 - 1];
            const u32 first_key = index * KEYS, last_key = first_key + KEYS - 1;
            const bool is_seen =
                warp_first != NONE && first_key <= warp_last && last_key >= first_seen(warp_first, p.window);
            float s[M][KEYS / 8][4];
            u32 packed[M][KEYS / 16][4];

            arrive();
            copier().template copy<Planes::VALUES>(keys, key_rows + index % 2 * KEYS, in_runs);
            cp_async_commit();
            if (is_seen) {
                // A complete unrolling would load more ahead than the registers hold.
                mine.template products<KEYS, 4>(s, query, keys, lane);
                if (last_key > warp_first || first_key < first_seen(warp_last, p.window)) {
                    mine.template hide<KEYS>(s, lane, [&](u32 row) {
                        const u32 position = positions[warp_row + row], from = first_seen(position, p.window);
                        return
                            [=](u32 key) { return first_key + key <= position && first_key + key >= from; };
                    });
                }
                mine.template weigh<KEYS>(s, p.scale);
                if constexpr (!IS_SCALED<T>) mine.template pack<KEYS>(packed, s, keys, lane);
            }

            const u32 later = thread < KEYS ? later_rows.row(first_key + 2 * KEYS + thread) : NONE;
            arrive();
            if (last_key < last) {
                in_runs = has_runs && last_key + KEYS <= last;
                copier().template copy<Planes::KEYS>(keys, key_rows + (index + 1) % 2 * KEYS, in_runs);
                cp_async_commit();
            }
            if (is_seen) {
                if constexpr (IS_SCALED<T>) mine.template pack<KEYS>(packed, s, keys, lane);
                mine.template add<KEYS>(packed, keys, lane);
            }
            // All threads have read these rows before the last barrier, and read them again after the next
            // one.
            if (thread < KEYS) key_rows[index % 2 * KEYS + thread] = later;
        }
        mine.finish();
        store(p, mine);
    }

    // Waits for the block's last copy, and until all threads are done with what the next one replaces.
    static DEVICE void arrive() {
        cp_async_wait<0>();
        __syncthreads();
    }

    DEVICE void copy_queries(const AttentionParams& p, const SpanWords& span, u32 head, u32 first_row) const {
        const u32 width = p.kv_heads * (p.group + 2), rows = span.tokens * p.group;
#pragma unroll 2
        for (u32 i = threadIdx.x; i < ROWS * DIM / 16; i += THREADS) {
            const u32 row = i / (DIM / 16), group = i % (DIM / 16);
            const bool valid = first_row + row < rows;
            const u32 flat = valid ? first_row + row : 0, token = flat / p.group;
            const bf16* from =
                static_cast<const bf16*>(p.qkv) +
                (u64(span.first_token + token) * width + head * p.group + (flat - token * p.group)) * DIM;
            if constexpr (IS_SCALED<T>) {
                load_query<T, DIM>(queries, row, group, from, valid);
            } else {
                cp_async16(Rows::chunk(queries, row, 2 * group), from + group * 16, valid);
                cp_async16(Rows::chunk(queries, row, 2 * group + 1), from + group * 16 + 8, valid);
            }
        }
    }

    // Stores the outputs by way of the warp's own query rows, so that neighbouring lanes write 16 bytes each.
    DEVICE void store(const AttentionParams& p, const Mine& mine) const {
        const u32 lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * M * 16;
        bf16* staged = queries + warp_row * PITCH;
        __syncwarp();
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float inverse = 1.0f / mine.sum[m][half];
                const u32 row = m * 16 + half * 8 + lane / 4;
#pragma unroll
                for (int d = 0; d < DIM / 8; ++d) {
                    const Vec<float, 2> pair = mine.pair(m, half, d);
                    const u32 column = Mine::column(d, lane);
                    *reinterpret_cast<u32*>(Rows::chunk(staged, row, column / 8) + column % 8) =
                        pack_bf16(pair.v[0] * inverse, pair.v[1] * inverse);
                }
            }
        __syncwarp();
        // The span is read again, because registers are too few to keep it over the loop.
        const SpanWords span = p.spans[p.prefills[blockIdx.z]];
        const u32 heads = p.kv_heads * p.group, rows = span.tokens * p.group;
        const u32 head = blockIdx.y, first_row = (gridDim.x - 1 - blockIdx.x) * ROWS;
#pragma unroll 4
        for (u32 i = lane; i < M * 16 * Rows::CHUNKS; i += 32) {
            const u32 row = i / Rows::CHUNKS, chunk = i % Rows::CHUNKS, flat = first_row + warp_row + row;
            if (flat >= rows) break;
            const u32 token = flat / p.group;
            const u64 to = u64(span.first_token + token) * heads + head * p.group + (flat - token * p.group);
            store_vec(static_cast<bf16*>(p.out) + to * DIM + chunk * 8,
                      load_vec<8>(Rows::chunk(staged, row, chunk)));
        }
    }
};
