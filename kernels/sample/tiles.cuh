// Tiles of a row's logits: one tile is loaded and summarized by one warp; a block combines the summaries of a
// row.
#pragma once

#include "block.cuh"

// The offset within the tile of a lane's n-th logit. A lane holds runs of four neighbours, so that it reads
// 16 bytes at a time and the four share one block of noise.
DEVICE u32 id_in_tile(u32 logit) { return logit / 4 * 128 + threadIdx.x % 32 * 4 + logit % 4; }

// Loads a lane's logits of the tile that begins at token `first`; -inf past the end of the vocabulary.
DEVICE void load_tile(const float* row, u32 vocabulary, u32 first, float (&z)[LANE_LOGITS]) {
    const bool is_aligned = reinterpret_cast<uintptr_t>(row) % 16 == 0;
    if (is_aligned && first + TILE <= vocabulary) {
#pragma unroll
        for (u32 run = 0; run < LANE_LOGITS; run += 4) {
            const Vec<float, 4> four = load_vec<4>(row + first + id_in_tile(run));
#pragma unroll
            for (u32 i = 0; i < 4; ++i) z[run + i] = four.v[i];
        }
    } else {
#pragma unroll
        for (u32 i = 0; i < LANE_LOGITS; ++i) {
            const u32 id = first + id_in_tile(i);
            z[i] = id < vocabulary ? row[id] : -INFINITY;
        }
    }
}

struct Summary {
    float peak, sum;
    bool has_fault;
};

// The summary of a tile, by its warp.
DEVICE Summary summarize(const float (&z)[LANE_LOGITS]) {
    float peak = -INFINITY, sum = 0;
    bool has_fault = false;
#pragma unroll
    for (u32 i = 0; i < LANE_LOGITS; ++i) {
        peak = fmaxf(peak, z[i]);
        has_fault |= !(z[i] < INFINITY);
    }
    peak = warp_max(peak);
    const float base = peak > -INFINITY ? peak : 0;
#pragma unroll
    for (u32 i = 0; i < LANE_LOGITS; ++i) sum += __expf(z[i] - base);
    return {peak, warp_sum(sum), __any_sync(ALL_LANES, has_fault) != 0};
}

// 1 / temperature, as a finite float.
DEVICE float steepness_of(const SampleWords& sample) { return float(fmin(1.0 / sample.temperature, 3e38)); }

// The tile's sum exp((z - peak) / temperature), by its warp.
DEVICE float tempered_sum(const SampleWords& sample, float peak, const float (&z)[LANE_LOGITS]) {
    const float steepness = steepness_of(sample);
    float sum = 0;
#pragma unroll
    for (u32 i = 0; i < LANE_LOGITS; ++i) sum += __expf((z[i] - peak) * steepness);
    return warp_sum(sum);
}

// What the tiles of a row say together, apart from their sums.
struct Peaks {
    float expert, amateur;
    u32 faults, unmasked;
};

DEVICE Peaks combine_peaks(const Peaks& a, const Peaks& b) {
    return {fmaxf(a.expert, b.expert), fmaxf(a.amateur, b.amateur), a.faults | b.faults,
            a.unmasked + b.unmasked};
}

// The sums of TileWords over a row, relative to the row's peaks.
struct Sums {
    double expert, amateur, tempered;
};

DEVICE Sums combine_sums(const Sums& a, const Sums& b) {
    return {a.expert + b.expert, a.amateur + b.amateur, a.tempered + b.tempered};
}

DEVICE TileWords* tiles_of_row(const ContrastSampleParams& p, u32 index) {
    return p.tiles + u64(index) * tiles_of(p);
}

// The row's peaks, by the block.
DEVICE Peaks peaks_of_row(const ContrastSampleParams& p, u32 index) {
    const TileWords* const words = tiles_of_row(p, index);
    Peaks peaks = {-INFINITY, -INFINITY, 0, 0};
    for (u32 tile = threadIdx.x; tile < tiles_of(p); tile += blockDim.x) {
        const TileWords of = words[tile];
        peaks = combine_peaks(peaks, {of.expert_peak, of.amateur_peak, of.faults, of.unmasked});
    }
    return block_reduce(peaks, combine_peaks);
}

// Whether the expert masks every token.
DEVICE bool is_masked(const Peaks& peaks) {
    return peaks.expert == -INFINITY && !(peaks.faults & FAULT_EXPERT);
}

// Completes the tiles of a row whose amateur's logits did not exist yet when contrast_tiles ran, by the
// block.
DEVICE void summarize_amateur(const ContrastSampleParams& p, u32 index) {
    TileWords* const words = tiles_of_row(p, index);
    for (u32 tile = threadIdx.x / 32; tile < tiles_of(p); tile += blockDim.x / 32) {
        float z[LANE_LOGITS];
        load_tile(p.amateur + u64(index) * p.amateur_stride, p.vocabulary, tile * TILE, z);
        const Summary a = summarize(z);
        if (threadIdx.x % 32 == 0) {
            words[tile].amateur_peak = a.peak;
            words[tile].amateur_sum = a.sum;
            words[tile].faults |= a.has_fault ? FAULT_AMATEUR : 0;
        }
    }
    __syncthreads();
}
