// Shared parts of the kernels that test the runtime. All of them but those of faults.cu are valid on a GPU
// too.
#pragma once

#include "prelude.cuh"

struct ProbeParams {
    const void* in;
    void* out;
    u32 a, b, c, d;  // each kernel documents its use of them
};
MIRRORED_BY_TESTS(ProbeParams);

template <class T>
DEVICE const T* in(const ProbeParams& p) {
    return static_cast<const T*>(p.in);
}

template <class T>
DEVICE T* out(const ProbeParams& p) {
    return static_cast<T*>(p.out);
}

template <class T>
DEVICE T* shared() {
    return reinterpret_cast<T*>(shared_memory());
}

constexpr u32 all_lanes_mask = 0xffffffff;
