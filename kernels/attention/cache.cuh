// The parameters of the attention kernels, and the places of a sequence's keys and values in the paged cache.
#pragma once

#include "../e4m3.cuh"
#include "../step.cuh"

struct AttentionParams {
    const void* qkv;         // [tokens, kv_heads * (group + 2), head_dim]: queries, then keys, then values
    const void* cache;       // [blocks, 2, kv_heads, block_size, head_dim]: a block's keys, then its values
    const float* scales;     // [blocks, 2, kv_heads, block_size]: of a cache of e4m3; null for others
    void* out;               // [tokens, kv_heads * group, head_dim]
    const SpanWords* spans;  // [spans]
    const u32* prefills;     // [prefills]: the spans of the prefill kernel: those of several tokens, or all
    const u32* blocks;       // [blocks of all spans]: the spans' block tables
    float* partials;         // [spans, splits, kv_heads * group, head_dim + 4]: results of a launch's splits
    u32* counters;           // [spans, key/value heads and parts]: splits whose results are there; else 0
    u32 kv_heads;
    u32 group;  // number of query heads that share a key/value head
    u32 head_dim;
    u32 block_size;
    u32 window;      // number of positions that a token sees, its own included; NONE: all
    float scale;     // factor of the products of queries and keys, times log2(e)
    u32 first_span;  // decode: the span of the launch's first blocks
    u32 unused;
};
MIRRORED(AttentionParams);

// The first position that a token at `position` sees.
DEVICE u32 first_seen(u32 position, u32 window) { return position < window ? 0 : position - window + 1; }

// Positions first..=last of one key/value head of one sequence. Places in the cache are counted in rows of
// head_dim numbers.
struct Keys {
    const AttentionParams& p;
    u32 first_block;
    u32 head;
    u32 first, last;

    DEVICE bool holds(u32 position) const { return position >= first && position <= last; }
    // The row of the key of a position. Positions outside of the range have the row of the nearest one
    // inside, so that tiles can be copied whole: hidden products have weight 0, and no numbers of others are
    // read.
    DEVICE u32 row(u32 position) const {
        const u32 inside = min(max(position, first), last), index = inside / p.block_size;
        return (p.blocks[first_block + index] * 2 * p.kv_heads + head) * p.block_size +
               (inside - index * p.block_size);
    }
    // The number of rows from a key to its value.
    DEVICE u32 to_value() const { return p.kv_heads * p.block_size; }
};
