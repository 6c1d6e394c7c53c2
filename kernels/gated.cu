// The gate of the feed-forward block.
//
// Bytes a row: 2 width numbers are read, width numbers written.
#include "row.cuh"

// src/device/gpu/ops/rows.rs has the same numbers.
enum Activation : u32 { SILU, GELU_TANH };

struct GatedParams {
    const void* x;  // [rows, 2 * width]: the gate, then the numbers that it multiplies
    void* out;      // [rows, width]
    u32 width;
    u32 activation;  // an Activation
};
MIRRORED(GatedParams);

// x * sigmoid(y). For bf16 it uses approximate instructions whose error bf16 does not show: at full precision
// the arithmetic would take about as long as the row's way through memory.
template <class T>
DEVICE float times_sigmoid(float x, float y) {
    if constexpr (sizeof(T) == sizeof(float)) {
        return x / (1.0f + expf(-y));
    } else {
        return __fdividef(x, 1.0f + __expf(-y));
    }
}

template <class T>
DEVICE float activate(u32 activation, float x) {
    if (activation == SILU) return times_sigmoid<T>(x, x);
    // The tanh approximation of GELU: 0.5 x (1 + tanh y) = x sigmoid(2 y), y = sqrt(2 / pi) (x + 0.044715
    // x^3).
    const float y = 0.7978845608f * fmaf(0.044715f * x * x, x, x);
    return times_sigmoid<T>(x, 2.0f * y);
}

template <class T, int N>
DEVICE void gated_row(const T* gate, const T* up, T* out, u32 width, u32 activation) {
    const u32 first = (blockIdx.y * blockDim.x + threadIdx.x) * N, stride = gridDim.y * blockDim.x * N;
    for (u32 i = first; i < width; i += stride) {
        const Floats<N> x = load_floats<N>(gate + i);
        Floats<N> y = load_floats<N>(up + i);
#pragma unroll
        for (int j = 0; j < N; j++) y[j] *= activate<T>(activation, x[j]);
        store_floats(out + i, y);
    }
}

// out = activation(x[..width]) * x[width..]
template <class T>
DEVICE void gated(const GatedParams& p) {
    const T* const gate = static_cast<const T*>(p.x) + u64(blockIdx.x) * 2 * p.width;
    T* const out = static_cast<T*>(p.out) + u64(blockIdx.x) * p.width;
    if (p.width % VECTOR<T> == 0) {
        gated_row<T, VECTOR<T>>(gate, gate + p.width, out, p.width, p.activation);
    } else {
        gated_row<T, 1>(gate, gate + p.width, out, p.width, p.activation);
    }
}

// PRECOND: blockIdx.x is the row; blockIdx.y and the threads share its columns; x and out aligned to 16
// bytes.
KERNEL(gated_bf16, GatedParams, 256, 1) { gated<bf16>(p); }
KERNEL(gated_f32, GatedParams, 256, 1) { gated<float>(p); }
