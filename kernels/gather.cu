// Gathers the rows whose logits are wanted.
//
// Bytes an output: its row is read and written once.
#include "row.cuh"
#include "step.cuh"

struct GatherParams {
    const u32* logits_indices;  // [outputs]: rows of x
    const void* x;              // [rows, width]
    void* out;                  // [outputs, width]
    u32 width;
    u32 unused;
};
MIRRORED(GatherParams);

template <class T, int N>
DEVICE void gather_row(const T* from, T* to, u32 width) {
    const u32 first = (blockIdx.y * blockDim.x + threadIdx.x) * N, stride = gridDim.y * blockDim.x * N;
    for (u32 i = first; i < width; i += stride) store_vec(to + i, load_vec<N>(from + i));
}

// out[output] = x[logits_indices[output]]
template <class T>
DEVICE void gather(const GatherParams& p) {
    const T* const from = static_cast<const T*>(p.x) + u64(p.logits_indices[blockIdx.x]) * p.width;
    T* const to = static_cast<T*>(p.out) + u64(blockIdx.x) * p.width;
    if (p.width % VECTOR<T> == 0) {
        gather_row<T, VECTOR<T>>(from, to, p.width);
    } else {
        gather_row<T, 1>(from, to, p.width);
    }
}

// PRECOND: blockIdx.x is the output; blockIdx.y and the threads share its columns; x and out aligned to 16
// bytes; every index is a row of x.
KERNEL(gather_bf16, GatherParams, 256, 1) { gather<bf16>(p); }
KERNEL(gather_f32, GatherParams, 256, 1) { gather<float>(p); }
