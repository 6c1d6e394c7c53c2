// The words of a step's lists, as src/device/gpu/inputs.rs fills them.
#pragma once

#include "prelude.cuh"

// No slot (the row is padding), no token or no output.
constexpr u32 NONE = 0xffffffff;

// A run of consecutive tokens of one sequence.
struct alignas(16) SpanWords {
    u32 first_token;  // its first row
    u32 tokens;       // its number of rows
    u32 context;      // positions in the cache after this step; 0: the span is padding, which kernels skip
    u32 first_block;  // where its block table begins in the list of blocks
};
MIRRORED(SpanWords);

// How one output is sampled; src/contrast documents the parameters.
struct SampleWords {
    double ln_alpha;      // ln(alpha); -inf makes every unmasked token a candidate
    double beta;          // of ordinary tokens
    double special_beta;  // of special tokens
    double temperature;   // 0: the token of the highest score
    double top_p;         // 1: no limit
    double min_p;         // 0: no limit
    u32 top_k;            // 0: no limit
    u32 position;         // of the drawn token; NONE: the row is padding and keeps its result
    u32 key[2];           // the key of the noise
    u32 record[2];        // the words of the noise's counter that stand for the record
    u32 deferred_row;     // index among the deferred logits; NONE: the amateur is not deferred
    u32 flags;            // WANTS_LOG_PROBABILITIES
};
MIRRORED(SampleWords);

constexpr u32 WANTS_LOG_PROBABILITIES = 1;

// What sampling returns for one output.
struct ResultWords {
    u32 token;           // 0 where there is none
    u32 status;          // OK, NOT_A_NUMBER, ALL_MASKED, AWAITS_AMATEUR or SCORE_OVERFLOW
    u32 num_candidates;  // size of the plausible set
    float score;         // log_softmax of the scores at the token
    float expert_log_probability;
    float amateur_log_probability;  // NaN where the amateur does not contribute, or it was not asked for
};
MIRRORED(ResultWords);

constexpr u32 OK = 0, NOT_A_NUMBER = 1, ALL_MASKED = 2, AWAITS_AMATEUR = 3, SCORE_OVERFLOW = 4;
