// Rows that wait for a token which the step before left to the amateur become padding, which every kernel leaves alone.
//
// Floor: a few bytes a row; it is there so that a step can be queued before it is known which rows go on.
#include "step.cuh"

struct VoidRowsParams {
    const u32* fed;              // [tokens]: which of the results is the token, or NONE
    const u32* outputs;          // [outputs]: ascending, each a token's
    const ResultWords* results;  // [outputs of the step before]
    u32* slots;                  // [tokens]
    Span* spans;                 // [spans]
    SampleWords* samples;        // [outputs]
    u32 span_count, output_count;
};

// PRECOND: a thread an output; a fed token is its span's only one and has an output.
KERNEL(void_rows, VoidRowsParams, 256, 1) {
    const u32 output = blockIdx.x * blockDim.x + threadIdx.x;
    if (output >= p.output_count) return;
    const u32 token = p.outputs[output], from = p.fed[token];
    if (from == NONE || p.results[from].status != CONTESTED) return;
    p.slots[token] = NONE;
    p.samples[output].position = NONE;
    u32 low = 0, high = p.span_count;  // the token's span is the last that begins at it or before
    while (high - low > 1) {
        const u32 middle = (low + high) / 2;
        (p.spans[middle].first_token <= token ? low : high) = middle;
    }
    p.spans[low].tokens = p.spans[low].context = 0;  // not where it begins: others look for theirs
}
