// Selection by histogram: the place in the order of the candidates at which a sum of measures reaches a
// target.
#pragma once

#include "block.cuh"

// The bits of a number that is not negative; they have the order of the numbers.
DEVICE u64 word_of(double x) {
    u64 word;
    memcpy(&word, &x, sizeof word);
    return word;
}

// A place in the order of the candidates, likeliest first. The key is `word_of(best score - score)`; the
// lower id comes first among equal keys. The default is behind all candidates.
struct Bound {
    u64 key = ~0ull;
    u32 id = ~0u;
    // Whether a candidate is at this place or before it.
    DEVICE bool holds(u64 of_key, u32 of_id) const { return of_key < key || (of_key == key && of_id <= id); }
};

// Adds a measure to a bin's. Adders of low halves learn what carries. The sum is exact in any order, and GPUs
// add 32 bits in shared memory by one instruction, but 64 bits by a loop that fails while others write.
DEVICE void add_measure(u32 bin, u64 measure) {
    const u32 low = u32(measure), before = atomicAdd(&shared().low[bin], low);
    const u32 high = u32(measure >> 32) + (before + low < low ? 1 : 0);
    if (high > 0) atomicAdd(&shared().high[bin], high);
}

DEVICE u64 measure_of(u32 bin) { return u64(shared().high[bin]) << 32 | shared().low[bin]; }

// Finds the first bin at which `base` plus the masses up to and including it reach `target`, or BINS, and the
// sum before that bin. PRECOND: called by the block's first warp.
DEVICE void find_bin(u64 base, u64 target) {
    constexpr u32 OWN = BINS / 32;
    const u32 lane = threadIdx.x;
    u64 own = 0;
    for (u32 i = 0; i < OWN; ++i) own += measure_of(lane * OWN + i);
    u64 end = own;
#pragma unroll
    for (u32 delta = 1; delta < 32; delta *= 2) {
        const u64 before = __shfl_up_sync(ALL_LANES, end, delta);
        end += lane >= delta ? before : 0;
    }
    const u32 reach = __ballot_sync(ALL_LANES, base + end >= target);
    if (reach == 0) {
        if (lane == 0) shared().bin = BINS;
    } else if (lane == u32(__ffs(i32(reach)) - 1)) {
        u64 before = base + end - own;
        u32 bin = lane * OWN;
        while (before + measure_of(bin) < target) before += measure_of(bin++);
        shared().bin = bin;
        shared().base = before;
    }
}

// The place at which the measures of the visited items, in the order of keys and ids, reach `target`, or the
// default Bound if they do not. `visit(f)` calls f(key, id, measure) once for each item, from any thread.
//
// The place is found digit by digit, the most significant first. Each digit comes from a histogram of the
// items that share all digits before it.
template <class V>
DEVICE Bound select(u64 target, V visit) {
    constexpr u32 KEY_DIGITS = 8, DIGITS = 12;
    Bound bound = {0, 0};
    u64 base = 0;
    for (u32 digit = 0; digit < DIGITS; ++digit) {
        const bool in_key = digit < KEY_DIGITS;
        const u32 shift = 8 * ((in_key ? KEY_DIGITS : DIGITS) - 1 - digit);
        __syncthreads();  // some threads may still read the last digit's bin
        for (u32 bin = threadIdx.x; bin < BINS; bin += blockDim.x) {
            shared().low[bin] = shared().high[bin] = shared().count[bin] = 0;
        }
        __syncthreads();
        visit([&](u64 key, u32 id, u64 measure) {
            const u64 differs = in_key ? (key ^ bound.key) >> shift : u64((id ^ bound.id) >> shift);
            if (differs >= BINS || (!in_key && key != bound.key)) return;
            const u32 bin = u32(in_key ? key >> shift : id >> shift) % BINS;
            add_measure(bin, measure);
            atomicAdd(&shared().count[bin], 1u);
        });
        __syncthreads();
        if (threadIdx.x < 32) find_bin(base, target);
        __syncthreads();
        const u32 bin = shared().bin;
        if (bin == BINS) return {};
        base = shared().base;
        if (in_key)
            bound.key |= u64(bin) << shift;
        else
            bound.id |= bin << shift;
        if (shared().count[bin] == 1 || digit == DIGITS - 1) {
            // No other item shares these digits, so the digits after them may have any value.
            if (in_key) bound.key |= (1ull << shift) - 1;
            return {bound.key, in_key ? ~0u : bound.id | ((1u << shift) - 1)};
        }
    }
    return bound;
}
