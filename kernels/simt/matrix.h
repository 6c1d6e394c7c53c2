// The warp-wide operations of tensor cores: ldmatrix and mma.
#pragma once

#include "types.h"

namespace simt {

// PTX ISA, "Warp-level matrix load instruction: ldmatrix" (.m8n8.b16). PRECOND: `matrices` is 2 or 4; lane 8
// m + i passes the address of row i of matrix m, which is 16 bytes of shared memory; lanes past the last row
// may pass any address.
void ldmatrix(u32* registers, const void* row, u32 matrices, bool transposed);

// PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type": d[16, 8] += a[16, 16] * b[16, 8].
void mma_m16n8k16(float* d, const u32* a, const u32* b);

}  // namespace simt
