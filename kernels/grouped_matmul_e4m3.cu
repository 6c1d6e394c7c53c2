// grouped_matmul.cu with weights of e4m3 and a scale for each output. Activations stay bf16, and the tensor
// cores receive the weights as bf16, which is exact. Weights have half the bytes, and the only error is their
// rounding.
//
// Bytes: as for grouped_matmul.cu.
#include "grouped_matmul/plain.cuh"
#include "grouped_matmul/tiles.cuh"

// For rows that decode. Reading the weights takes the time. A stage is 4 KB of them, and matrices of few
// outputs have few blocks, so many stages are in flight: 10 of 64 blocks are 2.6 MB, what memory of 3.35 TB/s
// delivers in 0.8 microseconds.
using LowTiles = Tiles<E4m3Weights, 16, 64, 16, 12>;
// For more rows that decode.
using NarrowTiles = Tiles<E4m3Weights, 64, 64, 16, 8>;
// For so many rows that reading x again for other outputs takes time.
using WideTiles = Tiles<E4m3Weights, 128, 128, 32, 4>;
// For prefill.
using WidestTiles = Tiles<E4m3Weights, 128, 256, 32, 3>;

// PRECOND: as for grouped_matmul.cu; a chunk of the weight is 16 inputs in the dealt order of weights.cuh.
KERNEL(grouped_matmul_16x64_e4m3, GroupedMatmulParams, LowTiles::THREADS, 4) { LowTiles::run(p); }
KERNEL(grouped_matmul_64x64_e4m3, GroupedMatmulParams, NarrowTiles::THREADS, 2) { NarrowTiles::run(p); }
KERNEL(grouped_matmul_128x128_e4m3, GroupedMatmulParams, WideTiles::THREADS, 2) { WideTiles::run(p); }
KERNEL(grouped_matmul_128x256_e4m3, GroupedMatmulParams, WidestTiles::THREADS, 1) { WidestTiles::run(p); }

// PRECOND: as for grouped_matmul.cu; inputs in their own order.
KERNEL(grouped_matmul_plain_e4m3, GroupedMatmulParams, 128, 1) { PlainProducts<bf16, e4m3>::run(p); }
