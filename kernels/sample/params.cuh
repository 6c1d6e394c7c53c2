// The parameters of the kernels of contrast_sample.cu, and questions about a row that they answer.
#pragma once

#include "../candidates.cuh"
#include "../step.cuh"

// Summary of one tile of a row's logits.
struct TileWords {
    float expert_peak, expert_sum;    // the expert's largest logit z, and sum exp(z - peak)
    float amateur_peak, amateur_sum;  // the same of the amateur; -inf and 0 where its logits are not read
    u32 faults;                       // FAULT_*
    u32 unmasked;                     // direct rows: the number of tokens that the expert does not mask
    float tempered_sum;               // direct rows with truncation: sum exp((z - peak) / temperature)
    u32 winner;                       // direct rows without truncation: the token that wins; else NONE
    float winner_logit;               // the expert's logit of the winner
};
MIRRORED(TileWords);

constexpr u32 FAULT_EXPERT = 1, FAULT_AMATEUR = 2;  // a logit is NaN or +inf

struct ContrastSampleParams {
    const float* expert;         // [rows, expert_stride]; [any, expert_stride] where rows were deferred
    const float* amateur;        // [rows, amateur_stride], or null
    const u32* special;          // [special_count], ascending
    const SampleWords* samples;  // [rows]
    TileWords* tiles;            // [rows, tiles of the vocabulary]
    ResultWords* results;        // [rows]
    float* deferred_logits;      // [any, deferred_stride]: for rows that await the amateur; or null
    CandidateBuffers candidates;
    u32 vocabulary;  // at most either stride; what follows in a row is padding and is not read
    u32 expert_stride;
    u32 amateur_stride;
    u32 special_count;
    u32 deferred_stride;
    u32 capacity;  // the most candidates of a row that are listed, at most LISTED
};
MIRRORED(ContrastSampleParams);

// A tile is the work of one warp; each lane holds LANE_LOGITS of its logits.
constexpr u32 TILE = 512, LANE_LOGITS = TILE / 32;
constexpr u32 ALL_LANES = 0xFFFFFFFF;

DEVICE u32 tiles_of(const ContrastSampleParams& p) { return (p.vocabulary + TILE - 1) / TILE; }

DEVICE bool reads_amateur(const ContrastSampleParams& p, const SampleWords& sample) {
    return p.amateur != nullptr && (sample.beta != 0.0 || sample.special_beta != 0.0);
}

// Whether every token that the expert does not mask is a candidate. All of the amateur's logits are there
// then.
DEVICE bool keeps_all(const SampleWords& sample) { return sample.ln_alpha == -INFINITY; }

DEVICE bool wants_log_probabilities(const SampleWords& sample) {
    return sample.flags & WANTS_LOG_PROBABILITIES;
}

// The expert's logits: those of this step, or the deferred ones if the row was deferred in an earlier step.
DEVICE const float* expert_row(const ContrastSampleParams& p, u32 index) {
    const bool is_new = p.deferred_logits != nullptr || p.samples[index].deferred_row == NONE;
    return p.expert + u64(is_new ? index : p.samples[index].deferred_row) * p.expert_stride;
}

// Whether the row can only be sampled in this step if it does not need the amateur.
DEVICE bool is_deferred(const ContrastSampleParams& p, const SampleWords& sample) {
    return p.deferred_logits != nullptr && sample.deferred_row != NONE;
}

// Whether top-k, top-p or min-p may remove candidates.
DEVICE bool truncates(const SampleWords& sample) {
    return sample.temperature > 0.0 && (sample.top_k > 0 || sample.top_p < 1.0 || sample.min_p > 0.0);
}

// Whether a row is direct: all of the expert's tokens are candidates, and the scores are its
// log-probabilities. If nothing is truncated either, each tile can draw its own winner.
DEVICE bool is_direct(const ContrastSampleParams& p, const SampleWords& sample) {
    return keeps_all(sample) && !reads_amateur(p, sample);
}
