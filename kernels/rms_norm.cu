// The residual's sum and its norm, in one pass over the row.
//
// Bytes a row: 4 width of the residual in, and 4 width out where there is a delta; width numbers of the delta in,
// width numbers out. The weights come from the caches. In bf16 with a delta, 12 a number.
#include "row.cuh"

struct RmsNormParams {
    const void* delta;   // [rows, width], or null
    float* residual;     // [rows, width]
    const void* weight;  // [width]
    void* out;           // [rows, width]
    u32 width;
    float epsilon;
    float weight_offset;  // 1 for Gemma's 1 + weight, else 0
    u32 unused;
};

// One row.
template <class T, int N>
struct NormRow {
    const T* delta;  // or null
    float* residual;
    const T* weight;
    T* out;
    float weight_offset;

    DEVICE explicit NormRow(const RmsNormParams& p) {
        const u64 start = u64(blockIdx.x) * p.width;
        delta = p.delta ? static_cast<const T*>(p.delta) + start : nullptr;
        residual = p.residual + start;
        weight = static_cast<const T*>(p.weight);
        out = static_cast<T*>(p.out) + start;
        weight_offset = p.weight_offset;
    }

    DEVICE Floats<N> load_delta(u32 column) const { return delta ? load_floats<N>(delta + column) : Floats<N>{}; }

    // residual = x += more
    DEVICE void add(u32 column, Floats<N>& x, const Floats<N>& more) const {
        if (!delta) return;
#pragma unroll
        for (int j = 0; j < N; j++) x[j] += more[j];
        store_floats(residual + column, x);
    }

    DEVICE void store(u32 column, Floats<N> x, const Floats<N>& weight, float scale) const {
#pragma unroll
        for (int j = 0; j < N; j++) x[j] = x[j] * scale * (weight[j] + weight_offset);
        store_floats(out + column, x);
    }
};

template <int N>
DEVICE float square_sum(const Floats<N>& x) {
    float sum = 0;
#pragma unroll
    for (int j = 0; j < N; j++) sum = fmaf(x[j], x[j], sum);
    return sum;
}

// The same sum in every thread, in an order that depends on the size of the block alone.
// PRECOND: 4 bytes of shared memory a warp; whole warps, 32 at most.
DEVICE float block_sum(float x) {
    const auto of_warps = reinterpret_cast<float*>(shared_memory());
    const u32 lane = threadIdx.x % 32;
    x = warp_sum(x);
    if (lane == 0) of_warps[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_sum(lane < blockDim.x / 32 ? of_warps[lane] : 0.0f);
}

template <class T, int N>
DEVICE void rms_norm_row(const RmsNormParams& p) {
    // What a thread meets first stays in its registers, its weights on their way while the block sums. That is all
    // of a row of up to 8192 numbers; what a wider one has beyond is read again, from the caches.
    constexpr int HELD = 2;
    const NormRow<T, N> row(p);
    const u32 first = threadIdx.x * N, stride = blockDim.x * N;
    Floats<N> x[HELD], delta[HELD], weight[HELD];
#pragma unroll
    for (int k = 0; k < HELD; k++) {
        const u32 i = first + k * stride;
        if (i >= p.width) continue;
        x[k] = load_floats<N>(row.residual + i);
        delta[k] = row.load_delta(i);
        weight[k] = load_floats<N>(row.weight + i);
    }
    float squares = 0;
#pragma unroll
    for (int k = 0; k < HELD; k++) {
        const u32 i = first + k * stride;
        if (i >= p.width) continue;
        row.add(i, x[k], delta[k]);
        squares += square_sum(x[k]);
    }
    for (u32 i = first + HELD * stride; i < p.width; i += stride) {
        Floats<N> beyond = load_floats<N>(row.residual + i);
        row.add(i, beyond, row.load_delta(i));
        squares += square_sum(beyond);
    }

    const float scale = 1.0f / sqrtf(block_sum(squares) / float(p.width) + p.epsilon);
#pragma unroll
    for (int k = 0; k < HELD; k++) {
        const u32 i = first + k * stride;
        if (i < p.width) row.store(i, x[k], weight[k], scale);
    }
    for (u32 i = first + HELD * stride; i < p.width; i += stride) {
        row.store(i, load_floats<N>(row.residual + i), load_floats<N>(row.weight + i), scale);
    }
}

// residual += delta where there is one, then out = residual / rms(residual) * (weight + weight_offset)
template <class T>
DEVICE void rms_norm(const RmsNormParams& p) {
    // As many as 16 bytes of the f32 residual hold, so that a warp's stores fill whole sectors.
    constexpr int N = VECTOR<float>;
    if (p.width % N == 0) {
        rms_norm_row<T, N>(p);
    } else {
        rms_norm_row<T, 1>(p);
    }
}

// PRECOND: a block a row, of whole warps, as many for every row of this width; 4 bytes of shared memory a warp; all
// buffers aligned to 16 bytes.
KERNEL(rms_norm_bf16, RmsNormParams, 1024, 1) { rms_norm<bf16>(p); }
KERNEL(rms_norm_f32, RmsNormParams, 1024, 1) { rms_norm<float>(p); }
