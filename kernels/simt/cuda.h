// The part of CUDA C++ that kernels use, for the host compiler. Names and meanings are those of the CUDA
// programming guide. Behaviour that the guide leaves undefined is a fault here wherever it can be detected.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "abi.h"
#include "block.h"
#include "matrix.h"
#include "number.h"
#include "types.h"
#include "warp.h"

#define DEVICE inline
#define __device__
#define __host__
#define __forceinline__ inline

#define KERNEL(NAME, PARAMS, MAX_THREADS, MIN_BLOCKS)                                                       \
    static void NAME([[maybe_unused]] const PARAMS& p);                                                     \
    static_assert(::abi::is_mirrored<PARAMS>,                                                               \
                  #PARAMS " needs MIRRORED and a mirror in src/device/gpu/abi.rs");                         \
    static_assert(std::is_trivially_copyable_v<PARAMS> && sizeof(PARAMS) <= ::simt::max_params_bytes);      \
    static_assert(MAX_THREADS <= ::simt::max_block_threads && MIN_BLOCKS > 0);                              \
    static const ::simt::Kernel NAME##_kernel(#NAME, sizeof(PARAMS), MAX_THREADS,                           \
                                              [](const void* p) { NAME(*static_cast<const PARAMS*>(p)); }); \
    static void NAME([[maybe_unused]] const PARAMS& p)

// Indices of the current thread and block.

#define threadIdx (::simt::thread->index)
#define blockIdx (::simt::block->index)
#define blockDim (::simt::block->launch.block)
#define gridDim (::simt::block->launch.grid)

inline unsigned char* shared_memory() { return simt::block->shared; }

// Barriers, votes and shuffles.

inline void __syncthreads() { simt::block->barrier(); }
inline void __syncwarp(u32 mask = simt::all_lanes) { simt::meet(simt::syncwarp, mask, nullptr); }
inline u32 __ballot_sync(u32 mask, int predicate) { return simt::vote(simt::ballot, mask, predicate); }
inline int __any_sync(u32 mask, int predicate) { return simt::vote(simt::any, mask, predicate) != 0; }
inline int __all_sync(u32 mask, int predicate) { return simt::vote(simt::all, mask, predicate) == mask; }

