// The next token of each row of logits, by the method of src/contrast.rs, which is the specification.
//
// Two kernels. `contrast_tiles` reads both models' logits once, a warp a tile of 512, and leaves of each tile its peaks,
// the sums of its exponentials and, where the whole row is sampled plainly, its winner. `contrast_sample` puts a row's
// tiles together; the row's peak says which tiles hold some of the head, and only those are read again. Where the head
// is the expert's whole row, the same is done for what top-k, top-p and min-p can leave of it.
//
// Where the amateur's logits are not there yet, its hidden states being, `contrast_heads` comes between: it lists the tokens
// of each head, whose logits contrast_project.cu then computes, and the rows that need all of theirs, which a grouped
// product gives them. Which of the two a row is depends on itself alone.
//
// Whatever decides is computed in f64 as the reference does. Sums over the head are of integers (fixed point), and all
// else is a maximum, a minimum or a sum in an order that the vocabulary fixes: a row's bits depend on nothing else.
//
// Floor: 8 bytes a token of the vocabulary and row. 256 rows of 131,072 tokens of two models are 268 MB, 80 us at
// 3.35 TB/s; sampled from the expert alone, or with heads gathered, half of that. Not measured on metal yet.
#include "heads.cuh"
#include "philox.cuh"

// What is known of a tile; TILE_BYTES of src/device/launch/sample.rs
struct TileWords {
    float expert_peak, expert_sum;    // the largest logit z, and sum exp(z - peak)
    float amateur_peak, amateur_sum;  // where the amateur is read, else -inf and 0
    u32 faults;                       // FAULT_*
    u32 unmasked;                     // where the row is direct: how many tokens the expert does not mask
    float tempered_sum;               // where direct and cut: sum exp((z - peak) / temperature)
    u32 winner;                       // where direct and not cut
    float winner_logit;
};
static_assert(sizeof(TileWords) == 36);

struct ContrastSampleParams {
    const float* expert;         // [rows, expert_stride]
    const float* amateur;        // [rows, amateur_stride], or null
    const u32* special;          // [special_count], ascending
    const SampleWords* samples;  // [rows]
    TileWords* tiles;            // [rows, tiles of the vocabulary]
    ResultWords* results;        // [rows]
    float* deferred_logits;   // [.., deferred_stride], where rows are to be settled: those that need the amateur go there; or null
    // Where the amateur's logits are those of the heads, and all of some rows; else null
    HeadWords* heads;     // [rows]
    HeadEntry* entries;   // [rows * capacity]
    HeadCounts* counts;
    u32* full_rows;       // [counts->full[1]], in any order
    u32 vocabulary;  // at most either stride: what follows in a row is padding and not read
    u32 expert_stride, amateur_stride;
    u32 special_count;
    u32 deferred_stride;
    u32 capacity;  // the largest head that is listed, at most LISTED
};

constexpr u32 TILE = 512, LANE_LOGITS = TILE / 32;
constexpr u32 FAULT_EXPERT = 1, FAULT_AMATEUR = 2;
constexpr u32 WANTS_LOG_PROBABILITIES = 1;
constexpr u32 ALL_LANES = 0xFFFFFFFF;

DEVICE u32 tiles_of(const ContrastSampleParams& p) { return (p.vocabulary + TILE - 1) / TILE; }

DEVICE bool reads_amateur(const ContrastSampleParams& p, const SampleWords& sample) {
    return p.amateur != nullptr && (sample.beta != 0.0 || sample.special_beta != 0.0);
}

// Whether the whole vocabulary is the head, as far as the expert does not mask it: then all of the amateur's logits are there.
DEVICE bool keeps_all(const SampleWords& sample) { return sample.ln_alpha == -INFINITY; }

DEVICE bool wants_log_probabilities(const SampleWords& sample) { return sample.flags & WANTS_LOG_PROBABILITIES; }

// The expert's logits: the output's own where they are new, else those that were deferred.
DEVICE const float* expert_row(const ContrastSampleParams& p, u32 index) {
    const bool is_new = p.deferred_logits != nullptr || p.samples[index].deferred_row == NONE;
    return p.expert + u64(is_new ? index : p.samples[index].deferred_row) * p.expert_stride;
}

