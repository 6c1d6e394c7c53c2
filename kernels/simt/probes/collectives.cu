// One kernel for each collective and intrinsic, which the tests compare with its definition.
#include "e4m3.cuh"
#include "probe.cuh"

// out[thread] = {threadIdx, blockIdx, blockDim, gridDim}, for the threads of all blocks, x fastest.
KERNEL(probe_where, ProbeParams, 1024, 1) {
    const u32 block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const u32 thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    u32* mine = out<u32>(p) + 12 * (block * blockDim.x * blockDim.y * blockDim.z + thread);
    const u32 where[12] = {threadIdx.x, threadIdx.y, threadIdx.z, blockIdx.x, blockIdx.y, blockIdx.z,
                           blockDim.x,  blockDim.y,  blockDim.z,  gridDim.x,  gridDim.y,  gridDim.z};
    for (u32 i = 0; i < 12; ++i) mine[i] = where[i];
}

// out[lane] = the result of shuffle `a` (0 index, 1 up, 2 down, 3 xor) of in[lane] by `b` within width `c`.
template <class T>
DEVICE void shuffle(const ProbeParams& p) {
    const T mine = in<T>(p)[threadIdx.x];
    T& result = out<T>(p)[threadIdx.x];
    if (p.a == 0) result = __shfl_sync(all_lanes_mask, mine, p.b, p.c);
    if (p.a == 1) result = __shfl_up_sync(all_lanes_mask, mine, p.b, p.c);
    if (p.a == 2) result = __shfl_down_sync(all_lanes_mask, mine, p.b, p.c);
    if (p.a == 3) result = __shfl_xor_sync(all_lanes_mask, mine, p.b, p.c);
}
KERNEL(probe_shuffle_u32, ProbeParams, 32, 1) { shuffle<u32>(p); }
KERNEL(probe_shuffle_f32, ProbeParams, 32, 1) { shuffle<float>(p); }
KERNEL(probe_shuffle_u64, ProbeParams, 32, 1) { shuffle<u64>(p); }

// out[lane] = {ballot, any, all} of in[lane] != 0. The lanes of mask `a` and the other lanes vote separately.
KERNEL(probe_votes, ProbeParams, 32, 1) {
    const u32 lane = threadIdx.x;
    const int predicate = in<u32>(p)[lane] != 0;
    const u32 mask = p.a >> lane & 1 ? p.a : ~p.a;
    out<u32>(p)[3 * lane] = __ballot_sync(mask, predicate);
    out<u32>(p)[3 * lane + 1] = u32(__any_sync(mask, predicate));
    out<u32>(p)[3 * lane + 2] = u32(__all_sync(mask, predicate));
}

// out[lane] = {sum, max} of in[32], by warp_sum and warp_max.
KERNEL(probe_warp_sum_max, ProbeParams, 32, 1) {
    const float mine = in<float>(p)[threadIdx.x];
    out<float>(p)[2 * threadIdx.x] = warp_sum(mine);
    out<float>(p)[2 * threadIdx.x + 1] = warp_max(mine);
}

// in: matrices [4][8][8] of 16 bits. out[lane][4]: the registers of ldmatrix, x4 if `a` is 4, else x2 (the
// first two), transposed if `b`.
KERNEL(probe_ldmatrix, ProbeParams, 32, 1) {
    const u32 lane = threadIdx.x;
    store_vec(shared<u16>() + 8 * lane, load_vec<8>(in<u16>(p) + 8 * lane));
    __syncwarp();
    u32 r[4] = {}, half_of_them[2] = {};
    // Lanes past the last row pass no address.
    const void* row = lane < 8 * p.a ? shared<u16>() + 8 * lane : nullptr;
    if (p.a == 4 && !p.b) ldmatrix_x4(r, row);
    if (p.a == 4 && p.b) ldmatrix_x4_trans(r, row);
    if (p.a == 2 && !p.b) ldmatrix_x2(half_of_them, row);
    if (p.a == 2 && p.b) ldmatrix_x2_trans(half_of_them, row);
    for (u32 i = 0; i < 2 && p.a == 2; ++i) r[i] = half_of_them[i];
    for (u32 i = 0; i < 4; ++i) out<u32>(p)[4 * lane + i] = r[i];
}

DEVICE u32 pair(u16 lo, u16 hi) { return lo | u32(hi) << 16; }

