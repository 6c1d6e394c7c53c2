// A kernel as others are, to be timed: the index of each row's greatest value, the lowest of equals.
#include "prelude.cuh"

struct ArgmaxParams {
    const float* x;  // [rows, width]
    u32* out;        // [rows]
    u32 rows, width;
};

struct Candidate {
    float value;
    u32 index;
};

DEVICE Candidate better(Candidate a, Candidate b) {
    const bool second = b.value > a.value || (b.value == a.value && b.index < a.index);
    return second ? b : a;
}

DEVICE Candidate best_of_warp(Candidate mine) {
    for (int flip = 16; flip > 0; flip /= 2) {
        const Candidate other{__shfl_xor_sync(0xffffffff, mine.value, flip),
                              __shfl_xor_sync(0xffffffff, mine.index, flip)};
        mine = better(mine, other);
    }
    return mine;
}

// PRECOND: a block a row; blockDim.x a multiple of 32, up to 1024; 8 bytes of shared memory a warp.
KERNEL(probe_argmax, ArgmaxParams, 1024, 1) {
    const float* row = p.x + u64(blockIdx.x) * p.width;
    Candidate mine{-INFINITY, 0xffffffff};
    for (u32 i = threadIdx.x; i < p.width; i += blockDim.x) mine = better(mine, {row[i], i});
    mine = best_of_warp(mine);

    const auto of_warps = reinterpret_cast<Candidate*>(shared_memory());
    const u32 warps = blockDim.x / 32, lane = threadIdx.x % 32;
    if (lane == 0) of_warps[threadIdx.x / 32] = mine;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    mine = best_of_warp(lane < warps ? of_warps[lane] : Candidate{-INFINITY, 0xffffffff});
    if (lane == 0) p.out[blockIdx.x] = mine.index;
}
