// The initial residual: each token's row of the embedding table.
//
// Bytes a token: width numbers of the table are read, 4 width bytes written. The first norm reads them again.
// A fused kernel would save that read once a step, while every layer has two such reads.
#include "row.cuh"
#include "step.cuh"

struct EmbedParams {
    const u32* tokens;           // [rows]
    const u32* source_outputs;   // [rows]: the last step's output that sampled the token, or NONE
    const u32* slots;            // [rows]: NONE in rows that are padding
    const ResultWords* results;  // [outputs of the step before]
    const void* table;           // [vocabulary, width]
    float* out;                  // [rows, width]
    u32 width;
    float scale;
};
MIRRORED(EmbedParams);

template <class T, int N>
DEVICE void embed_row(const EmbedParams& p, u32 row, u32 token) {
    const T* const from = static_cast<const T*>(p.table) + u64(token) * p.width;
    float* const to = p.out + u64(row) * p.width;
    const u32 first = (blockIdx.y * blockDim.x + threadIdx.x) * N, stride = gridDim.y * blockDim.x * N;
    for (u32 i = first; i < p.width; i += stride) {
        Floats<N> x = load_floats<N>(from + i);
#pragma unroll
        for (int j = 0; j < N; j++) x[j] *= p.scale;
        store_floats(to + i, x);
    }
}

// out[row] = table[token of row] * scale. Rows that are padding are skipped.
template <class T>
DEVICE void embed(const EmbedParams& p) {
    // A thread writes 16 bytes of the f32 output, so that a warp's stores fill whole sectors.
    constexpr int N = VECTOR<float>;
    const u32 row = blockIdx.x, source_output = p.source_outputs[row];
    u32 token = p.tokens[row];
    if (p.slots[row] == NONE) return;
    if (source_output != NONE) token = p.results[source_output].token;
    if (p.width % N == 0) {
        embed_row<T, N>(p, row, token);
    } else {
        embed_row<T, 1>(p, row, token);
    }
}

// PRECOND: blockIdx.x is the row; blockIdx.y and the threads share its columns; table and out aligned to 16
// bytes; every token is a row of the table.
KERNEL(embed_bf16, EmbedParams, 256, 1) { embed<bf16>(p); }
KERNEL(embed_f32, EmbedParams, 256, 1) { embed<float>(p); }
