// Planted faults, each by thread 5 of block 1. On a GPU their behaviour is undefined: a hang, a trap or wrong
// numbers.
#include "probe.cuh"

DEVICE bool culprit() { return blockIdx.x == 1 && threadIdx.x == 5; }

KERNEL(probe_exit_before_barrier, ProbeParams, 64, 1) {
    if (culprit()) return;
    __syncthreads();
}

KERNEL(probe_barrier_of_some, ProbeParams, 64, 1) {
    if (!culprit()) return;
    __syncthreads();
}

KERNEL(probe_barrier_against_shuffle, ProbeParams, 64, 1) {
    if (culprit()) {
        __syncthreads();
    } else {
        __shfl_xor_sync(all_lanes_mask, threadIdx.x, 1);
    }
}

KERNEL(probe_exit_before_shuffle, ProbeParams, 64, 1) {
    if (culprit()) return;
    __shfl_xor_sync(all_lanes_mask, threadIdx.x, 1);
}

KERNEL(probe_different_collectives, ProbeParams, 64, 1) {
    if (culprit()) {
        __ballot_sync(all_lanes_mask, 1);
    } else {
        __shfl_xor_sync(all_lanes_mask, threadIdx.x, 1);
    }
}

KERNEL(probe_different_masks, ProbeParams, 64, 1) { __syncwarp(culprit() ? 0x0000ffff : all_lanes_mask); }

KERNEL(probe_mask_without_caller, ProbeParams, 64, 1) {
    if (culprit()) __syncwarp(0xffff0000);
}

KERNEL(probe_mask_beyond_warp, ProbeParams, 16, 1) {
    if (culprit()) __syncwarp(1 << 20 | 1 << 5);
}

KERNEL(probe_source_outside_mask, ProbeParams, 64, 1) {
    if (culprit()) __shfl_sync(1 << 5, threadIdx.x, 6);
}

KERNEL(probe_source_outside_width, ProbeParams, 64, 1) {
    __shfl_sync(all_lanes_mask, threadIdx.x, culprit() ? 16 : 0, 16);
}

KERNEL(probe_misaligned_load, ProbeParams, 64, 1) {
    if (culprit()) out<float>(p)[0] = load_vec<4>(in<float>(p) + 1).v[0];
}

KERNEL(probe_misaligned_store, ProbeParams, 64, 1) {
    if (culprit()) store_vec(out<float>(p) + 1, Vec<float, 2>{});
}

KERNEL(probe_misaligned_copy, ProbeParams, 64, 1) {
    if (culprit()) cp_async16(shared<float>() + 2, p.in);
}

KERNEL(probe_misaligned_source, ProbeParams, 64, 1) {
    if (culprit()) cp_async16(shared_memory(), in<float>(p) + 2);
}

KERNEL(probe_copy_past_shared, ProbeParams, 64, 1) {
    if (culprit()) cp_async16(shared_memory() + p.a, p.in);  // `a` is the number of bytes of shared memory
}

KERNEL(probe_misaligned_row, ProbeParams, 64, 1) {
    u32 r[4];
    ldmatrix_x4(r, shared<u16>() + (culprit() ? 4 : 0));
}

KERNEL(probe_row_not_shared, ProbeParams, 64, 1) {
    u32 r[2];
    ldmatrix_x2(r, culprit() ? p.in : shared_memory());
}

KERNEL(probe_mma_of_some, ProbeParams, 64, 1) {
    if (!culprit()) return;
    float d[4] = {};
    const u32 a[4] = {}, b[2] = {};
    mma_bf16(d, a, b);
}

// Only AddressSanitizer sees these reads: in[a], and byte `a` of shared memory.
KERNEL(probe_over_read, ProbeParams, 64, 1) {
    if (culprit()) out<float>(p)[0] = in<float>(p)[p.a];
}

KERNEL(probe_over_read_shared, ProbeParams, 64, 1) {
    if (culprit()) out<u8>(p)[0] = shared_memory()[p.a];
}