// Whether the row can only be sampled where it needs no amateur.
DEVICE bool is_deferred(const ContrastSampleParams& p, const SampleWords& sample) {
    return p.deferred_logits != nullptr && sample.deferred_row != NONE;
}

// Whether top-k, top-p or min-p may cut something.
DEVICE bool truncates(const SampleWords& sample) {
    return sample.temperature > 0.0 && (sample.top_k > 0 || sample.top_p < 1.0 || sample.min_p > 0.0);
}

// Whether the head is the expert's whole row and scores are its log-probabilities. If nothing is cut either, each tile
// can name its own winner.
DEVICE bool is_direct(const ContrastSampleParams& p, const SampleWords& sample) {
    return keeps_all(sample) && !reads_amateur(p, sample);
}

// The id of a lane's logit within its tile: runs of four, so that a lane reads 16 bytes and four share their noise.
DEVICE u32 id_in_tile(u32 logit) { return logit / 4 * 128 + threadIdx.x % 32 * 4 + logit % 4; }

// A lane's part of the tile from id `first` on; -inf past the vocabulary.
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

// Of a tile, by its warp.
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

// What a draw makes largest, as the reference has it: (z - peak) / temperature + gumbel, or z - peak at temperature 0.
DEVICE double perturbed(const SampleWords& sample, double below_peak, u32 bits) {
    return sample.temperature > 0.0 ? below_peak / sample.temperature + gumbel(bits) : below_peak;
}

DEVICE u32 bits_of(const SampleWords& sample, u32 id) {
    const NoiseBits bits = noise_bits(id / 4, sample.position, sample.record, sample.seed);
    // Not indexed: that would put the four into local memory.
    const u32 low = id & 1 ? bits.of[1] : bits.of[0], high = id & 1 ? bits.of[3] : bits.of[2];
    return id & 2 ? high : low;
}

// A token that may be drawn. Of two the larger value wins, of equals the lower id.
struct Candidate {
    double value;
    u32 id;
    float expert, amateur;  // its logits
};

constexpr Candidate NOBODY = {-INFINITY, NONE, 0, 0};

DEVICE Candidate better(const Candidate& a, const Candidate& b) {
    return a.value > b.value || (a.value == b.value && a.id < b.id) ? a : b;
}

// By memory words, for types that shuffles do not know.
template <class T>
DEVICE T shuffle_xor(const T& x, int flip) {
    static_assert(sizeof(T) % 8 == 0);
    u64 words[sizeof(T) / 8];
    memcpy(words, &x, sizeof x);
#pragma unroll
    for (u64& word : words) word = __shfl_xor_sync(ALL_LANES, word, flip);
    T other;
    memcpy(&other, words, sizeof x);
    return other;
}

// Over a warp, the same in every lane. PRECOND: `combine` does not mind the order of its two arguments.
template <class T, class F>
DEVICE T warp_reduce(T x, F combine) {
#pragma unroll
    for (int flip = 16; flip > 0; flip /= 2) x = combine(x, shuffle_xor(x, flip));
    return x;
}

// 1 / temperature
DEVICE float steepness_of(const SampleWords& sample) { return float(fmin(1.0 / sample.temperature, 3e38)); }

DEVICE float tempered_sum(const SampleWords& sample, float peak, const float (&z)[LANE_LOGITS]) {
    const float steepness = steepness_of(sample);
    float sum = 0;
#pragma unroll
    for (u32 i = 0; i < LANE_LOGITS; ++i) sum += __expf((z[i] - peak) * steepness);
    return warp_sum(sum);
}

