// Rows: the few consecutive numbers of one that a thread holds, as floats, and sums over a block.
#pragma once

#include "prelude.cuh"

template <int N>
struct Floats {
    float v[N];

    DEVICE float& operator[](int i) { return v[i]; }
    DEVICE float operator[](int i) const { return v[i]; }
};

// How many T one access of 16 bytes carries.
template <class T>
constexpr int VECTOR = 16 / sizeof(T);

// PRECOND: `at` is aligned to N numbers, at most 16 bytes.
template <int N, class T>
DEVICE Floats<N> load_floats(const T* at) {
    const Vec<T, N> vec = load_vec<N>(at);
    Floats<N> x;
#pragma unroll
    for (int i = 0; i < N; i++) x[i] = to_float(vec.v[i]);
    return x;
}

// PRECOND: as of load_floats.
template <class T, int N>
DEVICE void store_floats(T* at, const Floats<N>& x) {
    Vec<T, N> vec;
#pragma unroll
    for (int i = 0; i < N; i++) vec.v[i] = from_float<T>(x[i]);
    store_vec(at, vec);
}

// The same sum in every thread, in an order that depends on the size of the block alone.
// PRECOND: whole warps, 32 at most; `of_warps` is room in shared memory for a float a warp, which the block
// has not used since its last barrier.
DEVICE float block_sum(float x, float* of_warps) {
    const u32 lane = threadIdx.x % 32;
    x = warp_sum(x);
    if (lane == 0) of_warps[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_sum(lane < blockDim.x / 32 ? of_warps[lane] : 0.0f);
}
