// Products of rows with the weight of their group: out[r] = x[source of r] * weight[group of r]^T, where the
// rows are sorted by group. With one group it is a plain product.
//
// Bytes: the weights of the groups that have rows, the rows of x and the rows of out, once each. A group's
// row tiles are neighbours in the grid, so that the second tile reads the weight from the caches.
#include "grouped_matmul/plain.cuh"
#include "grouped_matmul/tiles.cuh"

// For few rows a group. Reading the weights takes the time, so many of their bytes are in flight.
using LowTiles = Tiles<Bf16Weights, 16, 64, 16, 4>;
// For more rows a group.
using MiddleTiles = Tiles<Bf16Weights, 64, 128, 32, 3>;
// For so many rows a group that reading the weights again for other rows takes time.
using WideTiles = Tiles<Bf16Weights, 128, 128, 32, 3>;

// PRECOND: blockIdx is (row tile, tile of outputs), and gridDim.x is at least the largest possible number of
// row tiles; tile_rows a multiple of 16 and at most the kernel's; inputs a multiple of a chunk of x and of a
// chunk of the weight; x, weight and out aligned to 16 bytes; shared memory: Tiles::Stages, whose bytes
// src/device/gpu/ops/grouped_matmul.rs adds up.
KERNEL(grouped_matmul_16x64_bf16, GroupedMatmulParams, LowTiles::THREADS, 4) { LowTiles::run(p); }
KERNEL(grouped_matmul_64x128_bf16, GroupedMatmulParams, MiddleTiles::THREADS, 3) { MiddleTiles::run(p); }
KERNEL(grouped_matmul_128x128_bf16, GroupedMatmulParams, WideTiles::THREADS, 2) { WideTiles::run(p); }

// PRECOND: blockIdx is (tile of tile_rows rows, tile of outputs), with one output a thread; whole warps.
KERNEL(grouped_matmul_plain_bf16, GroupedMatmulParams, 128, 1) { PlainProducts<bf16, bf16>::run(p); }
KERNEL(grouped_matmul_plain_f32, GroupedMatmulParams, 128, 1) { PlainProducts<float, float>::run(p); }
