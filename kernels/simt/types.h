// The types that kernels and the runtime share: CUDA's triple of indices, and integers by width.
#pragma once

#include <cstdint>

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using i32 = int32_t;
using u64 = unsigned long long;  // the type of CUDA's 64-bit atomics, which uint64_t may not be

struct uint3 {
    u32 x, y, z;
};
using dim3 = uint3;