// out[16][8] (f32) += A[16][16] * B[16][8] (bf16). `in` holds A, then B. The fragments follow the formulas of
// PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type".
KERNEL(probe_mma, ProbeParams, 32, 1) {
    const u16 *a = in<u16>(p), *b = a + 16 * 16;
    const u32 group = threadIdx.x >> 2, in_group = threadIdx.x % 4;
    u16 a_fragment[8], b_fragment[4];
    for (u32 i = 0; i < 8; ++i) {
        const u32 row = (i < 2 || (i >= 4 && i < 6)) ? group : group + 8;
        const u32 column = in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
        a_fragment[i] = a[row * 16 + column];
    }
    for (u32 i = 0; i < 4; ++i) {
        const u32 row = in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0);
        b_fragment[i] = b[row * 8 + group];
    }
    u32 a_registers[4], b_registers[2];
    for (u32 i = 0; i < 4; ++i) a_registers[i] = pair(a_fragment[2 * i], a_fragment[2 * i + 1]);
    for (u32 i = 0; i < 2; ++i) b_registers[i] = pair(b_fragment[2 * i], b_fragment[2 * i + 1]);
    float* c[4];
    for (u32 i = 0; i < 4; ++i)
        c[i] = out<float>(p) + (i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1);
    float d[4] = {*c[0], *c[1], *c[2], *c[3]};
    mma_bf16(d, a_registers, b_registers);
    for (u32 i = 0; i < 4; ++i) *c[i] = d[i];
}

// The same product by way of shared memory, as in kernels: ldmatrix_x4 for A and ldmatrix_x2_trans for B, or
// ldmatrix_x2 if `a`, where B is [8][16].
KERNEL(probe_ldmatrix_mma, ProbeParams, 32, 1) {
    const u32 lane = threadIdx.x;
    for (u32 i = lane; i < (16 * 16 + 16 * 8) / 8; i += 32)
        store_vec(shared<u16>() + 8 * i, load_vec<8>(in<u16>(p) + 8 * i));
    __syncwarp();
    const u16 *a = shared<u16>(), *b = a + 16 * 16;
    u32 a_registers[4], b_registers[2];
    ldmatrix_x4(a_registers, a + lane % 16 * 16 + lane / 16 * 8);
    if (p.a) {
        ldmatrix_x2(b_registers, b + lane % 8 * 16 + lane / 8 % 2 * 8);
    } else {
        ldmatrix_x2_trans(b_registers, b + lane % 16 * 8);
    }
    float* upper = out<float>(p) + lane / 4 * 8 + lane % 4 * 2;
    float* lower = upper + 8 * 8;
    float d[4] = {upper[0], upper[1], lower[0], lower[1]};
    mma_bf16(d, a_registers, b_registers);
    store_vec(upper, Vec<float, 2>{{d[0], d[1]}});
    store_vec(lower, Vec<float, 2>{{d[2], d[3]}});
}

// Each thread copies in[thread][3] (each 4 u32) in three groups; the last copy writes zeros if `a`. After
// each wait, the thread writes the first word of each copy to out[thread][pending][3], pending from 3 down to
// 0.
KERNEL(probe_copies, ProbeParams, 64, 1) {
    const u32* source = in<u32>(p) + threadIdx.x * 12;
    u32* mine = shared<u32>() + threadIdx.x * 12;
    u32* seen = out<u32>(p) + threadIdx.x * 12;
    const auto look = [&] {
        for (u32 i = 0; i < 3; ++i) *seen++ = mine[4 * i];
    };
    for (u32 i = 0; i < 3; ++i) {
        const bool valid = !(p.a && i == 2);
        cp_async16(mine + 4 * i, valid ? source + 4 * i : nullptr, valid);
        cp_async_commit();
    }
    cp_async_wait<3>();
    look();
    cp_async_wait<2>();
    look();
    cp_async_wait<1>();
    look();
    cp_async_wait<0>();
    look();
}

// out[thread] = a sum over in[a] (floats, aligned to 16 bytes; a is a multiple of 4 * blockDim.x). The block
// copies tiles of 4 floats a thread, one tile ahead, and each thread reads the copies of another thread. `b`
// omits the wait, `c` omits the barrier before a buffer is filled again.
KERNEL(probe_pipeline, ProbeParams, 128, 1) {
    const u32 tile = 4 * blockDim.x, tiles = p.a / tile, other = (threadIdx.x + 37) % blockDim.x;
    const auto fetch = [&](u32 i) {
        float* to = shared<float>() + i % 2 * tile + 4 * threadIdx.x;
        if (i < tiles) cp_async16(to, in<float>(p) + i * tile + 4 * threadIdx.x);
        cp_async_commit();
    };
    float sum = 0;
    fetch(0);
    for (u32 i = 0; i < tiles; ++i) {
        fetch(i + 1);
        if (!p.b) cp_async_wait<1>();
        __syncthreads();
        for (u32 j = 0; j < 4; ++j) sum += shared<float>()[i % 2 * tile + 4 * other + j];
        if (!p.c) __syncthreads();
    }
    cp_async_wait<0>();
    out<float>(p)[threadIdx.x] = sum;
}

