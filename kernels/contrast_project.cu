// The amateur's logits of the listed candidates: products of a row's hidden state and a row of the output
// projection.
//
// Floor: the projection's rows of the candidates instead of all rows. 40 candidates (the mean of a small chat
// model at alpha 0.01) in each of 256 rows are a twelfth of a vocabulary of 128,256. This figure is not
// measured on a GPU.
#include "candidates.cuh"
#include "row.cuh"

struct ContrastProjectParams {
    const void* hidden;             // [rows, width]
    const void* projection;         // [vocabulary, width]
    CandidateEntry* entries;        // [counts->entries]
    const CandidateCounts* counts;  // [1], by contrast_candidates
    u32 width;
    u32 unused;
};
MIRRORED(ContrastProjectParams);

// The dot product of two rows, by a warp. The width alone fixes the order of the sum.
template <class T, int N>
DEVICE float dot(const T* x, const T* y, u32 width) {
    constexpr u32 STRIDE = 32 * N, AHEAD = 4;  // accesses in flight
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

// A warp computes one entry at a time. The host does not know the number of entries, so the warps of any grid
// share them.
template <class T>
DEVICE void project(const ContrastProjectParams& p) {
    const u32 warps = blockDim.x / 32, count = p.counts->entries;
    for (u32 index = blockIdx.x * warps + threadIdx.x / 32; index < count; index += gridDim.x * warps) {
        CandidateEntry& entry = p.entries[index];
        const T* const hidden = static_cast<const T*>(p.hidden) + u64(entry.row) * p.width;
        const T* const projection = static_cast<const T*>(p.projection) + u64(entry.id) * p.width;
        const float logit = p.width % VECTOR<T> == 0 ? dot<T, VECTOR<T>>(hidden, projection, p.width)
                                                     : dot<T, 1>(hidden, projection, p.width);
        if (threadIdx.x % 32 == 0) entry.amateur = logit;
    }
}

// PRECOND: a one-dimensional grid of any size; whole warps; hidden and projection aligned to 16 bytes.
KERNEL(contrast_project_bf16, ContrastProjectParams, 128, 8) { project<bf16>(p); }
KERNEL(contrast_project_f32, ContrastProjectParams, 128, 8) { project<float>(p); }