namespace simt {

template <class T>
T shuffle_value(const Collective& kind, u32 mask, T value, u32 source) {
    static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
    u64 bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = shuffle(kind, mask, bits, source);
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// The first lane of the current lane's segment. `width` is a power of two.
inline u32 segment(u32 width) {
    if (width == 0 || width > 32 || (width & (width - 1))) fault("shuffles with width %u", width);
    return thread->lane & ~(width - 1);
}

}  // namespace simt

// CUDA takes a source outside of the segment modulo the width. No kernel here relies on that, so it is a
// fault.
template <class T>
T __shfl_sync(u32 mask, T value, int source, int width = 32) {
    const u32 first = simt::segment(u32(width));
    if (u32(source) >= u32(width)) simt::fault("__shfl_sync reads from lane %d of %d", source, width);
    return simt::shuffle_value(simt::shuffle_index, mask, value, first + u32(source));
}

// In the other three shuffles, a lane keeps its own value if the source lies outside of the segment.
template <class T>
T __shfl_up_sync(u32 mask, T value, u32 delta, int width = 32) {
    const u32 lane = simt::thread->lane, first = simt::segment(u32(width));
    return simt::shuffle_value(simt::shuffle_up, mask, value, delta <= lane - first ? lane - delta : lane);
}

template <class T>
T __shfl_down_sync(u32 mask, T value, u32 delta, int width = 32) {
    const u32 lane = simt::thread->lane, last = simt::segment(u32(width)) + u32(width) - 1;
    return simt::shuffle_value(simt::shuffle_down, mask, value, delta <= last - lane ? lane + delta : lane);
}

template <class T>
T __shfl_xor_sync(u32 mask, T value, int flip, int width = 32) {
    const u32 lane = simt::thread->lane, last = simt::segment(u32(width)) + u32(width) - 1;
    const u32 source = lane ^ u32(flip);
    return simt::shuffle_value(simt::shuffle_xor, mask, value, source <= last ? source : lane);
}

// Atomics use the processor's atomics, because blocks of one launch run on several OS threads.

inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() { __threadfence(); }

namespace simt {

template <class T, class F>
T atomic_update(T* at, F&& next) {
    T old;
    __atomic_load(at, &old, __ATOMIC_RELAXED);
    for (;;) {
        T desired = next(old);
        if (__atomic_compare_exchange(at, &old, &desired, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return old;
    }
}

// The types for which CUDA has these atomics.
template <class T>
using Integer =
    std::enable_if_t<std::is_same_v<T, u32> || std::is_same_v<T, i32> || std::is_same_v<T, u64>, T>;

}  // namespace simt

template <class T>
simt::Integer<T> atomicAdd(T* at, std::common_type_t<T> value) {
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
inline float atomicAdd(float* at, float value) {
    return simt::atomic_update(at, [=](float old) { return old + value; });
}
template <class T>
simt::Integer<T> atomicMax(T* at, std::common_type_t<T> value) {
    return simt::atomic_update(at, [=](T old) { return old < value ? value : old; });
}
template <class T>
simt::Integer<T> atomicMin(T* at, std::common_type_t<T> value) {
    return simt::atomic_update(at, [=](T old) { return value < old ? value : old; });
}
template <class T>
simt::Integer<T> atomicExch(T* at, std::common_type_t<T> value) {
    return __atomic_exchange_n(at, value, __ATOMIC_RELAXED);
}
template <class T>
simt::Integer<T> atomicCAS(T* at, std::common_type_t<T> compare, std::common_type_t<T> value) {
    __atomic_compare_exchange_n(at, &compare, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return compare;
}

// Arithmetic.

inline int __popc(u32 x) { return __builtin_popcount(x); }
inline int __ffs(i32 x) { return __builtin_ffs(x); }
inline int __clz(i32 x) { return x ? __builtin_clz(u32(x)) : 32; }
inline u32 __umulhi(u32 a, u32 b) { return u32(u64(a) * b >> 32); }

template <class T>
T __ldg(const T* at) {
    return *at;
}

template <class T>
T min(T a, T b) {
    return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
    return a < b ? b : a;
}
// If one argument is NaN, the result is the other one.
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }

// These are macros because C libraries have functions of some of these names.
#define rsqrtf(x) (1.0f / sqrtf(x))
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __fdividef(x, y) ((x) / (y))
inline float exp2_approx(float x) { return exp2f(x); }

// Vectors.

template <class T, int N>
struct alignas(sizeof(T) * N) Vec {
    T v[N];
};

namespace simt {

template <class V>
void check_vector(const void* at, const char* what) {
    static_assert(sizeof(V) == 1 || sizeof(V) == 2 || sizeof(V) == 4 || sizeof(V) == 8 || sizeof(V) == 16);
    if (reinterpret_cast<uintptr_t>(at) % sizeof(V)) fault("%s of %zu bytes at %p", what, sizeof(V), at);
}

}  // namespace simt

template <int N, class T>
Vec<T, N> load_vec(const T* at) {
    simt::check_vector<Vec<T, N>>(at, "misaligned load_vec");
    Vec<T, N> vec;
    std::memcpy(&vec, at, sizeof vec);
    return vec;
}

template <class T, int N>
void store_vec(T* at, Vec<T, N> vec) {
    simt::check_vector<Vec<T, N>>(at, "misaligned store_vec");
    std::memcpy(at, &vec, sizeof vec);
}

template <class T>
T in_register(T x) {
    return x;
}

// Asynchronous copies.

namespace simt {

inline void copy_async(void* shared, const void* global, u32 bytes, bool valid) {
    block->check_shared(shared, bytes,
                        bytes == 16 ? "cp_async16 to shared memory" : "cp_async4 to shared memory");
    if (valid && reinterpret_cast<uintptr_t>(global) % bytes)
        fault("misaligned cp_async%u from %p", bytes, global);
    const AsyncCopy copy{shared, global, bytes, valid ? bytes : 0};
    if (block->coin()) return copy.land();
    thread->copies.issue(copy);
}

}  // namespace simt

inline void cp_async16(void* shared, const void* global, bool valid = true) {
    simt::copy_async(shared, global, 16, valid);
}
inline void cp_async4(void* shared, const void* global, bool valid = true) {
    simt::copy_async(shared, global, 4, valid);
}
inline void cp_async_commit() { simt::thread->copies.commit(); }
template <int PENDING>
void cp_async_wait() {
    simt::thread->copies.wait(PENDING);
}

// Tensor cores.

inline void ldmatrix_x4(u32 (&r)[4], const void* row) { simt::ldmatrix(r, row, 4, false); }
inline void ldmatrix_x4_trans(u32 (&r)[4], const void* row) { simt::ldmatrix(r, row, 4, true); }
inline void ldmatrix_x2(u32 (&r)[2], const void* row) { simt::ldmatrix(r, row, 2, false); }
inline void ldmatrix_x2_trans(u32 (&r)[2], const void* row) { simt::ldmatrix(r, row, 2, true); }
inline void mma_bf16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) { simt::mma_m16n8k16(d, a, b); }
