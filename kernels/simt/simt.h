// The C interface of the SIMT runtime, which runs the kernels of `kernels/*.cu` on the host: as the host's
// compiler built them, one fibre a CUDA thread, or from the PTX that nvcc made of them (ptx/).
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Runs `blocks` blocks of a launch on the calling OS thread, one after another, from the `first_block`-th on
// (x fastest, then y, then z). Several OS threads may run parts of one launch at the same time.
//
// `seed` draws the order in which threads, and the blocks of this call, take their turns; seed 0 is index
// order. Returns 0, or 1 with a message (zero-terminated, cut to `capacity`) that names kernel, block and
// thread. After a fault, buffers hold everything that the launch had written until then. A later launch is
// not affected.
int codit_simt_run(const char* kernel, const void* params, size_t params_bytes, const uint32_t grid[3],
                   const uint32_t block[3], size_t shared_bytes, uint64_t seed, uint64_t first_block,
                   uint64_t blocks, char* message, size_t capacity);

// Allocates global memory. It is aligned to 256 bytes, as by cudaMalloc, and every byte is 0xFF, which is NaN
// in every float format. It has exactly the given size, so that AddressSanitizer sees an access past the end.
// Null if memory is short.
void* codit_simt_allocate(size_t bytes);
void codit_simt_free(void* memory);

// Writes the names and parameter sizes of the first `capacity` kernels. Returns the number of all kernels.
size_t codit_simt_kernels(const char** names, size_t* params_bytes, size_t capacity);

// Kernels in PTX, decoded.
typedef struct codit_ptx codit_ptx;

// Reads all files NAME.ptx of a folder. Null, with a message that names the file and the line, if one of them
// cannot be read, is malformed or has an instruction that is not implemented.
codit_ptx* codit_ptx_load(const char* folder, char* message, size_t capacity);
void codit_ptx_free(codit_ptx* loaded);

// As codit_simt_run, with the kernel of this name in `loaded`. The message of a fault names the line of PTX
// too. Every address must lie in memory that codit_simt_allocate gave.
int codit_ptx_run(const codit_ptx* loaded, const char* kernel, const void* params, size_t params_bytes,
                  const uint32_t grid[3], const uint32_t block[3], size_t shared_bytes, uint64_t seed,
                  uint64_t first_block, uint64_t blocks, char* message, size_t capacity);

#ifdef __cplusplus
}
#endif