// The winner of a tile of a direct row. Approximate values find the few that may be it, exact ones decide.
DEVICE Candidate tile_winner(const SampleWords& sample, u32 first, float peak, const float (&z)[LANE_LOGITS]) {
    // Twice the error: of the draw 5e-5, of the rest 1e-5 where it matters (27 at most below the peak).
    constexpr float SLACK = 2e-4f;
    const bool draws = sample.temperature > 0.0;
    const float steepness = draws ? steepness_of(sample) : 1.0f;
    float nearly[LANE_LOGITS];
    float best = -INFINITY;
#pragma unroll
    for (u32 run = 0; run < LANE_LOGITS; run += 4) {
        NoiseBits bits = {};
        if (draws) bits = noise_bits((first + id_in_tile(run)) / 4, sample.position, sample.record, sample.seed);
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            nearly[run + i] = (z[run + i] - peak) * steepness + (draws ? gumbel_nearly(bits.of[i]) : 0);
            best = fmaxf(best, nearly[run + i]);
        }
    }
    best = warp_max(best) - SLACK;
    Candidate winner = NOBODY;
#pragma unroll
    for (u32 i = 0; i < LANE_LOGITS; ++i) {
        if (nearly[i] >= best && z[i] > -INFINITY) {
            const u32 id = first + id_in_tile(i);
            const double below = double(z[i]) - double(peak);
            const double value = perturbed(sample, below, draws ? bits_of(sample, id) : 0);
            winner = better(winner, {value, id, z[i], 0});
        }
    }
    return warp_reduce(winner, better);
}

// PRECOND: grid = rows * ceil(tiles / warps a block), 1, 1; block = a multiple of 32, the same for all batches.
KERNEL(contrast_tiles, ContrastSampleParams, 256, 4) {
    const u32 warps = blockDim.x / 32, tiles = tiles_of(p), blocks = (tiles + warps - 1) / warps;
    const u32 row = blockIdx.x / blocks, tile = blockIdx.x % blocks * warps + threadIdx.x / 32;
    const SampleWords& sample = p.samples[row];
    if (p.counts && blockIdx.x == 0 && threadIdx.x == 0) *p.counts = {0, {0, 0}, 0};
    if (tile >= tiles || sample.position == NONE) return;

    const bool contrasts = reads_amateur(p, sample) && !p.heads;
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
            const Candidate winner = tile_winner(sample, tile * TILE, e.peak, expert);
            words.winner = winner.id;
            words.winner_logit = winner.expert;
        }
    }
    if (threadIdx.x % 32 == 0) p.tiles[u64(row) * tiles + tile] = words;
}

constexpr u32 LISTED = 2048;  // a larger head is read again in each pass over it
constexpr u32 BINS = 256;
constexpr u32 MAX_WARPS = 8;

struct Shared {
    u64 scratch[MAX_WARPS * 4];  // of block_reduce
    u64 mass[BINS];              // of select
    u32 count[BINS];
    u64 base;
    u32 bin;
    u32 listed;
    u32 id[LISTED];  // the head, where it is small, in any order
    float expert[LISTED];
    float amateur[LISTED];
};
static_assert(sizeof(Shared) == 27920);  // SHARED_BYTES of src/device/launch/sample.rs

DEVICE Shared& shared() { return *reinterpret_cast<Shared*>(shared_memory()); }

// Over the block, the same in every thread.
template <class T, class F>
DEVICE T block_reduce(T x, F combine) {
    static_assert(sizeof(T) <= 32);
    x = warp_reduce(x, combine);
    if (blockDim.x == 32) return x;
    T* scratch = reinterpret_cast<T*>(shared().scratch);
    __syncthreads();  // whoever reads the last one's
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    x = scratch[0];
    for (u32 warp = 1; warp < blockDim.x / 32; ++warp) x = combine(x, scratch[warp]);
    return x;
}

DEVICE u64 add(u64 a, u64 b) { return a + b; }
DEVICE double least_of(double a, double b) { return fmin(a, b); }

struct Peaks {
    float expert, amateur;
    u32 faults, unmasked;
};

DEVICE Peaks combine_peaks(const Peaks& a, const Peaks& b) {
    return {fmaxf(a.expert, b.expert), fmaxf(a.amateur, b.amateur), a.faults | b.faults, a.unmasked + b.unmasked};
}

struct Sums {
    double expert, amateur, tempered;  // of the row, relative to its peak, as in TileWords
};

DEVICE Sums combine_sums(const Sums& a, const Sums& b) {
    return {a.expert + b.expert, a.amateur + b.amateur, a.tempered + b.tempered};
}

