// Adds a delta to the residual and norms the sum, in one pass over the row.
//
// Bytes a row: 4 width of the residual are read; with a delta, 4 width are written and width numbers of the
// delta read; width numbers of the output are written. In bf16 with a delta, these are 12 bytes a number.
// Weights come from the caches.
#include "row.cuh"

struct RmsNormParams {
    const void* delta;      // [rows, width], or null
    float* residual;        // [rows, width]
    NormParams delta_norm;  // applied to the delta before the sum
    NormParams norm;        // applied to the sum
    void* out;              // [rows, width]
    u32 width;
    u32 unused;
};
MIRRORED(RmsNormParams);

template <int N>
DEVICE float square_sum(const Floats<N>& x) {
    float sum = 0;
#pragma unroll
    for (int j = 0; j < N; j++) sum = fmaf(x[j], x[j], sum);
    return sum;
}

// A norm of one row: x * scale * (weight + offset), where `measure` sets the scale.
template <class T, int N>
struct RowNorm {
    const T* weight;  // null for no norm
    float scale, offset;

    DEVICE explicit RowNorm(const NormParams& p)
        : weight(static_cast<const T*>(p.weight)), scale(1), offset(p.weight_offset) {}

    DEVICE void measure(float squares, u32 width, float epsilon) {
        scale = 1.0f / sqrtf(squares / float(width) + epsilon);
    }

    // The weights from `column` on, which `apply` takes; zeros where there is no norm.
    DEVICE Floats<N> weights(u32 column) const {
        return weight ? load_floats<N>(weight + column) : Floats<N>{};
    }

    DEVICE void apply(Floats<N>& x, const Floats<N>& weights) const {
        if (!weight) return;
#pragma unroll
        for (int j = 0; j < N; j++) x[j] = x[j] * scale * (weights[j] + offset);
    }
};

template <class T, int N>
DEVICE void rms_norm_row(const RmsNormParams& p) {
    // A thread keeps its first HELD vectors in registers and loads their weights while the block sums. That
    // covers rows of up to 8192 numbers. The rest of a wider row is read again, from the caches.
    constexpr int HELD = 2;
    const u64 start = u64(blockIdx.x) * p.width;
    const T* const delta = p.delta ? static_cast<const T*>(p.delta) + start : nullptr;
    float* const residual = p.residual + start;
    T* const out = static_cast<T*>(p.out) + start;
    float* const sums = reinterpret_cast<float*>(shared_memory());
    RowNorm<T, N> delta_norm(p.delta_norm), norm(p.norm);

    const u32 first = threadIdx.x * N, stride = blockDim.x * N, beyond = first + HELD * stride;
    Floats<N> x[HELD], more[HELD], delta_weights[HELD], weights[HELD];
#pragma unroll
    for (int k = 0; k < HELD; k++) {
        const u32 i = first + k * stride;
        if (i >= p.width) continue;
        x[k] = load_floats<N>(residual + i);
        weights[k] = norm.weights(i);
        if (!delta) continue;
        more[k] = load_floats<N>(delta + i);
        delta_weights[k] = delta_norm.weights(i);
    }
    if (delta) {
        if (delta_norm.weight) {
            float squares = 0;
#pragma unroll
            for (int k = 0; k < HELD; k++) {
                if (first + k * stride < p.width) squares += square_sum(more[k]);
            }
            for (u32 i = beyond; i < p.width; i += stride) squares += square_sum(load_floats<N>(delta + i));
            delta_norm.measure(block_sum(squares, sums), p.width, p.delta_norm.epsilon);
        }
        const auto add = [&](u32 i, Floats<N>& x, Floats<N> more, const Floats<N>& weights) {
            delta_norm.apply(more, weights);
#pragma unroll
            for (int j = 0; j < N; j++) x[j] += more[j];
            store_floats(residual + i, x);
        };
#pragma unroll
        for (int k = 0; k < HELD; k++) {
            const u32 i = first + k * stride;
            if (i < p.width) add(i, x[k], more[k], delta_weights[k]);
        }
        for (u32 i = beyond; i < p.width; i += stride) {
            Floats<N> x = load_floats<N>(residual + i);
            add(i, x, load_floats<N>(delta + i), delta_norm.weights(i));
        }
    }

    if (norm.weight) {
        float squares = 0;
#pragma unroll
        for (int k = 0; k < HELD; k++) {
            if (first + k * stride < p.width) squares += square_sum(x[k]);
        }
        for (u32 i = beyond; i < p.width; i += stride) squares += square_sum(load_floats<N>(residual + i));
        norm.measure(block_sum(squares, sums + blockDim.x / 32), p.width, p.norm.epsilon);
    }
    const auto store = [&](u32 i, Floats<N> x, const Floats<N>& weights) {
        norm.apply(x, weights);
        store_floats(out + i, x);
    };
#pragma unroll
    for (int k = 0; k < HELD; k++) {
        const u32 i = first + k * stride;
        if (i < p.width) store(i, x[k], weights[k]);
    }
    for (u32 i = beyond; i < p.width; i += stride) store(i, load_floats<N>(residual + i), norm.weights(i));
}

// If there is a delta, residual += delta_norm(delta). Then out = norm(residual). norm(x) is x / rms(x) *
// (weight + weight_offset), or x where there is no weight.
template <class T>
DEVICE void rms_norm(const RmsNormParams& p) {
    // A thread writes 16 bytes of the f32 residual, so that a warp's stores fill whole sectors.
    constexpr int N = VECTOR<float>;
    if (p.width % N == 0) {
        rms_norm_row<T, N>(p);
    } else {
        rms_norm_row<T, 1>(p);
    }
}

// PRECOND: one block a row; whole warps, whose number depends on the width alone; 8 bytes of shared memory a
// warp; all buffers aligned to 16 bytes.
KERNEL(rms_norm_bf16, RmsNormParams, 1024, 1) { rms_norm<bf16>(p); }
KERNEL(rms_norm_f32, RmsNormParams, 1024, 1) { rms_norm<float>(p); }
