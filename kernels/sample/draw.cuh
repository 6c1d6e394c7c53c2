// Draws: the token of the largest perturbed score, in a tile of a direct row or among a row's candidates.
#pragma once

#include "../philox.cuh"
#include "candidates.cuh"

// A token that may be drawn. The larger value wins, and the lower id among equal values.
struct ScoredToken {
    double value;
    u32 id;
    float expert, amateur;  // its logits
};

constexpr ScoredToken NO_TOKEN = {-INFINITY, NONE, 0, 0};

DEVICE ScoredToken better(const ScoredToken& a, const ScoredToken& b) {
    return a.value > b.value || (a.value == b.value && a.id < b.id) ? a : b;
}

// The value that a draw maximizes, as the reference defines it: (z - peak) / temperature + gumbel, or z -
// peak at temperature 0.
DEVICE double perturbed(const SampleWords& sample, double below_peak, u32 bits) {
    return sample.temperature > 0.0 ? below_peak / sample.temperature + gumbel(bits) : below_peak;
}

// The random bits of a token.
DEVICE u32 bits_of(const SampleWords& sample, u32 id) {
    const NoiseBits bits = noise_bits(id / 4, sample.position, sample.record, sample.key);
    // A dynamic index would put the four words into local memory.
    const u32 low = id & 1 ? bits.of[1] : bits.of[0], high = id & 1 ? bits.of[3] : bits.of[2];
    return id & 2 ? high : low;
}

// The winner of a tile of a direct row, by its warp. Approximate values find the few tokens that can win,
// exact values decide among them.
DEVICE ScoredToken tile_winner(const SampleWords& sample, u32 first, float peak,
                               const float (&z)[LANE_LOGITS]) {
    // Twice the error: 5e-5 from the noise and 1e-5 from the score of any token that can win (at most 27
    // below the peak).
    constexpr float SLACK = 2e-4f;
    const bool draws = sample.temperature > 0.0;
    const float steepness = draws ? steepness_of(sample) : 1.0f;
    float approximate[LANE_LOGITS];
    float best = -INFINITY;
#pragma unroll
    for (u32 run = 0; run < LANE_LOGITS; run += 4) {
        NoiseBits bits = {};
        if (draws)
            bits = noise_bits((first + id_in_tile(run)) / 4, sample.position, sample.record, sample.key);
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            approximate[run + i] = (z[run + i] - peak) * steepness + (draws ? gumbel_approx(bits.of[i]) : 0);
            best = fmaxf(best, approximate[run + i]);
        }
    }
    best = warp_max(best) - SLACK;
    ScoredToken winner = NO_TOKEN;
#pragma unroll
    for (u32 i = 0; i < LANE_LOGITS; ++i) {
        if (approximate[i] >= best && z[i] > -INFINITY) {
            const u32 id = first + id_in_tile(i);
            const double below = double(z[i]) - double(peak);
            const double value = perturbed(sample, below, draws ? bits_of(sample, id) : 0);
            winner = better(winner, {value, id, z[i], 0});
        }
    }
    return warp_reduce(winner, better);
}

// The token drawn among a row's candidates, by the block. Its `value` is log_softmax(s) at the token.
DEVICE ScoredToken draw(const Row& row, u32 size, double tempered_sum) {
    const SampleWords& sample = *row.sample;
    ScoredToken first = NO_TOKEN;
    row.each_candidate(
        [&](u32 id, double s, float z_e, float z_a) { first = better(first, {s, id, z_e, z_a}); });
    first = block_reduce(first, better);
    const double best = first.value;
    // A beta so large that a score is infinite: no token can be drawn, unless it is the only candidate.
    if (best == INFINITY) {
        first.value = size == 1 ? 0.0 : NAN;
        return first;
    }

    ScoredToken winner = NO_TOKEN;
    Bound bound;
    if (truncates(sample)) bound = row.truncate(best, size, tempered_sum);
    u64 sum = 0;
    row.each_candidate([&](u32 id, double s, float z_e, float z_a) {
        sum += u64(exp(s - best) * UNITS);
        if (!(sample.temperature > 0.0) || !bound.holds(word_of(best - s), id)) return;
        if (sample.min_p > 0.0 && row.weight(s - best) < sample.min_p) return;
        const double value = (s - best) / sample.temperature;
        const u32 bits = bits_of(sample, id);
        if (value + gumbel_bound(bits) < winner.value) return;
        winner = better(winner, {value + gumbel(bits), id, z_e, z_a});
    });
    sum = block_reduce(sum, add);
    winner = sample.temperature > 0.0 ? block_reduce(winner, better) : first;
    winner.value = row.score(winner.id, winner.expert, winner.amateur) - best - log(double(sum) / UNITS);
    return winner;
}
