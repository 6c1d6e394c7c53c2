// What every attention kernel is given, and where a sequence's keys and values lie in the paged cache.
#pragma once

#include "../e4m3.cuh"
#include "../step.cuh"

struct AttentionParams {
    const void* qkv;    // [tokens, kv_heads * (group + 2), head_dim]: the queries, then keys and values
    const void* cache;  // [blocks, 2, kv_heads, block_size, head_dim]: a block's keys, then its values
    const float*
        scales;         // [blocks, 2, kv_heads, block_size]: of the rows of a cache of e4m3; null for others
    void* out;          // [tokens, kv_heads * group, head_dim]
    const Span* spans;  // [spans]
    const u32* prefills;  // [prefills]: the spans of the prefill kernel: those of several tokens, or all
    const u32* blocks;    // the spans' block tables
    float* partials;      // [slots, kv_heads * group, head_dim + 4]: what the splits of long contexts leave
    u32 kv_heads;
    u32 group;  // query heads that share a key/value head
    u32 head_dim;
    u32 block_size;
    u32 window;   // how many positions a token sees, its own included; NONE: all
    float scale;  // of the products of queries and keys, times log2(e)
};

// The first position that a token at `position` sees.
DEVICE u32 first_seen(u32 position, u32 window) { return position < window ? 0 : position - window + 1; }

// One key/value head of one sequence: positions `first..=last` of it. Places in the cache are counted in rows
// of head_dim numbers.
struct Keys {
    const AttentionParams& p;
    u32 first_block;
    u32 head;
    u32 first, last;

    // Where the key of a position lies; NONE outside of the range.
    DEVICE u32 row(u32 position) const {
        if (position < first || position > last) return NONE;
        const u32 index = position / p.block_size;
        return (p.blocks[first_block + index] * 2 * p.kv_heads + head) * p.block_size +
               (position - index * p.block_size);
    }
    // How many rows behind a key its value lies.
    DEVICE u32 to_value() const { return p.kv_heads * p.block_size; }
};