// Atomics over the indices of all threads of all blocks, which count from 1: sums as u32, i32 (negated), u64
// (shifted by 32) and f32; maxima and minima as u32, i32 (negated) and u64; the sum by CAS; a word that
// exchanges indices, and the sum of the indices that it returns.
struct Totals {
    u64 sum_u64, max_u64, min_u64;
    u32 sum_u32;
    i32 sum_i32;
    float sum_f32;
    u32 max_u32, min_u32;
    i32 max_i32, min_i32;
    u32 cas, exchanged, came_out;
};
KERNEL(probe_atomics, ProbeParams, 256, 1) {
    Totals& totals = *out<Totals>(p);
    const u32 n = blockIdx.x * blockDim.x + threadIdx.x + 1;
    atomicAdd(&totals.sum_u32, n);
    atomicAdd(&totals.sum_i32, -i32(n));
    atomicAdd(&totals.sum_u64, u64(n) << 32);
    atomicAdd(&totals.sum_f32, float(n));
    atomicMax(&totals.max_u32, n);
    atomicMin(&totals.min_u32, n);
    atomicMax(&totals.max_i32, -i32(n));
    atomicMin(&totals.min_i32, -i32(n));
    atomicMax(&totals.max_u64, u64(n) << 32);
    atomicMin(&totals.min_u64, u64(n) << 32);
    for (u32 seen = totals.cas, before = ~seen; before != seen;) {
        before = seen;
        seen = atomicCAS(&totals.cas, before, before + n);
    }
    atomicAdd(&totals.came_out, atomicExch(&totals.exchanged, n));
}

// out = in, by vectors of N elements, one a thread.
template <class T, int N>
DEVICE void copy(const ProbeParams& p) {
    const u32 first = threadIdx.x * N;
    store_vec(out<T>(p) + first, load_vec<N>(in<T>(p) + first));
}
KERNEL(probe_vec_bf16_2, ProbeParams, 32, 1) { copy<bf16, 2>(p); }
KERNEL(probe_vec_half_4, ProbeParams, 32, 1) { copy<half, 4>(p); }
KERNEL(probe_vec_bf16_8, ProbeParams, 32, 1) { copy<bf16, 8>(p); }
KERNEL(probe_vec_f32_2, ProbeParams, 32, 1) { copy<float, 2>(p); }
KERNEL(probe_vec_f32_4, ProbeParams, 32, 1) { copy<float, 4>(p); }

// Converts in[a] floats to bf16 (at out), to half (at out + 2 a bytes), and to packed pairs (at out + 4 a
// bytes).
KERNEL(probe_narrow, ProbeParams, 256, 1) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= p.a) return;
    const float x = in<float>(p)[i];
    out<bf16>(p)[i] = from_float<bf16>(x);
    out<half>(p)[p.a + i] = from_float<half>(x);
    if (i % 2 == 0) out<u32>(p)[p.a + i / 2] = pack_bf16(x, in<float>(p)[i + 1]);
}

// out[2][65536] = all patterns of bf16, then of half, as floats.
KERNEL(probe_widen, ProbeParams, 256, 1) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    const u16 bits = u16(i);
    bf16 brain;
    half ieee;
    memcpy(&brain, &bits, 2);
    memcpy(&ieee, &bits, 2);
    out<float>(p)[i] = to_float(brain);
    out<float>(p)[65536 + i] = to_float(ieee);
}

// Converts in[a] floats to e4m3.
KERNEL(probe_narrow_e4m3, ProbeParams, 256, 1) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < p.a) out<e4m3>(p)[i] = from_float<e4m3>(in<float>(p)[i]);
}

// Converts in[256] patterns of e4m3, four a thread, to floats and, after these, to bf16.
KERNEL(probe_widen_e4m3, ProbeParams, 64, 1) {
    const Vec<e4m3, 4> four = load_vec<4>(in<e4m3>(p) + 4 * threadIdx.x);
    u32 bits, even, odd;
    memcpy(&bits, &four, 4);
    widen(bits, even, odd);
    const u32 pairs[4] = {even << 16, odd << 16, even & 0xffff0000, odd & 0xffff0000};
    for (u32 i = 0; i < 4; i++) {
        out<float>(p)[4 * threadIdx.x + i] = to_float(four.v[i]);
        out<u32>(p)[256 + 4 * threadIdx.x + i] = pairs[i];
    }
}

// out[thread] = {popc, ffs, clz, umulhi by `a`} of in[thread].
KERNEL(probe_bits, ProbeParams, 256, 1) {
    const u32 x = in<u32>(p)[threadIdx.x];
    u32* mine = out<u32>(p) + 4 * threadIdx.x;
    mine[0] = u32(__popc(x));
    mine[1] = u32(__ffs(i32(x)));
    mine[2] = u32(__clz(i32(x)));
    mine[3] = __umulhi(x, p.a);
}

// Takes `a` turns at __syncwarp, for timing.
KERNEL(probe_turns, ProbeParams, 1024, 1) {
    for (u32 i = 0; i < p.a; ++i) __syncwarp();
}