DEVICE u64 word_of(double x) {
    u64 word;
    memcpy(&word, &x, sizeof word);
    return word;
}

// Exponentials of at most 0 are summed in units of 2^-44: of 2^18 tokens to 1e-8, in any order.
constexpr double UNITS = 0x1p44;

// A place in the order of the head, likeliest first: best s - s as a word, then the id. At first, behind all.
struct Bound {
    u64 key = ~0ull;
    u32 id = ~0u;
    DEVICE bool holds(u64 of_key, u32 of_id) const { return of_key < key || (of_key == key && of_id <= id); }
};

// The first bin with which the masses, added to `base`, come to `target`, or BINS; and what is before it.
DEVICE void find_bin(u64 base, u64 target) {
    constexpr u32 OWN = BINS / 32;
    const u32 lane = threadIdx.x;
    u64 own = 0;
    for (u32 i = 0; i < OWN; ++i) own += shared().mass[lane * OWN + i];
    u64 end = own;
#pragma unroll
    for (u32 delta = 1; delta < 32; delta *= 2) {
        const u64 before = __shfl_up_sync(ALL_LANES, end, delta);
        end += lane >= delta ? before : 0;
    }
    const u32 reach = __ballot_sync(ALL_LANES, base + end >= target);
    if (reach == 0) {
        if (lane == 0) shared().bin = BINS;
    } else if (lane == u32(__ffs(i32(reach)) - 1)) {
        u64 before = base + end - own;
        u32 bin = lane * OWN;
        while (before + shared().mass[bin] < target) before += shared().mass[bin++];
        shared().bin = bin;
        shared().base = before;
    }
}

// The place at which the measures of what `visit` visits, in order of keys and ids, have come to `target`; behind all if
// they never do. Finds its digits, most significant first, each from a histogram of those that share the digits before.
// `visit(f)` calls f(key, id, measure) once for each, by any thread.
template <class V>
DEVICE Bound select(u64 target, V visit) {
    constexpr u32 KEY_DIGITS = 8, DIGITS = 12;
    Bound bound = {0, 0};
    u64 base = 0;
    for (u32 digit = 0; digit < DIGITS; ++digit) {
        const bool in_key = digit < KEY_DIGITS;
        const u32 shift = 8 * ((in_key ? KEY_DIGITS : DIGITS) - 1 - digit);
        __syncthreads();  // whoever reads the last digit's
        for (u32 bin = threadIdx.x; bin < BINS; bin += blockDim.x) {
            shared().mass[bin] = 0;
            shared().count[bin] = 0;
        }
        __syncthreads();
        visit([&](u64 key, u32 id, u64 measure) {
            const u64 differs = in_key ? (key ^ bound.key) >> shift : u64((id ^ bound.id) >> shift);
            if (differs >= BINS || (!in_key && key != bound.key)) return;
            const u32 bin = u32(in_key ? key >> shift : id >> shift) % BINS;
            atomicAdd(&shared().mass[bin], measure);
            atomicAdd(&shared().count[bin], 1u);
        });
        __syncthreads();
        if (threadIdx.x < 32) find_bin(base, target);
        __syncthreads();
        const u32 bin = shared().bin;
        if (bin == BINS) return {};
        base = shared().base;
        if (in_key) bound.key |= u64(bin) << shift;
        else bound.id |= bin << shift;
        if (shared().count[bin] == 1 || digit == DIGITS - 1) {
            // Nobody else shares these digits: those that follow may be anything.
            if (in_key) bound.key |= (1ull << shift) - 1;
            return {bound.key, in_key ? ~0u : bound.id | ((1u << shift) - 1)};
        }
    }
    return bound;
}

// A row whose tiles are done, and the tokens of its head.
struct Row {
    const float *expert, *amateur;  // logits; no amateur where it has no say, or only its logits of the head are there
    bool contrasts;                 // whether it has a say
    const TileWords* tiles;         // [tile_count]
    const u32* special;
    u32 special_count, vocabulary, tile_count;
    const SampleWords* sample;
    float expert_peak;
    double amateur_zero;  // l_a = z - this, up to what all scores have in common
    double masked;        // the l_a of tokens that the amateur masks
    double floor;         // what makes the head: z - peak is at least this; or what cannot be cut, of a direct row
    bool is_listed;

