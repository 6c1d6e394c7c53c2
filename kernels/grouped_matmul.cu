// Products of rows with the weight of the group that each belongs to: out[r] = x[source of r] * weight[group of r]^T,
// where the rows are sorted by group. With one group it is a plain product.
//
// Bytes: each group's weight once where it has rows, rows of x and of out. A group's row tiles are neighbours in
// the grid, so that what the second reads of the weight comes from the caches.
#include "grouped_matmul/plain.cuh"
#include "grouped_matmul/tiles.cuh"

// Few rows a group, so the time is the weights' way through memory: much of them on its way at once.
template <class WEIGHTS>
using LowTiles = Tiles<WEIGHTS, 16, 64, 16, 16, 4>;
// Many: a warp reads each fragment from shared memory for several products.
template <class WEIGHTS>
using HighTiles = Tiles<WEIGHTS, 64, 128, 32, 64, 3>;

// PRECOND: blockIdx (row tile: at least as many as there can be, tile of outputs); inputs a multiple of a chunk of
// x and of the weight; x, weight and out aligned to 16 bytes; shared memory: the members of Tiles, as
// launch/grouped_matmul.rs adds them up.
KERNEL(grouped_matmul_16_bf16, GroupedMatmulParams, LowTiles<Bf16Weights>::THREADS, 4) {
    LowTiles<Bf16Weights>(shared_memory()).run(p);
}
KERNEL(grouped_matmul_64_bf16, GroupedMatmulParams, HighTiles<Bf16Weights>::THREADS, 2) {
    HighTiles<Bf16Weights>(shared_memory()).run(p);
}

// PRECOND: blockIdx (tile of 16 rows, as many outputs as threads); whole warps.
KERNEL(grouped_matmul_plain_bf16, GroupedMatmulParams, 128, 1) { PlainProducts<bf16>::run(p); }
KERNEL(grouped_matmul_plain_f32, GroupedMatmulParams, 128, 1) { PlainProducts<float>::run(p); }
