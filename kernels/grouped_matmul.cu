// Products of rows with the weight of their group: out[r] = x[source of r] * weight[group of r]^T, where the
// rows are sorted by group. With one group it is a plain product.
//
// Bytes: the weights of the groups that have rows, the rows of x and the rows of out, once each. A group's
// row tiles are neighbours in the grid, so that the second tile reads the weight from the caches.
#include "grouped_matmul/plain.cuh"
#include "grouped_matmul/tiles.cuh"

// For few rows a group. Reading the weights takes the time, so many of their bytes are in flight.
template <class WEIGHTS>
using LowTiles = Tiles<WEIGHTS, 16, 64, 16, 16, 4>;
// For many rows a group. A warp uses each fragment that it reads from shared memory for several products.
template <class WEIGHTS>
using HighTiles = Tiles<WEIGHTS, 64, 128, 32, 64, 3>;

// PRECOND: blockIdx is (row tile, tile of outputs), and gridDim.x is at least the largest possible number of
// row tiles; inputs a multiple of a chunk of x and of a chunk of the weight; x, weight and out aligned to 16
// bytes; shared memory: the members of Tiles, whose bytes src/device/gpu/ops/grouped_matmul.rs adds up.
KERNEL(grouped_matmul_16_bf16, GroupedMatmulParams, LowTiles<Bf16Weights>::THREADS, 4) {
    LowTiles<Bf16Weights>(shared_memory()).run(p);
}
KERNEL(grouped_matmul_64_bf16, GroupedMatmulParams, HighTiles<Bf16Weights>::THREADS, 2) {
    HighTiles<Bf16Weights>(shared_memory()).run(p);
}

// PRECOND: blockIdx is (tile of 16 rows, tile of outputs), with one output a thread; whole warps.
KERNEL(grouped_matmul_plain_bf16, GroupedMatmulParams, 128, 1) { PlainProducts<bf16, bf16>::run(p); }
KERNEL(grouped_matmul_plain_f32, GroupedMatmulParams, 128, 1) { PlainProducts<float, float>::run(p); }
