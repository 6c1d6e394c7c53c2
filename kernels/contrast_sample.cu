// The next token of each row of logits, by the method that src/contrast specifies.
//
// `contrast_tiles` reads both models' logits once, a tile of 512 a warp. Of each tile it leaves the peaks,
// the sums of exponentials and, in direct rows that are not truncated, the tile's winner. `contrast_sample`
// combines the tiles of a row. The row's peak says which tiles have candidates, and only those are read
// again. In a direct row, the same is done for the tokens that top-k, top-p and min-p can leave.
//
// `contrast_candidates` runs between the two where the amateur's hidden states exist, but not its logits. It
// lists the candidates of each row, whose logits contrast_project.cu computes, and the rows that need all of
// their logits, which a grouped product computes. Which of the two happens depends on the row alone.
//
// Everything that decides is computed in f64, as in the reference. Sums over candidates are sums of integers
// (fixed point); all other reductions are maxima, minima, or sums in an order that the vocabulary fixes. So a
// row's bits depend on the row alone.
//
// Floor: 8 bytes a token of the vocabulary and row. 256 rows of 131,072 tokens of two models are 268 MB, 80
// us at 3.35 TB/s; rows sampled from the expert alone, or with gathered candidates, read half of that. These
// figures are not measured on a GPU.
#include "sample/draw.cuh"

// Blocks of contrast_tiles an SM, which bound the registers of a thread. The code for sm_100 and sm_120 needs
// more registers than four blocks leave.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
#define TILES_BLOCKS 3
#else
#define TILES_BLOCKS 4
#endif

// PRECOND: grid = rows * ceil(tiles / warps a block), 1, 1; block = a multiple of 32, the same for all
// batches.
KERNEL(contrast_tiles, ContrastSampleParams, 256, TILES_BLOCKS) {
    const u32 warps = blockDim.x / 32, tiles = tiles_of(p), blocks = (tiles + warps - 1) / warps;
    const u32 row = blockIdx.x / blocks, tile = blockIdx.x % blocks * warps + threadIdx.x / 32;
    const SampleWords& sample = p.samples[row];
    if (p.candidates.counts && blockIdx.x == 0 && threadIdx.x == 0) *p.candidates.counts = {0, {0, 0}, 0};
    if (tile >= tiles || sample.position == NONE) return;

    const bool contrasts = reads_amateur(p, sample) && !p.candidates.lists;
    float expert[LANE_LOGITS], amateur[LANE_LOGITS];
    load_tile(expert_row(p, row), p.vocabulary, tile * TILE, expert);
    if (contrasts) load_tile(p.amateur + u64(row) * p.amateur_stride, p.vocabulary, tile * TILE, amateur);

    const Summary e = summarize(expert);
    TileWords words = {e.peak, e.sum, -INFINITY, 0, e.has_fault ? FAULT_EXPERT : 0, 0, 0, NONE, 0};
    if (contrasts) {
        const Summary a = summarize(amateur);
        words.amateur_peak = a.peak;
        words.amateur_sum = a.sum;
        words.faults |= a.has_fault ? FAULT_AMATEUR : 0;
    } else if (is_direct(p, sample) && e.peak > -INFINITY) {
        float unmasked = 0;
#pragma unroll
        for (u32 i = 0; i < LANE_LOGITS; ++i) unmasked += expert[i] > -INFINITY ? 1.0f : 0.0f;
        words.unmasked = u32(warp_sum(unmasked));
        if (truncates(sample)) {
            words.tempered_sum = tempered_sum(sample, e.peak, expert);
        } else {
            const ScoredToken winner = tile_winner(sample, tile * TILE, e.peak, expert);
            words.winner = winner.id;
            words.winner_logit = winner.expert;
        }
    }
    if (threadIdx.x % 32 == 0) p.tiles[u64(row) * tiles + tile] = words;
}

// Lists the candidates whose logits of the amateur are computed one by one, and the full rows, which need all
// of theirs. A row is full if it has too many candidates, or if its candidates have two betas: the amateur's
// normalizer counts then.
//
// PRECOND: the geometry of contrast_sample; after contrast_tiles.
KERNEL(contrast_candidates, ContrastSampleParams, 256, 2) {
    const u32 index = blockIdx.x;
    const SampleWords& sample = p.samples[index];
    if (sample.position == NONE || !reads_amateur(p, sample)) return;
    if (keeps_all(sample)) {
        if (threadIdx.x == 0) p.candidates.lists[index] = {0, NONE};
        return;
    }
    const Peaks peaks = peaks_of_row(p, index);
    if (peaks.faults || is_masked(peaks)) {
        if (threadIdx.x == 0) p.candidates.lists[index] = {0, 0};
        return;
    }
    Row row = row_of(p, index, peaks);
    const u32 size = row.find_candidates();
    u64 special = 0;
    if (size <= p.capacity && sample.beta != sample.special_beta) {
        row.each_candidate([&](u32 id, double, float, float) { special += row.is_special(id) ? 1 : 0; });
        special = block_reduce(special, add);
    }
    const bool is_full = size > p.capacity || special > 0;
    if (threadIdx.x == 0) {
        CandidateCounts* const counts = p.candidates.counts;
        const u32 place =
            is_full ? atomicAdd(&counts->full_row_offsets[1], 1u) : atomicAdd(&counts->entries, size);
        if (is_full) p.candidates.full_rows[place] = index;
        p.candidates.lists[index] = {is_full ? 0 : place, is_full ? NONE : size};
        shared().base = place;
    }
    __syncthreads();
    if (is_full) return;
    for (u32 i = threadIdx.x; i < size; i += blockDim.x) {
        p.candidates.entries[shared().base + i] = {index, shared().id[i], shared().expert[i], 0};
    }
}

