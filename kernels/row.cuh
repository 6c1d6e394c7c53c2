// Rows of activations: the few consecutive numbers that a thread holds, as floats; sums over a block;
// parameters of a norm.
#pragma once

#include "prelude.cuh"

// The norm of a row or of a head.
struct NormParams {
    const void* weight;  // [width], or [heads, head_dim] if it spans all heads; null for no norm
    float epsilon;
    float weight_offset;  // 1 for Gemma's 1 + weight, else 0
};
MIRRORED(NormParams);

template <int N>
struct Floats {
    float v[N];

    DEVICE float& operator[](int i) { return v[i]; }
    DEVICE float operator[](int i) const { return v[i]; }
};

// Numbers of type T in one access of 16 bytes.
template <class T>
constexpr int VECTOR = 16 / sizeof(T);

// PRECOND: `at` is aligned to N numbers, which are at most 16 bytes.
template <int N, class T>
DEVICE Floats<N> load_floats(const T* at) {
    const Vec<T, N> vec = load_vec<N>(at);
    Floats<N> x;
#pragma unroll
    for (int i = 0; i < N; i++) x[i] = to_float(vec.v[i]);
    return x;
}

// PRECOND: as for load_floats.
template <class T, int N>
DEVICE void store_floats(T* at, const Floats<N>& x) {
    Vec<T, N> vec;
#pragma unroll
    for (int i = 0; i < N; i++) vec.v[i] = from_float<T>(x[i]);
    store_vec(at, vec);
}

// The sum over the block, in every thread. The order depends on the size of the block alone.
//
// PRECOND: whole warps, at most 32; `of_warps` is shared memory for one float a warp, and the block has not
// used it since its last barrier.
DEVICE float block_sum(float x, float* of_warps) {
    const u32 lane = threadIdx.x % 32;
    x = warp_sum(x);
    if (lane == 0) of_warps[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_sum(lane < blockDim.x / 32 ? of_warps[lane] : 0.0f);
}
