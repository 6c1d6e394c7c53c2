// The base of every kernel. nvcc builds the same source for the GPU; the host's C++ compiler builds it
// against simt/, which runs it without a GPU.
//
//     struct ScaleParams { const void* x; void* out; u32 count; float by; };  // pointers first, no padding
//     MIRRORED(ScaleParams);                          // equals ScaleParams of src/device/gpu/abi.rs
//     KERNEL(scale_f32, ScaleParams, 256, 1) { ... }  // at most 256 threads a block, at least 1 block an SM
//
// All shared memory is dynamic: the launch says its size and shared_memory() returns it.
//
// A kernel may be launched before the one ahead of it in its stream has ended (CUDA's programmatic dependent
// launch). KERNEL begins each kernel with the wait for it, so a body sees what the kernels before it wrote, and
// writes what they no longer read.
#pragma once

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math_constants.h>

#include <cmath>
#include <cstdint>
#include <cstring>

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using i32 = int32_t;
using u64 = unsigned long long;  // the type of CUDA's 64-bit atomics
using bf16 = __nv_bfloat16;

#define DEVICE __device__ __forceinline__
#define KERNEL(NAME, PARAMS, MAX_THREADS, MIN_BLOCKS)                     \
    DEVICE void NAME##_body(const PARAMS& p);                             \
    extern "C" __global__ void __launch_bounds__(MAX_THREADS, MIN_BLOCKS) \
        NAME(const __grid_constant__ PARAMS p) {                          \
        begin_kernel();                                                   \
        NAME##_body(p);                                                   \
    }                                                                     \
    DEVICE void NAME##_body(const PARAMS& p)
// The host's compiler checks mirrors in every build: simt/abi.h.
#define MIRRORED(NAME) static_assert(sizeof(NAME) > 0)
#define MIRRORED_BY_TESTS MIRRORED

// Waits until the kernel ahead has ended and its writes are visible, then lets the kernel behind be launched as
// soon as all blocks of this one have come here (PTX ISA, "griddepcontrol"). Since every kernel waits before it
// lets the next one go, at most two kernels of a stream run at once, and one that has ended had all before it end.
// Neither instruction does anything where kernels are launched one after another. src/device/cuda/kernels.rs
// knows by the architecture whether a kernel waits.
DEVICE void begin_kernel() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// The block's dynamic shared memory, aligned to 128 bytes.
DEVICE unsigned char* shared_memory() {
    extern __shared__ __align__(128) unsigned char dynamic_shared_memory[];
    return dynamic_shared_memory;
}

// Number formats. Conversions round to nearest, ties to even.

DEVICE float to_float(float x) { return x; }
DEVICE float to_float(bf16 x) { return __bfloat162float(x); }
DEVICE float to_float(half x) { return __half2float(x); }

template <class T>
DEVICE T from_float(float x);
template <>
DEVICE float from_float<float>(float x) {
    return x;
}
template <>
DEVICE bf16 from_float<bf16>(float x) {
    return __float2bfloat16_rn(x);
}
template <>
DEVICE half from_float<half>(float x) {
    return __float2half_rn(x);
}

// 2^x to about 2 ulp; subnormal results are zero. This is one instruction, exp2f takes several.
DEVICE float exp2_approx(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}

// Rounds two floats to bf16 and packs them into one register, `lo` in the low half.
DEVICE u32 pack_bf16(float lo, float hi) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(hi), "f"(lo));
    return pair;
}

// The rounded products of two pairs of bf16. Subnormal results are kept.
DEVICE u32 mul_bf16x2(u32 a, u32 b) {
    u32 pair;  // a fused multiply-add of -0: sm_80 has no plain product
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(pair) : "r"(a), "r"(b), "r"(0x80008000));
    return pair;
}

// Vectors of 1, 2, 4, 8 or 16 bytes, read or written by one access. PRECOND: the address is aligned to the
// size.

template <class T, int N>
struct alignas(sizeof(T) * N) Vec {
    T v[N];
};

template <int BYTES>
struct Word;
template <>
struct Word<1> {
    using type = u8;
};
template <>
struct Word<2> {
    using type = u16;
};
template <>
struct Word<4> {
    using type = u32;
};
template <>
struct Word<8> {
    using type = uint2;
};
template <>
struct Word<16> {
    using type = uint4;
};

template <int N, class T>
DEVICE Vec<T, N> load_vec(const T* at) {
    using W = typename Word<sizeof(Vec<T, N>)>::type;
    const W word = *reinterpret_cast<const W*>(at);
    Vec<T, N> vec;
    memcpy(&vec, &word, sizeof vec);
    return vec;
}

template <class T, int N>
DEVICE void store_vec(T* at, Vec<T, N> vec) {
    using W = typename Word<sizeof(Vec<T, N>)>::type;
    W word;
    memcpy(&word, &vec, sizeof vec);
    *reinterpret_cast<W*>(at) = word;
}

// Keeps a value that a loop uses in a register. The compiler would otherwise compute it again in every turn.
template <class T>
DEVICE T in_register(T x) {
    if constexpr (sizeof(T) == 8) {
        asm volatile("" : "+l"(x));
    } else {
        asm volatile("" : "+r"(x));
    }
    return x;
}

// Asynchronous copies (PTX ISA, "cp.async") of 16 or 4 bytes from global to shared memory; they write zeros
// if !valid. Groups complete in the order of their commits. cp_async_wait<N> waits for all groups of this
// thread but the youngest N.

DEVICE u32 shared_address(const void* shared) { return u32(__cvta_generic_to_shared(shared)); }

DEVICE void cp_async16(void* shared, const void* global, bool valid = true) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(valid ? 16 : 0)
                 : "memory");
}
DEVICE void cp_async4(void* shared, const void* global, bool valid = true) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(valid ? 4 : 0)
                 : "memory");
}
DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING>
DEVICE void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Tensor cores (PTX ISA, "ldmatrix" and "mma", .m8n8 and .m16n8k16). PRECOND: called by all 32 lanes of a
// warp; lane 8 m + i passes the address of row i of matrix m, which is 16 bytes of shared memory.

DEVICE void ldmatrix_x4(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
DEVICE void ldmatrix_x4_trans(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
DEVICE void ldmatrix_x2(u32 (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}
DEVICE void ldmatrix_x2_trans(u32 (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

// d[16, 8] += a[16, 16] * b[16, 8] in fragments, a by rows and b by columns.
DEVICE void mma_bf16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#else

#include "simt/cuda.h"

#endif

// The sum and the maximum over a whole warp, in every lane.

DEVICE float warp_sum(float x) {
    for (int flip = 16; flip > 0; flip /= 2) x += __shfl_xor_sync(0xffffffff, x, flip);
    return x;
}

DEVICE float warp_max(float x) {
    for (int flip = 16; flip > 0; flip /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, flip));
    return x;
}
