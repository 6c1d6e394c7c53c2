// grouped_matmul.cu with weights of e4m3 and a scale for each output. Activations stay bf16, and the tensor
// cores receive the weights as bf16, which is exact. Weights have half the bytes, and the only error is their
// rounding.
//
// Bytes: as for grouped_matmul.cu.
#include "grouped_matmul/plain.cuh"
#include "grouped_matmul/tiles.cuh"

// For rows that decode. Reading the weights takes the time; a stage is 4 KB of them.
using LowTiles = Tiles<E4m3Weights, 16, 64, 16, 16, 8>;
// For more rows that decode. Each weight is widened once for all rows of the tile.
using MiddleTiles = Tiles<E4m3Weights, 64, 64, 64, 16, 6>;
// For prefill. Each of two warps widens a weight for 64 rows.
using HighTiles = Tiles<E4m3Weights, 128, 128, 64, 64, 3>;

// PRECOND: as for grouped_matmul.cu; a chunk of the weight is 16 inputs in the dealt order of weights.cuh.
KERNEL(grouped_matmul_16_e4m3, GroupedMatmulParams, LowTiles::THREADS, 4) {
    LowTiles(shared_memory()).run(p);
}
KERNEL(grouped_matmul_64_e4m3, GroupedMatmulParams, MiddleTiles::THREADS, 2) {
    MiddleTiles(shared_memory()).run(p);
}
KERNEL(grouped_matmul_128_e4m3, GroupedMatmulParams, HighTiles::THREADS, 2) {
    HighTiles(shared_memory()).run(p);
}

// PRECOND: as for grouped_matmul.cu; inputs in their own order.
KERNEL(grouped_matmul_plain_e4m3, GroupedMatmulParams, 128, 1) { PlainProducts<bf16, e4m3>::run(p); }