    DEVICE bool in_head(float z) const { return z > -INFINITY && double(z) - double(expert_peak) >= floor; }

    DEVICE bool is_special(u32 id) const {
        u32 low = 0, high = special_count;
        while (low < high) {
            const u32 middle = (low + high) / 2;
            if (special[middle] < id) low = middle + 1;
            else high = middle;
        }
        return low < special_count && special[low] == id;
    }

    // The score up to a constant of the row.
    DEVICE double s(u32 id, float z_e, float z_a) const {
        const double l_e = double(z_e) - double(expert_peak);
        if (!contrasts) return l_e;
        const bool takes_special = sample->beta != sample->special_beta && is_special(id);
        const double l_a = z_a > -INFINITY ? double(z_a) - amateur_zero : masked;
        return l_e - (takes_special ? sample->special_beta : sample->beta) * l_a;
    }

    // f(first id, expert's logits, amateur's logits) by a whole warp, for each tile that holds some of the head.
    template <class F>
    DEVICE void each_tile(F f) const {
        const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
        for (u32 begin = warp; begin < tile_count; begin += 32 * warps) {
            const u32 own = begin + lane * warps;
            u32 left = __ballot_sync(ALL_LANES, own < tile_count && in_head(tiles[own].expert_peak));
            for (; left; left &= left - 1) {
                const u32 first = (begin + u32(__ffs(i32(left)) - 1) * warps) * TILE;
                float z_e[LANE_LOGITS], z_a[LANE_LOGITS] = {};
                load_tile(expert, vocabulary, first, z_e);
                if (amateur) load_tile(amateur, vocabulary, first, z_a);
                f(first, z_e, z_a);
            }
        }
    }

    // f(id, s, expert's logit, amateur's logit) by one thread, for each token of the head.
    template <class F>
    DEVICE void each(F f) const {
        if (is_listed) {
            for (u32 i = threadIdx.x; i < shared().listed; i += blockDim.x) {
                const u32 id = shared().id[i];
                const float z_e = shared().expert[i], z_a = shared().amateur[i];
                f(id, s(id, z_e, z_a), z_e, z_a);
            }
        } else {
            each_tile([&](u32 first, const float(&z_e)[LANE_LOGITS], const float(&z_a)[LANE_LOGITS]) {
#pragma unroll
                for (u32 i = 0; i < LANE_LOGITS; ++i) {
                    const u32 id = first + id_in_tile(i);
                    if (in_head(z_e[i])) f(id, s(id, z_e[i], z_a[i]), z_e[i], z_a[i]);
                }
            });
        }
    }

