// A typical kernel, for timing: the index of each row's greatest value, and the lowest of equal ones.
#include "prelude.cuh"

struct ArgmaxParams {
    const float* x;  // [rows, width]
    u32* out;        // [rows]
    u32 rows, width;
};
MIRRORED_BY_TESTS(ArgmaxParams);

struct Best {
    float value;
    u32 index;
};

DEVICE Best better(Best a, Best b) {
    const bool second = b.value > a.value || (b.value == a.value && b.index < a.index);
    return second ? b : a;
}

DEVICE Best best_of_warp(Best mine) {
    for (int flip = 16; flip > 0; flip /= 2) {
        const Best other{__shfl_xor_sync(0xffffffff, mine.value, flip),
                         __shfl_xor_sync(0xffffffff, mine.index, flip)};
        mine = better(mine, other);
    }
    return mine;
}

// PRECOND: one block a row; blockDim.x a multiple of 32, up to 1024; 8 bytes of shared memory a warp.
KERNEL(probe_argmax, ArgmaxParams, 1024, 1) {
    const float* row = p.x + u64(blockIdx.x) * p.width;
    Best mine{-INFINITY, 0xffffffff};
    for (u32 i = threadIdx.x; i < p.width; i += blockDim.x) mine = better(mine, {row[i], i});
    mine = best_of_warp(mine);

    const auto of_warps = reinterpret_cast<Best*>(shared_memory());
    const u32 warps = blockDim.x / 32, lane = threadIdx.x % 32;
    if (lane == 0) of_warps[threadIdx.x / 32] = mine;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    mine = best_of_warp(lane < warps ? of_warps[lane] : Best{-INFINITY, 0xffffffff});
    if (lane == 0) p.out[blockIdx.x] = mine.index;
}
