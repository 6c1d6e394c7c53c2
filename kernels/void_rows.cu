// Turns rows into padding, which every kernel skips, if the row of the step before that samples their token
// awaits the amateur. So a step can be queued before the host knows which rows have a token.
//
// Floor: a few bytes a row.
#include "step.cuh"

struct VoidRowsParams {
    const u32* source_outputs;   // [tokens]: the output of the step before that sampled the token, or NONE
    const u32* logits_indices;   // [outputs]: the token of each output, ascending
    const ResultWords* results;  // [outputs of the step before]
    u32* slots;                  // [tokens]
    u32* windowed_slots;         // [tokens]; null if there are no layers with a window
    SpanWords* spans;            // [spans]
    SampleWords* samples;        // [outputs]
    u32 span_count, output_count;
};
MIRRORED(VoidRowsParams);

// PRECOND: one thread an output; a token with a source output is its span's only token and has an output.
KERNEL(void_rows, VoidRowsParams, 256, 1) {
    const u32 output = blockIdx.x * blockDim.x + threadIdx.x;
    if (output >= p.output_count) return;
    const u32 token = p.logits_indices[output], source_output = p.source_outputs[token];
    if (source_output == NONE || p.results[source_output].status != AWAITS_AMATEUR) return;
    p.slots[token] = NONE;
    if (p.windowed_slots) p.windowed_slots[token] = NONE;
    p.samples[output].position = NONE;
    // The token's span is the last one that begins at the token or before it.
    u32 low = 0, high = p.span_count;
    while (high - low > 1) {
        const u32 middle = (low + high) / 2;
        (p.spans[middle].first_token <= token ? low : high) = middle;
    }
    // first_token stays: other threads search for it.
    p.spans[low].tokens = p.spans[low].context = 0;
}