    // Finds the head, lists it if it is small, and settles how masked tokens count. Returns |head|.
    DEVICE u32 find_head() {
        const u32 lane = threadIdx.x % 32;
        if (threadIdx.x == 0) shared().listed = 0;
        __syncthreads();
        double least = INFINITY;
        each_tile([&](u32 first, const float(&z_e)[LANE_LOGITS], const float(&z_a)[LANE_LOGITS]) {
            u32 count = 0;
#pragma unroll
            for (u32 i = 0; i < LANE_LOGITS; ++i) count += in_head(z_e[i]) ? 1 : 0;
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
                if (!in_head(z_e[i])) continue;
                if (z_a[i] > -INFINITY) least = fmin(least, double(z_a[i]));
                if (at < LISTED) {
                    shared().id[at] = first + id_in_tile(i);
                    shared().expert[at] = z_e[i];
                    shared().amateur[at] = z_a[i];
                }
                ++at;
            }
        });
        settle_masked(least);
        is_listed = shared().listed <= LISTED;
        return shared().listed;
    }

    // Of a head that is listed already.
    DEVICE void take_listed() {
        double least = INFINITY;
        for (u32 i = threadIdx.x; i < shared().listed; i += blockDim.x) {
            const float z_a = shared().amateur[i];
            if (z_a > -INFINITY) least = fmin(least, double(z_a));
        }
        settle_masked(least);
        is_listed = true;
    }

    // Given the least that the amateur does not mask of what this thread has seen of the head.
    DEVICE void settle_masked(double least) {
        least = block_reduce(least, least_of);
        __syncthreads();
        masked = least < INFINITY ? least - amateur_zero : 0.0;
    }

    DEVICE double weight(double below) const { return exp(below / sample->temperature); }

    // What top-k, then top-p leave. `tempered_sum` is that of the whole row, if the row is direct.
    DEVICE Bound cut(double best, u32 size, double tempered_sum) const {
        Bound bound;
        if (sample->top_k > 0 && sample->top_k < size) {
            bound = select(sample->top_k, [&](auto f) {
                each([&](u32 id, double s, float, float) { f(word_of(best - s), id, 1); });
            });
        }
        if (sample->top_p >= 1.0) return bound;
        const auto mass = [&](u32 id, double s) {
            return bound.holds(word_of(best - s), id) ? u64(weight(s - best) * UNITS) : 0;
        };
        u64 total = u64(tempered_sum * UNITS);
        if (sample->top_k > 0 || !(tempered_sum > 0)) {
            total = 0;
            each([&](u32 id, double s, float, float) { total += mass(id, s); });
            total = block_reduce(total, add);
        }
        const u64 target = u64(ceil(sample->top_p * double(total)));
        return select(target > 0 ? target : 1, [&](auto f) {
            each([&](u32 id, double s, float, float) { f(word_of(best - s), id, mass(id, s)); });
        });
    }

    // A bound on z - peak of what cutting can leave of a direct row.
    DEVICE double cut_floor() const {
        double bound = -INFINITY;
        if (sample->top_k > 0 && sample->top_k <= tile_count) {
            // There are at least so many as high as so many of the tiles' peaks.
            const Bound place = select(sample->top_k, [&](auto f) {
                for (u32 tile = threadIdx.x; tile < tile_count; tile += blockDim.x) {
                    f(word_of(double(expert_peak) - double(tiles[tile].expert_peak)), tile, 1);
                }
            });
            double below;
            memcpy(&below, &place.key, sizeof below);
            if (below < INFINITY) bound = -below;
        } else if (sample->top_k == 0 && sample->top_p < 1.0) {
            // All that lies lower has less than 1 - top_p of the whole, which is 1 or more in units of the likeliest.
            bound = sample->temperature * log((1.0 - sample->top_p) / double(vocabulary));
        }
        // Top-p counts in shares of what top-k leaves, of which nothing may be missing then.
        if (sample->min_p > 0.0 && (sample->top_k == 0 || sample->top_p >= 1.0)) {
            bound = fmax(bound, sample->temperature * (log(sample->min_p) - 1e-9));
        }
        return bound;
    }
};

