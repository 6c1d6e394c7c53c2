// Attention without tensor cores, for f32 and for head sizes that the tensor core kernels do not take. A warp
// takes one query row. Its lanes take one key each for the products, and one column each for the weighted
// sums.
#pragma once

#include "cache.cuh"

template <class T, class C>  // activations, cache
struct Plain {
    static constexpr u32 WARPS = 4;
    static constexpr u32 COLUMNS = 8;  // of a lane, so that heads have up to 256
    static constexpr u32 WORD = 16 / sizeof(C);

    float* query;     // [head_dim], of this warp
    float* weights;   // [32], of this warp
    u32* value_rows;  // [32], of this warp

    DEVICE Plain(unsigned char* shared, u32 head_dim, u32 warp)
        : query(reinterpret_cast<float*>(shared) + warp * (head_dim + 64)),
          weights(query + head_dim),
          value_rows(reinterpret_cast<u32*>(weights + 32)) {}

    DEVICE void run(const AttentionParams& p) const {
        const SpanWords span = p.spans[blockIdx.y];
        const u32 lane = threadIdx.x % 32, heads = p.kv_heads * p.group;
        const u32 row = blockIdx.x * WARPS + threadIdx.x / 32, token = row / heads, head = row % heads;
        if (span.context == 0 || token >= span.tokens) return;

        const u64 flat = span.first_token + token;
        const T* from =
            static_cast<const T*>(p.qkv) + (flat * p.kv_heads * (p.group + 2) + head) * p.head_dim;
        for (u32 column = lane; column < p.head_dim; column += 32) query[column] = to_float(from[column]);
        __syncwarp();

        const u32 position = span.context - span.tokens + token, first = first_seen(position, p.window);
        const Keys at{p, span.first_block, head / p.group, first, position};
        const C* cache = static_cast<const C*>(p.cache);
        const auto scale = [&](u32 row) {
            if constexpr (IS_SCALED<C>) return p.scales[row];
            return 1.0f;
        };
        float out[COLUMNS] = {}, top = -INFINITY, sum = 0;
        for (u32 tile = first / 32 * 32; tile <= position; tile += 32) {
            const bool is_seen = at.holds(tile + lane);
            const u32 key = at.row(tile + lane), value = is_seen ? key + at.to_value() : NONE;
            const float product =
                is_seen ? dot(cache + u64(key) * p.head_dim, p.head_dim) * scale(key) * p.scale : -INFINITY;
            const float now = fmaxf(top, warp_max(product)), base = now == -INFINITY ? 0 : now;
            const float fade = exp2f(top - base), weight = exp2f(product - base);
            top = now;
            sum = fmaf(sum, fade, weight);
            weights[lane] = value == NONE ? 0 : weight * scale(value);
            value_rows[lane] = value;
            __syncwarp();
            add(out, fade, cache, p.head_dim, lane);
            __syncwarp();
        }
        const float inverse = 1.0f / warp_sum(sum);
        T* to = static_cast<T*>(p.out) + (flat * heads + head) * p.head_dim;
#pragma unroll
        for (u32 i = 0; i < COLUMNS; ++i)
            if (lane + 32 * i < p.head_dim) to[lane + 32 * i] = from_float<T>(out[i] * inverse);
    }

    DEVICE float dot(const C* key, u32 head_dim) const {
        // Rows whose size is not a multiple of a word are not aligned to words.
        const u32 words = head_dim % WORD ? 0 : head_dim;
        float sum = 0;
        for (u32 column = 0; column < words; column += WORD) {
            const Vec<C, WORD> word = load_vec<WORD>(key + column);
#pragma unroll
            for (u32 i = 0; i < WORD; ++i) sum = fmaf(query[column + i], to_float(word.v[i]), sum);
        }
        for (u32 column = words; column < head_dim; ++column)
            sum = fmaf(query[column], to_float(key[column]), sum);
        return sum;
    }

    // Adds a tile's weighted values. The tile is summed first, so that rounding grows with the number of
    // tiles.
    DEVICE void add(float (&out)[COLUMNS], float fade, const C* cache, u32 head_dim, u32 lane) const {
        float sums[COLUMNS] = {};
        for (u32 key = 0; key < 32; ++key) {
            if (value_rows[key] == NONE) continue;
            const C* value = cache + u64(value_rows[key]) * head_dim;
#pragma unroll
            for (u32 i = 0; i < COLUMNS; ++i)
                if (lane + 32 * i < head_dim)
                    sums[i] = fmaf(weights[key], to_float(value[lane + 32 * i]), sums[i]);
        }
#pragma unroll
        for (u32 i = 0; i < COLUMNS; ++i) out[i] = fmaf(out[i], fade, sums[i]);
    }
};
