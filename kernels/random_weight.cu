// Random weights for measurements, generated on the device: copying a pair of 70 GB from the host would take
// minutes.
//
// Bytes: the weight is written once.
#include "e4m3.cuh"

struct RandomWeightParams {
    void* out;  // [elements]
    u64 elements;
    u64 seed;
    float bound;   // numbers are uniform in -bound..bound; 0 for a vector
    float offset;  // added to every number; 1 for a vector
};
MIRRORED(RandomWeightParams);

// A number in -1..1 that depends on seed and index alone, by the finalizer of splitmix64.
DEVICE float uniform(u64 seed, u64 index) {
    u64 z = seed + index * 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return float((z ^ (z >> 31)) >> 40) * (1.0f / 8388608.0f) - 1.0f;
}

template <class T>
DEVICE void random_weight(const RandomWeightParams& p) {
    T* const out = static_cast<T*>(p.out);
    const u64 stride = u64(gridDim.x) * blockDim.x;
    for (u64 i = u64(blockIdx.x) * blockDim.x + threadIdx.x; i < p.elements; i += stride) {
        // Weights of f32 are rounded to bf16 too, so that they equal those of the CPU.
        out[i] = from_float<T>(to_float(from_float<bf16>(fmaf(p.bound, uniform(p.seed, i), p.offset))));
    }
}

// PRECOND: any one-dimensional grid and block.
KERNEL(random_weight_bf16, RandomWeightParams, 256, 1) { random_weight<bf16>(p); }
KERNEL(random_weight_f32, RandomWeightParams, 256, 1) { random_weight<float>(p); }
KERNEL(random_weight_e4m3, RandomWeightParams, 256, 1) { random_weight<e4m3>(p); }
