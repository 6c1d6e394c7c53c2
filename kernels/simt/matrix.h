// The tensor core's warp-wide operations: ldmatrix and mma.
#pragma once

#include "types.h"

namespace simt {

// PTX ISA, "Warp-level matrix load instruction: ldmatrix" (.m8n8.b16): `matrices` is 2 or 4. Lane 8 m + i
// brings the address of matrix m's row i, 16 bytes of shared memory; lanes past the last row bring none.
void ldmatrix(u32* registers, const void* row, u32 matrices, bool transposed);

// PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type": d[16, 8] += a[16, 16] * b[16, 8].
void mma_m16n8k16(float* d, const u32* a, const u32* b);

}  // namespace simt
