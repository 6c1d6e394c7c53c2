// Shared memory of a block that samples one row, and reductions over a warp and over the block.
#pragma once

#include "params.cuh"

// Capacity of the list in shared memory. If there are more candidates, each pass reads the tiles again.
constexpr u32 LISTED = 2048;
constexpr u32 BINS = 256;
constexpr u32 MAX_WARPS = 8;

struct Shared {
    u64 scratch[MAX_WARPS * 4];  // block_reduce: one value of each warp
    u32 low[BINS], high[BINS];   // select: the histogram's measures, in halves
    u32 count[BINS];             // select: the histogram's counts
    u64 base;                    // select: the measure before `bin`; or the row's first entry
    u32 bin;                     // select: the bin that was found
    u32 listed;                  // the number of candidates
    u32 id[LISTED];              // the candidates in any order, if they fit
    float expert[LISTED];        // their logits
    float amateur[LISTED];
};
static_assert(sizeof(Shared) == 27920);  // SHARED_BYTES of src/device/gpu/ops/sample.rs

DEVICE Shared& shared() { return *reinterpret_cast<Shared*>(shared_memory()); }

// Exchanges a value with another lane, 8 bytes at a time, for types that shuffles do not take.
template <class T>
DEVICE T shuffle_xor(const T& x, int flip) {
    static_assert(sizeof(T) % 8 == 0);
    u64 words[sizeof(T) / 8];
    memcpy(words, &x, sizeof x);
#pragma unroll
    for (u64& word : words) word = __shfl_xor_sync(ALL_LANES, word, flip);
    T other;
    memcpy(&other, words, sizeof x);
    return other;
}

// The combination of a warp's values, in every lane. PRECOND: `combine` is commutative.
template <class T, class F>
DEVICE T warp_reduce(T x, F combine) {
#pragma unroll
    for (int flip = 16; flip > 0; flip /= 2) x = combine(x, shuffle_xor(x, flip));
    return x;
}

// The combination of the block's values, in every thread. PRECOND: `combine` is commutative.
template <class T, class F>
DEVICE T block_reduce(T x, F combine) {
    static_assert(sizeof(T) <= 32);
    x = warp_reduce(x, combine);
    if (blockDim.x == 32) return x;
    T* scratch = reinterpret_cast<T*>(shared().scratch);
    __syncthreads();  // some threads may still read the last reduction's values
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    x = scratch[0];
    for (u32 warp = 1; warp < blockDim.x / 32; ++warp) x = combine(x, scratch[warp]);
    return x;
}

DEVICE u64 add(u64 a, u64 b) { return a + b; }
DEVICE double least_of(double a, double b) { return fmin(a, b); }