// PRECOND: grid = rows, 1, 1; block = 32 min(tiles, 8); SHARED_BYTES of shared memory; after contrast_tiles.
KERNEL(contrast_sample, ContrastSampleParams, 256, 2) {
    const u32 index = blockIdx.x, tiles = tiles_of(p);
    const SampleWords& sample = p.samples[index];
    if (sample.position == NONE) return;
    const TileWords* words = tiles_of_row(p, index);

    // The amateur is late if its logits were computed after contrast_tiles ran. The row is gathered if only
    // its candidates have them.
    const bool has_amateur = reads_amateur(p, sample), is_late = has_amateur && p.candidates.lists;
    const CandidateList list = is_late ? p.candidates.lists[index] : CandidateList{0, NONE};
    const bool is_gathered = list.size != NONE;
    if (is_late && (!is_gathered || wants_log_probabilities(sample))) summarize_amateur(p, index);
    Peaks peaks = peaks_of_row(p, index);
    float amateur_peak = peaks.amateur;
    if (is_gathered) {
        const Peaks of_candidates = load_candidates(p, list);
        amateur_peak = of_candidates.amateur;
        peaks.faults |= of_candidates.faults;
    }
    if (is_masked(peaks) || peaks.faults) {
        if (threadIdx.x == 0)
            p.results[index] = {0, is_masked(peaks) ? ALL_MASKED : NOT_A_NUMBER, 0, 0, 0, 0};
        return;
    }

    // An amateur that masks every token does not contribute.
    const bool contrasts = has_amateur && amateur_peak > -INFINITY, is_normalized = peaks.amateur > -INFINITY;
    const bool direct = is_direct(p, sample);
    Sums sums = {0, 0, 0};
    ScoredToken winner = NO_TOKEN;
    for (u32 tile = threadIdx.x; tile < tiles; tile += blockDim.x) {
        const TileWords of = words[tile];
        const double below = double(of.expert_peak) - double(peaks.expert);
        sums.expert += of.expert_sum * exp(below);
        if (is_normalized)
            sums.amateur += of.amateur_sum * exp(double(of.amateur_peak) - double(peaks.amateur));
        if (of.tempered_sum > 0) sums.tempered += of.tempered_sum * exp(below / sample.temperature);
        if (of.winner != NONE) {
            const double value =
                perturbed(sample, double(of.winner_logit) - double(peaks.expert), bits_of(sample, of.winner));
            winner = better(winner, {value, of.winner, of.winner_logit, 0});
        }
    }
    sums = block_reduce(sums, combine_sums);
    const double l_e_zero = double(peaks.expert) + log(sums.expert);
    const double l_a_zero = is_normalized ? double(peaks.amateur) + log(sums.amateur) : 0.0;

    u32 size = peaks.unmasked;
    // Whether the row must wait for the deferred amateur; the expert decides rows of one candidate.
    const auto awaits_amateur = [&](u32 found) {
        const bool awaits = is_deferred(p, sample) && (found > 1 || wants_log_probabilities(sample));
        if (awaits && threadIdx.x == 0) p.results[index] = {0, AWAITS_AMATEUR, found, 0, 0, 0};
        return awaits;
    };
    if (direct && awaits_amateur(size)) return;
    if (direct && !truncates(sample)) {
        winner = block_reduce(winner, better);
    } else {
        Row row = row_of(p, index, peaks);
        row.contrasts = contrasts;
        row.amateur = contrasts && !is_gathered ? p.amateur + u64(index) * p.amateur_stride : nullptr;
        // With one beta, the amateur's normalizer adds the same number to all scores and may be replaced by
        // the peak.
        const bool is_constant = is_gathered || sample.beta == sample.special_beta;
        row.amateur_zero = is_constant ? double(amateur_peak) : l_a_zero;
        if (direct) row.floor = row.truncation_floor();
        if (is_gathered) row.take_listed();
        const u32 found = is_gathered ? list.size : row.find_candidates();
        if (!direct) size = found;
        if (!direct && awaits_amateur(size)) return;
        winner = draw(row, size, sums.tempered);
    }
    if (threadIdx.x == 0) {
        const float l_e = float(double(winner.expert) - l_e_zero);
        // l_a is unknown where only candidates have logits; the row did not ask for it then.
        const bool has_l_a = has_amateur && (!is_gathered || wants_log_probabilities(sample));
        const float l_a =
            has_l_a ? (is_normalized ? float(double(winner.amateur) - l_a_zero) : -INFINITY) : NAN;
        const float score = direct ? l_e : float(winner.value);
        if (score > -INFINITY && score < INFINITY)
            p.results[index] = {winner.id, OK, size, score, l_e, l_a};
        else
            p.results[index] = {0, SCORE_OVERFLOW, 0, 0, 0, 0};
    }
}

// Copies the expert's logits of the rows that await the amateur to the deferred logits.
//
// PRECOND: blockIdx.x is the row; blockIdx.y and the threads share its logits; after contrast_sample.
KERNEL(defer_logits, ContrastSampleParams, 256, 1) {
    const SampleWords& sample = p.samples[blockIdx.x];
    if (sample.position == NONE || p.results[blockIdx.x].status != AWAITS_AMATEUR) return;
    const float* const from = p.expert + u64(blockIdx.x) * p.expert_stride;
    float* const to = p.deferred_logits + u64(sample.deferred_row) * p.deferred_stride;
    const u32 first = blockIdx.y * blockDim.x + threadIdx.x, stride = gridDim.y * blockDim.x;
    for (u32 id = first; id < p.vocabulary; id += stride) to[id] = from[id];
}
