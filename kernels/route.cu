// Routes rows through the branches of a mixture: route_choose chooses each row's branches and their weights,
// route_sort sorts these visits by branch, for the grouped products. A visit's index in that order is its
// place.
//
// Bytes a row: 4 branch_count of the logits are read, 16 active written. The sort reads the choices once a
// branch, from the caches.
#include "step.cuh"

struct RouteParams {
    const float* logits;  // [rows, branch_count]
    const u32* slots;     // [rows]: NONE in rows that are padding
    u32* branches;        // [rows, active]: the greatest logit first; NONE in rows that are padding
    float* weights;       // [rows, active]
    u32* places;          // [rows, active]
    u32* sources;         // [rows * active]: the row of each place
    u32* offsets;         // [branch_count + 1]: where each branch's places begin; last, where all end
    u32 rows;
    u32 branch_count;
    u32 active;      // branches of a row
    u32 normalized;  // whether the weights of a row sum to 1
};
MIRRORED(RouteParams);

// The greatest key so far and its branch. The lower branch wins a tie.
struct Best {
    float key;
    u32 branch;

    DEVICE void take(float other, u32 of) {
        if (other > key || (other == key && of < branch)) key = other, branch = of;
    }
};

// The best of all lanes, in every lane.
DEVICE Best warp_best(Best best) {
    for (int flip = 16; flip > 0; flip /= 2) {
        const float key = __shfl_xor_sync(0xffffffff, best.key, flip);
        best.take(key, __shfl_xor_sync(0xffffffff, best.branch, flip));
    }
    return best;
}

// Chooses the branches of one row, by one warp. A NaN counts as the greatest logit, and makes all weights of
// its row NaN. The key of a chosen branch becomes NaN, which no comparison prefers.
DEVICE void choose(const RouteParams& p, u32 row, float* keys) {
    const u32 lane = threadIdx.x % 32;
    const float* const logits = p.logits + u64(row) * p.branch_count;
    float top = -INFINITY;
    for (u32 branch = lane; branch < p.branch_count; branch += 32) {
        const float logit = logits[branch];
        keys[branch] = logit == logit ? logit : INFINITY;
        top = fmaxf(top, keys[branch]);
    }
    top = warp_max(top);
    float total = 0;
    for (u32 branch = lane; branch < p.branch_count; branch += 32) total += expf(keys[branch] - top);
    total = warp_sum(total);

    // A lane scans only keys that it wrote itself, so no barrier is needed.
    u32* const branches = p.branches + u64(row) * p.active;
    float* const weights = p.weights + u64(row) * p.active;
    float chosen = 0;
    for (u32 i = 0; i < p.active; ++i) {
        Best best = {-INFINITY, NONE};
        for (u32 branch = lane; branch < p.branch_count; branch += 32) best.take(keys[branch], branch);
        best = warp_best(best);
        if (best.branch % 32 == lane) keys[best.branch] = NAN;
        const float power = expf(best.key - top);
        chosen += power;
        if (lane == 0) branches[i] = best.branch, weights[i] = power;
    }
    __syncwarp();
    const float whole = p.normalized ? chosen : total;
    for (u32 i = lane; i < p.active; i += 32) weights[i] /= whole;
}

// PRECOND: one warp a row; branch_count floats of shared memory a warp; active <= branch_count.
KERNEL(route_choose, RouteParams, 128, 1) {
    const u32 warp = threadIdx.x / 32, row = blockIdx.x * (blockDim.x / 32) + warp;
    if (row >= p.rows) return;
    if (p.slots[row] == NONE) {
        for (u32 i = threadIdx.x % 32; i < p.active; i += 32) p.branches[u64(row) * p.active + i] = NONE;
        return;
    }
    choose(p, row, reinterpret_cast<float*>(shared_memory()) + warp * p.branch_count);
}

// Assigns the places of one branch in the order of the rows. The sort counts and is stable; it uses no
// atomics, so that equal steps have equal places.
//
// PRECOND: one block a branch; whole warps; 8 bytes of shared memory a warp; after route_choose.
KERNEL(route_sort, RouteParams, 256, 1) {
    const u32 branch = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    // [warps] each: a warp's visits of lower branches, and its visits of this branch.
    u32* const lower = reinterpret_cast<u32*>(shared_memory());
    u32* const equal = lower + warps;
    // Each warp takes a share of consecutive visits.
    const u32 visits = p.rows * p.active, share = ((visits + warps - 1) / warps + 31) / 32 * 32;
    const u32 first = min(warp * share, visits), last = min(first + share, visits);

    u32 of_lower = 0, of_equal = 0;
    for (u32 from = first; from < last; from += 32) {
        const u32 visited = from + lane < last ? p.branches[from + lane] : NONE;
        of_lower += u32(__popc(__ballot_sync(0xffffffff, visited < branch)));
        of_equal += u32(__popc(__ballot_sync(0xffffffff, visited == branch)));
    }
    if (lane == 0) lower[warp] = of_lower, equal[warp] = of_equal;
    __syncthreads();

    // The branch's first place, the place of the warp's first visit, and the end of the branch's places.
    u32 begin = 0, place = 0, end = 0;
    for (u32 w = 0; w < warps; ++w) begin += lower[w];
    end = place = begin;
    for (u32 w = 0; w < warps; ++w) {
        if (w < warp) place += equal[w];
        end += equal[w];
    }
    if (threadIdx.x == 0) p.offsets[branch] = begin;
    if (threadIdx.x == 0 && branch + 1 == p.branch_count) p.offsets[branch + 1] = end;

    for (u32 from = first; from < last; from += 32) {
        const u32 visit = from + lane;
        const bool is_mine = visit < last && p.branches[visit] == branch;
        const u32 all = __ballot_sync(0xffffffff, is_mine);
        if (is_mine) {
            const u32 at = place + u32(__popc(all & ((1u << lane) - 1)));
            p.places[visit] = at;
            p.sources[at] = visit / p.active;
        }
        place += u32(__popc(all));
    }
}
