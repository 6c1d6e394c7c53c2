// The types that kernels and the runtime share: CUDA's index triple and integers by width.
#pragma once

#include <cstdint>

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using i32 = int32_t;
using u64 = unsigned long long;  // not uint64_t: CUDA's 64-bit atomics take this type

struct uint3 {
    u32 x, y, z;
};
using dim3 = uint3;
