// The weighted sum of the branches' outputs for each row of a mixture.
//
// Bytes a row: `active` rows of x are read, one row is written.
#include "row.cuh"
#include "step.cuh"

struct WeightedSumParams {
    const void* x;         // [rows * active, width]: the outputs by place
    const u32* slots;      // [rows]: NONE in rows that are padding
    const float* weights;  // [rows, active]
    const u32* places;     // [rows, active]
    void* out;             // [rows, width]
    u32 width;
    u32 active;  // branches of a row
};
MIRRORED(WeightedSumParams);

// The sum is in f32, in the order of the row's choices.
template <class T, int N>
DEVICE void weighted_sum_row(const WeightedSumParams& p) {
    const T* const x = static_cast<const T*>(p.x);
    T* const out = static_cast<T*>(p.out) + u64(blockIdx.x) * p.width;
    const float* const weights = p.weights + u64(blockIdx.x) * p.active;
    const u32* const places = p.places + u64(blockIdx.x) * p.active;
    const u32 first = (blockIdx.y * blockDim.x + threadIdx.x) * N, stride = gridDim.y * blockDim.x * N;
    for (u32 i = first; i < p.width; i += stride) {
        Floats<N> sum = {};
#pragma unroll 4
        for (u32 choice = 0; choice < p.active; ++choice) {
            const float weight = weights[choice];
            const Floats<N> term = load_floats<N>(x + u64(places[choice]) * p.width + i);
#pragma unroll
            for (int j = 0; j < N; j++) sum[j] = fmaf(weight, term[j], sum[j]);
        }
        store_floats(out + i, sum);
    }
}

template <class T>
DEVICE void weighted_sum(const WeightedSumParams& p) {
    if (p.slots[blockIdx.x] == NONE) return;
    if (p.width % VECTOR<T> == 0) {
        weighted_sum_row<T, VECTOR<T>>(p);
    } else {
        weighted_sum_row<T, 1>(p);
    }
}

// PRECOND: blockIdx.x is the row; blockIdx.y and the threads share its columns; x and out aligned to 16
// bytes.
KERNEL(weighted_sum_bf16, WeightedSumParams, 256, 1) { weighted_sum<bf16>(p); }
KERNEL(weighted_sum_f32, WeightedSumParams, 256, 1) { weighted_sum<float>(p); }
