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
    float sum = 0;
#pragma unroll 4
    for (u32 i = threadIdx.x % 32 * N; i < width; i += 32 * N) {
        const Floats<N> a = load_floats<N>(x + i), b = load_floats<N>(y + i);
#pragma unroll
        for (int j = 0; j < N; ++j) sum = fmaf(a[j], b[j], sum);
    }
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
