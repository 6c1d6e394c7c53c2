// The amateur's logits of the rows' heads, and no others: each the product of a row's hidden state and a row of the
// output projection.
//
// Floor: the projection's rows of the heads, instead of all. A head of 40 tokens (the mean of a small chat model at
// alpha 0.01) in each of 256 rows is a twelfth of a vocabulary of 128,256. Not measured on metal yet.
#include "heads.cuh"
#include "row.cuh"

struct ContrastProjectParams {
    const void* hidden;        // [rows, width]
    const void* projection;    // [any, width]
    HeadEntry* entries;        // [counts->entries]
    const HeadCounts* counts;  // by contrast_heads
    u32 width;
    u32 unused;
};

// By a warp, in an order that the width fixes.
template <class T, int N>
DEVICE float dot(const T* x, const T* y, u32 width) {
    constexpr u32 STRIDE = 32 * N, AHEAD = 4;  // accesses on their way at once
    float sum = 0;
    const auto add = [&](const Vec<T, N>& a, const Vec<T, N>& b) {
#pragma unroll
        for (int i = 0; i < N; ++i) sum = fmaf(to_float(a.v[i]), to_float(b.v[i]), sum);
    };
    u32 at = threadIdx.x % 32 * N;
    for (; at + (AHEAD - 1) * STRIDE < width; at += AHEAD * STRIDE) {
        Vec<T, N> a[AHEAD], b[AHEAD];
#pragma unroll
        for (u32 i = 0; i < AHEAD; ++i) b[i] = load_vec<N>(y + at + i * STRIDE);
#pragma unroll
        for (u32 i = 0; i < AHEAD; ++i) a[i] = load_vec<N>(x + at + i * STRIDE);
#pragma unroll
        for (u32 i = 0; i < AHEAD; ++i) add(a[i], b[i]);
    }
    for (; at < width; at += STRIDE) add(load_vec<N>(x + at), load_vec<N>(y + at));
    return warp_sum(sum);
}

// A warp an entry. How many there are is not known to whoever launches it, so each warp takes every so manyth.
template <class T>
DEVICE void project(const ContrastProjectParams& p) {
    const u32 warps = blockDim.x / 32, count = p.counts->entries;
    for (u32 index = blockIdx.x * warps + threadIdx.x / 32; index < count; index += gridDim.x * warps) {
        HeadEntry& entry = p.entries[index];
        const T* const hidden = static_cast<const T*>(p.hidden) + u64(entry.row) * p.width;
        const T* const projection = static_cast<const T*>(p.projection) + u64(entry.id) * p.width;
        const float logit = p.width % VECTOR<T> == 0 ? dot<T, VECTOR<T>>(hidden, projection, p.width)
                                                     : dot<T, 1>(hidden, projection, p.width);
        if (threadIdx.x % 32 == 0) entry.amateur = logit;
    }
}

// PRECOND: any grid of one dimension; whole warps; hidden and projection aligned to 16 bytes.
KERNEL(contrast_project_bf16, ContrastProjectParams, 128, 8) { project<bf16>(p); }
KERNEL(contrast_project_f32, ContrastProjectParams, 128, 8) { project<float>(p); }
