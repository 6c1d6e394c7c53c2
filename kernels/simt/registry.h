// The list of the program's kernels. KERNEL registers each of them before main runs.
#pragma once

#include <cstddef>

#include "types.h"

namespace simt {

struct Kernel {
    Kernel(const char* name, size_t params_bytes, u32 max_threads, void (*body)(const void* params));

    const char* name;
    size_t params_bytes;
    u32 max_threads;  // of a block
    void (*body)(const void* params);
    const Kernel* next;

    // The kernel of this name, or null.
    static const Kernel* find(const char* name);
};

// CUDA's limit before toolkit 12.1, which all drivers accept.
constexpr size_t max_params_bytes = 4096;

}  // namespace simt
