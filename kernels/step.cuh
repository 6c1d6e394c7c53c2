// The step's lists as src/device/launch/step.rs lays them out.
#pragma once

#include "prelude.cuh"

// No slot (a row that is padding), no result.
constexpr u32 NONE = 0xffffffff;

// A run of consecutive tokens of one sequence.
struct alignas(16) Span {
    u32 first_token;
    u32 tokens;
    u32 context;  // positions in the cache after this step; 0: padding, to be left alone
    u32 first_block;
};

// How an output is sampled.
struct SampleWords {
    double ln_alpha, beta, special_beta, temperature, top_p, min_p;
    u32 top_k;
    u32 position;  // NONE in a row that is padding, which is left alone
    u32 seed[2], record[2];
    u32 deferred_row;   // the row of deferred logits, where the amateur is deferred, or NONE
    u32 flags;  // WANTS_LOG_PROBABILITIES
};

// What sampling gave for one output.
struct ResultWords {
    u32 token, status, head;
    float score, expert_log_probability, amateur_log_probability;
};
constexpr u32 OK = 0, NOT_A_NUMBER = 1, ALL_MASKED = 2, CONTESTED = 3;  // status
