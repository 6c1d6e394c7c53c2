// The C interface of the SIMT runtime: run the kernels of `kernels/*.cu` on the host, a fibre a CUDA thread.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Runs `blocks` blocks of a launch, from the `first_block`-th on (x fastest, then y, then z), one after
// another on the calling OS thread. Several OS threads may run parts of one launch at the same time.
//
// Threads, and the blocks of this call, take their turns in an order drawn from `seed`; seed 0 is index
// order. Returns 0, or 1 with a message (zero-terminated, cut to `capacity`) that names kernel, block and
// thread. After a fault, buffers hold whatever the launch had written by then; the next launch starts afresh.
int codit_simt_run(const char* kernel, const void* params, size_t params_bytes, const uint32_t grid[3],
                   const uint32_t block[3], size_t shared_bytes, uint64_t seed, uint64_t first_block,
                   uint64_t blocks, char* message, size_t capacity);

// Global memory: 256-byte aligned as cudaMalloc's, every byte 0xFF (NaN in every float format), ended exactly
// where asked, so that AddressSanitizer sees an access past the end. Null where there is no memory.
void* codit_simt_allocate(size_t bytes);
void codit_simt_free(void* memory);

// Writes names and parameter sizes of the first `capacity` kernels; returns how many there are.
size_t codit_simt_kernels(const char** names, size_t* params_bytes, size_t capacity);

#ifdef __cplusplus
}
#endif
