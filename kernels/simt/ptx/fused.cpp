#include "fused.h"

#include <cmath>

#include "warp.h"

namespace ptx {
namespace {

float canonical(float x) { return x == x ? x : bits_as<float>(0x7fffffffu); }
double canonical(double x) { return x; }

template <class T>
__attribute__((always_inline)) inline void run(Warp& warp, const Instruction& at, u32 lanes) {
    T* const d = warp.lanes_of<T>(at.operands[0]);
    const T* const a = warp.lanes_of<T>(at.operands[1]);
    const T* const b = warp.lanes_of<T>(at.operands[2]);
    const T* const c = warp.lanes_of<T>(at.operands[3]);
    const auto fuse = [](T x, T y, T z) __attribute__((always_inline)) {
        if constexpr (sizeof(T) == 4)
            return __builtin_fmaf(x, y, z);
        else
            return __builtin_fma(x, y, z);
    };
    if (lanes == all_lanes) {
#pragma GCC ivdep
        for (u32 lane = 0; lane < 32; ++lane) d[lane] = canonical(fuse(a[lane], b[lane], c[lane]));
    } else {
        for (u32 left = lanes; left; left &= left - 1) {
            const u32 lane = lowest(left);
            d[lane] = canonical(fuse(a[lane], b[lane], c[lane]));
        }
    }
}

template <class T>
void by_library(Warp& warp, const Instruction& at, u32 lanes) {
    run<T>(warp, at, lanes);
}

#if defined(__x86_64__)
template <class T>
__attribute__((target("avx2,fma"))) void by_instruction(Warp& warp, const Instruction& at, u32 lanes) {
    run<T>(warp, at, lanes);
}
bool has_instruction() { return __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2"); }
#else
template <class T>
void by_instruction(Warp& warp, const Instruction& at, u32 lanes) {
    run<T>(warp, at, lanes);
}
bool has_instruction() { return false; }
#endif

}  // namespace

Execute fused_multiply_add(Type type) {
    if (type == Type::f32) return has_instruction() ? by_instruction<float> : by_library<float>;
    return has_instruction() ? by_instruction<double> : by_library<double>;
}

}  // namespace ptx
