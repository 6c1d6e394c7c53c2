// grouped_matmul.cu with weights of e4m3 and a scale for each output. Activations stay bf16 and the tensor
// cores are given the weights as bf16, exactly: half of the bytes, and no error but that of the weights'
// rounding.
//
// Bytes: as of grouped_matmul.cu.
#include "grouped_matmul/plain.cuh"
#include "grouped_matmul/tiles.cuh"

// Rows that decode, where the time is the weights' way through memory: a stage is 4 KB of them.
using LowTiles = Tiles<E4m3Weights, 16, 64, 16, 16, 8>;
// More of these: each weight is widened once, for all of the tile's rows.
using MiddleTiles = Tiles<E4m3Weights, 64, 64, 64, 16, 6>;
// Prefill: a weight is widened for 64 rows by each of two warps.
using HighTiles = Tiles<E4m3Weights, 128, 128, 64, 64, 3>;

// PRECOND: as of grouped_matmul.cu; a chunk of the weight is 16 inputs, dealt as weights.cuh says.
KERNEL(grouped_matmul_16_e4m3, GroupedMatmulParams, LowTiles::THREADS, 4) {
    LowTiles(shared_memory()).run(p);
}
KERNEL(grouped_matmul_64_e4m3, GroupedMatmulParams, MiddleTiles::THREADS, 2) {
    MiddleTiles(shared_memory()).run(p);
}
KERNEL(grouped_matmul_128_e4m3, GroupedMatmulParams, HighTiles::THREADS, 2) {
    HighTiles(shared_memory()).run(p);
}

// PRECOND: as of grouped_matmul.cu; inputs not dealt.
KERNEL(grouped_matmul_plain_e4m3, GroupedMatmulParams, 128, 1) { PlainProducts<bf16, e4m3>::run(p); }
