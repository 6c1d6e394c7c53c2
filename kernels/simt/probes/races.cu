// Races. `a` omits a barrier in each kernel. In index order the missing barrier does no harm.
#include "probe.cuh"

// out[thread] = in[thread - 1] by way of shared memory; thread 0 keeps its own number.
template <class Barrier>
DEVICE void pass_on(const ProbeParams& p, Barrier barrier) {
    const u32 i = threadIdx.x;
    shared<u32>()[i] = in<u32>(p)[i];
    if (!p.a) barrier();
    out<u32>(p)[i] = shared<u32>()[i ? i - 1 : 0];
}

KERNEL(probe_race_of_block, ProbeParams, 1024, 1) {
    pass_on(p, [] { __syncthreads(); });
}

KERNEL(probe_race_of_warp, ProbeParams, 32, 1) {
    pass_on(p, [] { __syncwarp(); });
}

// The sum of in[thread]: each warp writes its sum to shared memory, and the last thread adds these. The
// shuffles keep lanes together, but not warps.
KERNEL(probe_race_of_warps, ProbeParams, 1024, 1) {
    const float sum = warp_sum(in<float>(p)[threadIdx.x]);
    const u32 warp = threadIdx.x / 32, warps = blockDim.x / 32;
    if (threadIdx.x % 32 == 0) shared<float>()[warp] = sum;
    if (!p.a) __syncthreads();
    if (threadIdx.x != blockDim.x - 1) return;
    float total = 0;
    for (u32 i = 0; i < warps; ++i) total += shared<float>()[i];
    *out<float>(p) = total;
}

// Blocks must not rely on their order. If `a`, each block reads the result of the block before it.
KERNEL(probe_race_of_blocks, ProbeParams, 32, 1) {
    u32* mine = out<u32>(p) + blockIdx.x;
    *mine = p.a && blockIdx.x ? mine[-1] + 1 : blockIdx.x;
}