// The winner, with log_softmax(s) at it in `value`.
DEVICE Candidate sample_head(const Row& row, u32 size, double tempered_sum) {
    const SampleWords& sample = *row.sample;
    Candidate first = NOBODY;
    row.each([&](u32 id, double s, float z_e, float z_a) { first = better(first, {s, id, z_e, z_a}); });
    first = block_reduce(first, better);
    const double best = first.value;

    Candidate winner = NOBODY;
    Bound bound;
    if (truncates(sample)) bound = row.cut(best, size, tempered_sum);
    u64 sum = 0;
    row.each([&](u32 id, double s, float z_e, float z_a) {
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
    winner.value = row.s(winner.id, winner.expert, winner.amateur) - best - log(double(sum) / UNITS);
    return winner;
}

DEVICE TileWords* tiles_of_row(const ContrastSampleParams& p, u32 index) { return p.tiles + u64(index) * tiles_of(p); }

// Over the row's tiles, by the block.
DEVICE Peaks peaks_of_row(const ContrastSampleParams& p, u32 index) {
    const TileWords* const words = tiles_of_row(p, index);
    Peaks peaks = {-INFINITY, -INFINITY, 0, 0};
    for (u32 tile = threadIdx.x; tile < tiles_of(p); tile += blockDim.x) {
        const TileWords of = words[tile];
        peaks = combine_peaks(peaks, {of.expert_peak, of.amateur_peak, of.faults, of.unmasked});
    }
    return block_reduce(peaks, combine_peaks);
}

DEVICE bool is_masked(const Peaks& peaks) { return peaks.expert == -INFINITY && !(peaks.faults & FAULT_EXPERT); }

// Its head is still to be found.
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

// Lists the heads whose logits of the amateur are to be computed one by one, and the rows that need all of theirs: a head
// that is large, or in which two betas meet, as then the amateur's normalizer counts.
// PRECOND: as of contrast_sample.
KERNEL(contrast_heads, ContrastSampleParams, 256, 2) {
    const u32 index = blockIdx.x;
    const SampleWords& sample = p.samples[index];
    if (sample.position == NONE || !reads_amateur(p, sample)) return;
    if (keeps_all(sample)) {
        if (threadIdx.x == 0) p.heads[index] = {0, NONE};
        return;
    }
    const Peaks peaks = peaks_of_row(p, index);
    if (peaks.faults || is_masked(peaks)) {
        if (threadIdx.x == 0) p.heads[index] = {0, 0};
        return;
    }
    Row row = row_of(p, index, peaks);
    const u32 size = row.find_head();
    u64 special = 0;
    if (size <= p.capacity && sample.beta != sample.special_beta) {
        row.each([&](u32 id, double, float, float) { special += row.is_special(id) ? 1 : 0; });
        special = block_reduce(special, add);
    }
    const bool is_full = size > p.capacity || special > 0;
    if (threadIdx.x == 0) {
        const u32 place = is_full ? atomicAdd(&p.counts->full[1], 1u) : atomicAdd(&p.counts->entries, size);
        if (is_full) p.full_rows[place] = index;
        p.heads[index] = {is_full ? 0 : place, is_full ? NONE : size};
        shared().base = place;
    }
    __syncthreads();
    if (is_full) return;
    for (u32 i = threadIdx.x; i < size; i += blockDim.x) {
        p.entries[shared().base + i] = {index, shared().id[i], shared().expert[i], 0};
    }
}

// What contrast_tiles leaves of the amateur, of a row whose logits were not there yet.
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

// Brings a head whose logits were computed one by one to where `each` finds it. Of it, not of the row: the amateur's
// peak, which takes the place of its normalizer, and its faults.
DEVICE Peaks bring_head(const ContrastSampleParams& p, const HeadWords& head) {
    Peaks peaks = {-INFINITY, -INFINITY, 0, 0};
    for (u32 i = threadIdx.x; i < head.size; i += blockDim.x) {
        const HeadEntry entry = p.entries[head.first + i];
        shared().id[i] = entry.id;
        shared().expert[i] = entry.expert;
        shared().amateur[i] = entry.amateur;
        peaks.amateur = fmaxf(peaks.amateur, entry.amateur);
        peaks.faults |= entry.amateur < INFINITY ? 0 : FAULT_AMATEUR;
    }
    if (threadIdx.x == 0) shared().listed = head.size;
    __syncthreads();
    return block_reduce(peaks, combine_peaks);
}

// PRECOND: grid = rows, 1, 1; block = 32 min(tiles, 8); SHARED_BYTES of shared memory; after contrast_tiles.
KERNEL(contrast_sample, ContrastSampleParams, 256, 2) {
    const u32 index = blockIdx.x, tiles = tiles_of(p);
    const SampleWords& sample = p.samples[index];
    if (sample.position == NONE) return;
    const TileWords* words = tiles_of_row(p, index);

    const bool has_amateur = reads_amateur(p, sample), is_late = has_amateur && p.heads;
    const HeadWords head = is_late ? p.heads[index] : HeadWords{0, NONE};
    const bool is_gathered = head.size != NONE;
    if (is_late && (!is_gathered || wants_log_probabilities(sample))) summarize_amateur(p, index);
    Peaks peaks = peaks_of_row(p, index);
    float amateur_peak = peaks.amateur;
    if (is_gathered) {
        const Peaks of_head = bring_head(p, head);
        amateur_peak = of_head.amateur;
        peaks.faults |= of_head.faults;
    }
    if (is_masked(peaks) || peaks.faults) {
        if (threadIdx.x == 0) p.results[index] = {0, is_masked(peaks) ? ALL_MASKED : NOT_A_NUMBER, 0, 0, 0, 0};
        return;
    }

    // An amateur that masks all has no say.
    const bool contrasts = has_amateur && amateur_peak > -INFINITY, is_normalized = peaks.amateur > -INFINITY;
    const bool direct = is_direct(p, sample);
    Sums sums = {0, 0, 0};
    Candidate winner = NOBODY;
    for (u32 tile = threadIdx.x; tile < tiles; tile += blockDim.x) {
        const TileWords of = words[tile];
        const double below = double(of.expert_peak) - double(peaks.expert);
        sums.expert += of.expert_sum * exp(below);
        if (is_normalized) sums.amateur += of.amateur_sum * exp(double(of.amateur_peak) - double(peaks.amateur));
        if (of.tempered_sum > 0) sums.tempered += of.tempered_sum * exp(below / sample.temperature);
        if (of.winner != NONE) {
            const double value = perturbed(sample, double(of.winner_logit) - double(peaks.expert),
                                           bits_of(sample, of.winner));
            winner = better(winner, {value, of.winner, of.winner_logit, 0});
        }
    }
    sums = block_reduce(sums, combine_sums);
    const double l_e_zero = double(peaks.expert) + log(sums.expert);
    const double l_a_zero = is_normalized ? double(peaks.amateur) + log(sums.amateur) : 0.0;

    u32 size = peaks.unmasked;
    const auto is_contested = [&](u32 found) {
        const bool contested = is_deferred(p, sample) && (found > 1 || wants_log_probabilities(sample));
        if (contested && threadIdx.x == 0) p.results[index] = {0, CONTESTED, found, 0, 0, 0};
        return contested;
    };
    if (direct && is_contested(size)) return;
    if (direct && !truncates(sample)) {
        winner = block_reduce(winner, better);
    } else {
        Row row = row_of(p, index, peaks);
        row.contrasts = contrasts;
        row.amateur = contrasts && !is_gathered ? p.amateur + u64(index) * p.amateur_stride : nullptr;
        // With one beta the amateur's normalizer is the same for all.
        const bool is_constant = is_gathered || sample.beta == sample.special_beta;
        row.amateur_zero = is_constant ? double(amateur_peak) : l_a_zero;
        if (direct) row.floor = row.cut_floor();
        if (is_gathered) row.take_listed();
        const u32 found = is_gathered ? head.size : row.find_head();
        if (!direct) size = found;
        if (!direct && is_contested(size)) return;
        winner = sample_head(row, size, sums.tempered);
    }
    if (threadIdx.x == 0) {
        const float l_e = float(double(winner.expert) - l_e_zero);
        // Unknown where only the head's logits are there: those that were not asked for.
        const bool has_l_a = has_amateur && (!is_gathered || wants_log_probabilities(sample));
        const float l_a = has_l_a ? (is_normalized ? float(double(winner.amateur) - l_a_zero) : -INFINITY) : NAN;
        p.results[index] = {winner.id, OK, size, direct ? l_e : float(winner.value), l_e, l_a};
    }
}

// The logits of rows that need the amateur, put aside.
// PRECOND: blockIdx.x is the row, blockIdx.y shares its logits with the threads; after contrast_sample.
KERNEL(defer_logits, ContrastSampleParams, 256, 1) {
    const SampleWords& sample = p.samples[blockIdx.x];
    if (sample.position == NONE || p.results[blockIdx.x].status != CONTESTED) return;
    const float* const from = p.expert + u64(blockIdx.x) * p.expert_stride;
    float* const to = p.deferred_logits + u64(sample.deferred_row) * p.deferred_stride;
    const u32 first = blockIdx.y * blockDim.x + threadIdx.x, stride = gridDim.y * blockDim.x;
    for (u32 id = first; id < p.vocabulary; id += stride) to[id] = from[id];
}
