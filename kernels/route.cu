// Which branches of a mixture each row goes through, with what weights, and these visits ("places") in the order
// of the branches, where products find them.
//
// Bytes a row: 4 branches of the logits in; 16 active out. The sort reads the choices once a branch, from the
// caches.
#include "step.cuh"

struct RouteParams {
    const float* logits;  // [rows, branch_count]
    const u32* slots;     // [rows], NONE in rows that are padding
    u32* branches;        // [rows, active]: greatest first; NONE in rows that are padding
    float* weights;       // [rows, active]
    u32* places;          // [rows, active]
    u32* sources;         // [places]: the row of each
    u32* offsets;         // [branch_count + 1]: where the places of each branch begin
    u32 rows;
    u32 branch_count;
    u32 active;
    u32 normalized;
};

// A lane's greatest key and its branch; the lower branch on a tie.
struct Best {
    float key;
    u32 branch;

    DEVICE void take(float other, u32 of) {
        if (other > key || (other == key && of < branch)) key = other, branch = of;
    }
};

// The greatest of all lanes, in all lanes.
DEVICE Best warp_best(Best best) {
    for (int flip = 16; flip > 0; flip /= 2) {
        const float key = __shfl_xor_sync(0xffffffff, best.key, flip);
        best.take(key, __shfl_xor_sync(0xffffffff, best.branch, flip));
    }
    return best;
}

// One row, by one warp. A NaN counts as the greatest: weights are then quotients of NaN, its row's all.
// A key that was taken becomes NaN, which no comparison prefers.
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

    // A lane scans only what it wrote itself.
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

// PRECOND: a warp a row; shared memory of branch_count floats a warp; active <= branch_count.
KERNEL(route_choose, RouteParams, 128, 1) {
    const u32 warp = threadIdx.x / 32, row = blockIdx.x * (blockDim.x / 32) + warp;
    if (row >= p.rows) return;
    if (p.slots[row] == NONE) {
        for (u32 i = threadIdx.x % 32; i < p.active; i += 32) p.branches[u64(row) * p.active + i] = NONE;
        return;
    }
    choose(p, row, reinterpret_cast<float*>(shared_memory()) + warp * p.branch_count);
}

// The places of one branch, in the order of rows: a stable sort by counting, without atomics, so that the same
// step gives the same places.
// PRECOND: a block a branch, of whole warps; 8 bytes of shared memory a warp; after route_choose.
KERNEL(route_sort, RouteParams, 256, 1) {
    const u32 branch = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    u32* const lower = reinterpret_cast<u32*>(shared_memory());  // [warps]: visits of lower branches
    u32* const equal = lower + warps;                             // [warps]: of this one
    // A warp takes consecutive visits.
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

    u32 begin = 0, place = 0, end = 0;  // of the branch, of the warp's first visit, of the branch again
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
