// The candidates of a row: which tokens they are, their scores, and what top-k, top-p and min-p leave of
// them.
#pragma once

#include "select.cuh"
#include "tiles.cuh"

// Exponentials of numbers up to 0 are summed as integers in units of 2^-44, so that the order does not
// matter. A sum over 2^18 tokens has an error of at most 2^-26.
constexpr double UNITS = 0x1p44;

// A row whose tiles are summarized, and its candidates. Direct rows have no plausible set: their candidates
// are the tokens that truncation can leave.
struct Row {
    const float* expert;     // [vocabulary]: logits
    const float* amateur;    // [vocabulary]; null if it does not contribute or is listed
    bool contrasts;          // whether the amateur contributes to the scores
    const TileWords* tiles;  // [tile_count]
    const u32* special;      // [special_count]
    u32 special_count, vocabulary, tile_count;
    const SampleWords* sample;
    float expert_peak;    // the expert's largest logit
    double amateur_zero;  // l_a = z - amateur_zero, up to a constant that all scores share
    double masked;        // l_a of tokens that the amateur masks
    double floor;         // a candidate has z - expert_peak >= floor
    bool is_listed;       // whether shared memory holds all candidates

    DEVICE bool is_candidate(float z) const {
        return z > -INFINITY && double(z) - double(expert_peak) >= floor;
    }

    DEVICE bool is_special(u32 id) const {
        u32 low = 0, high = special_count;
        while (low < high) {
            const u32 middle = (low + high) / 2;
            if (special[middle] < id)
                low = middle + 1;
            else
                high = middle;
        }
        return low < special_count && special[low] == id;
    }

    // The score s of a token, up to a constant of the row.
    DEVICE double score(u32 id, float z_e, float z_a) const {
        const double l_e = double(z_e) - double(expert_peak);
        if (!contrasts) return l_e;
        const bool takes_special = sample->beta != sample->special_beta && is_special(id);
        const double l_a = z_a > -INFINITY ? double(z_a) - amateur_zero : masked;
        return l_e - (takes_special ? sample->special_beta : sample->beta) * l_a;
    }

    // Calls f(first id, expert's logits, amateur's logits) by a whole warp for each tile that has a
    // candidate.
    template <class F>
    DEVICE void each_tile(F f) const {
        const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
        for (u32 begin = warp; begin < tile_count; begin += 32 * warps) {
            const u32 own = begin + lane * warps;
            u32 left = __ballot_sync(ALL_LANES, own < tile_count && is_candidate(tiles[own].expert_peak));
            for (; left; left &= left - 1) {
                const u32 first = (begin + u32(__ffs(i32(left)) - 1) * warps) * TILE;
                float z_e[LANE_LOGITS], z_a[LANE_LOGITS] = {};
                load_tile(expert, vocabulary, first, z_e);
                if (amateur) load_tile(amateur, vocabulary, first, z_a);
                f(first, z_e, z_a);
            }
        }
    }

    // Calls f(id, score, expert's logit, amateur's logit) by one thread for each candidate.
    template <class F>
    DEVICE void each_candidate(F f) const {
        if (is_listed) {
            for (u32 i = threadIdx.x; i < shared().listed; i += blockDim.x) {
                const u32 id = shared().id[i];
                const float z_e = shared().expert[i], z_a = shared().amateur[i];
                f(id, score(id, z_e, z_a), z_e, z_a);
            }
        } else {
            each_tile([&](u32 first, const float (&z_e)[LANE_LOGITS], const float (&z_a)[LANE_LOGITS]) {
#pragma unroll
                for (u32 i = 0; i < LANE_LOGITS; ++i) {
                    const u32 id = first + id_in_tile(i);
                    if (is_candidate(z_e[i])) f(id, score(id, z_e[i], z_a[i]), z_e[i], z_a[i]);
                }
            });
        }
    }

    // Finds the candidates, lists them if they fit, and sets the score of masked tokens. Returns their
    // number.
    DEVICE u32 find_candidates() {
        const u32 lane = threadIdx.x % 32;
        if (threadIdx.x == 0) shared().listed = 0;
        __syncthreads();
        double least = INFINITY;
        each_tile([&](u32 first, const float (&z_e)[LANE_LOGITS], const float (&z_a)[LANE_LOGITS]) {
            u32 count = 0;
#pragma unroll
            for (u32 i = 0; i < LANE_LOGITS; ++i) count += is_candidate(z_e[i]) ? 1 : 0;
            u32 end = count;
#pragma unroll
            for (u32 delta = 1; delta < 32; delta *= 2) {
                const u32 before = __shfl_up_sync(ALL_LANES, end, delta);
                end += lane >= delta ? before : 0;
            }
            u32 at = lane == 31 ? atomicAdd(&shared().listed, end) : 0;
            at = __shfl_sync(ALL_LANES, at, 31) + end - count;
#pragma unroll
            for (u32 i = 0; i < LANE_LOGITS; ++i) {
                if (!is_candidate(z_e[i])) continue;
                if (z_a[i] > -INFINITY) least = fmin(least, double(z_a[i]));
                if (at < LISTED) {
                    shared().id[at] = first + id_in_tile(i);
                    shared().expert[at] = z_e[i];
                    shared().amateur[at] = z_a[i];
                }
                ++at;
            }
        });
        set_masked(least);
        is_listed = shared().listed <= LISTED;
        return shared().listed;
    }

