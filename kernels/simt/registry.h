// The kernels of this program. KERNEL registers each before main runs.
#pragma once

#include <cstddef>

#include "types.h"

namespace simt {

struct Kernel {
    Kernel(const char* name, size_t params_bytes, u32 max_threads, void (*body)(const void* params));

    const char* name;
    size_t params_bytes;
    u32 max_threads;  // a block
    void (*body)(const void* params);
    const Kernel* next;

    // Null where there is none of this name.
    static const Kernel* find(const char* name);
};

// As CUDA's limit before toolkit 12.1, which all drivers take.
constexpr size_t max_params_bytes = 4096;

}  // namespace simt