    // Takes the candidates that shared memory lists already.
    DEVICE void take_listed() {
        double least = INFINITY;
        for (u32 i = threadIdx.x; i < shared().listed; i += blockDim.x) {
            const float z_a = shared().amateur[i];
            if (z_a > -INFINITY) least = fmin(least, double(z_a));
        }
        set_masked(least);
        is_listed = true;
    }

    // Sets `masked`. `least` is the amateur's least unmasked logit among the candidates that this thread has
    // seen.
    DEVICE void set_masked(double least) {
        least = block_reduce(least, least_of);
        __syncthreads();
        masked = least < INFINITY ? least - amateur_zero : 0.0;
    }

    // exp((score - best) / temperature), where `below` is score - best.
    DEVICE double weight(double below) const { return exp(below / sample->temperature); }

    // The last candidate that top-k, then top-p leave. `tempered_sum` is the whole row's if the row is
    // direct, else 0.
    DEVICE Bound truncate(double best, u32 size, double tempered_sum) const {
        Bound bound;
        if (sample->top_k > 0 && sample->top_k < size) {
            bound = select(sample->top_k, [&](auto f) {
                each_candidate([&](u32 id, double s, float, float) { f(word_of(best - s), id, 1); });
            });
        }
        if (sample->top_p >= 1.0) return bound;
        const auto mass = [&](u32 id, double s) {
            return bound.holds(word_of(best - s), id) ? u64(weight(s - best) * UNITS) : 0;
        };
        u64 total = u64(tempered_sum * UNITS);
        if (sample->top_k > 0 || !(tempered_sum > 0)) {
            total = 0;
            each_candidate([&](u32 id, double s, float, float) { total += mass(id, s); });
            total = block_reduce(total, add);
        }
        const u64 target = u64(ceil(sample->top_p * double(total)));
        return select(target > 0 ? target : 1, [&](auto f) {
            each_candidate([&](u32 id, double s, float, float) { f(word_of(best - s), id, mass(id, s)); });
        });
    }

    // A lower bound of z - expert_peak for everything that truncation can leave of a direct row.
    DEVICE double truncation_floor() const {
        double bound = -INFINITY;
        if (sample->top_k > 0 && sample->top_k <= tile_count) {
            // The top_k largest peaks of tiles are logits of top_k different tokens.
            const Bound place = select(sample->top_k, [&](auto f) {
                for (u32 tile = threadIdx.x; tile < tile_count; tile += blockDim.x) {
                    f(word_of(double(expert_peak) - double(tiles[tile].expert_peak)), tile, 1);
                }
            });
            double below;
            memcpy(&below, &place.key, sizeof below);
            if (below < INFINITY) bound = -below;
        } else if (sample->top_k == 0 && sample->top_p < 1.0) {
            // All weights below the bound together are less than 1 - top_p. The total is at least 1, the
            // likeliest's weight.
            bound = sample->temperature * log((1.0 - sample->top_p) / double(vocabulary));
        }
        // With top-k, top-p counts in shares of what top-k leaves, and all of that must be visited.
        if (sample->min_p > 0.0 && (sample->top_k == 0 || sample->top_p >= 1.0)) {
            bound = fmax(bound, sample->temperature * (log(sample->min_p) - 1e-9));
        }
        return bound;
    }
};

// The row at `index`, before its candidates are found.
DEVICE Row row_of(const ContrastSampleParams& p, u32 index, const Peaks& peaks) {
    Row row = {};
    row.expert = expert_row(p, index);
    row.tiles = tiles_of_row(p, index);
    row.special = p.special;
    row.special_count = p.special_count;
    row.vocabulary = p.vocabulary;
    row.tile_count = tiles_of(p);
    row.sample = &p.samples[index];
    row.expert_peak = peaks.expert;
    row.floor = row.sample->ln_alpha;
    return row;
}

// Lists a row's candidates in shared memory with the logits that contrast_project computed. The result has
// only the amateur's largest logit, which replaces its normalizer, and its faults.
DEVICE Peaks load_candidates(const ContrastSampleParams& p, const CandidateList& list) {
    Peaks peaks = {-INFINITY, -INFINITY, 0, 0};
    for (u32 i = threadIdx.x; i < list.size; i += blockDim.x) {
        const CandidateEntry entry = p.candidates.entries[list.first + i];
        shared().id[i] = entry.id;
        shared().expert[i] = entry.expert;
        shared().amateur[i] = entry.amateur;
        peaks.amateur = fmaxf(peaks.amateur, entry.amateur);
        peaks.faults |= entry.amateur < INFINITY ? 0 : FAULT_AMATEUR;
    }
    if (threadIdx.x == 0) shared().listed = list.size;
    __syncthreads();
    return block_reduce(peaks, combine_peaks);
}
