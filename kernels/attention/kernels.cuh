// The attention kernels for caches of one number format; src/device/gpu/ops/attention.rs launches them.
//
// PRECOND: head_dim is in the name; cache and qkv aligned to 16 bytes.
// Prefill: blockIdx is (tile of rows, key/value head, index into prefills); 128 threads.
// Decode: blockIdx is (key/value head and part of its group, span from first_span on, split); 128 threads, 64
// for heads of 256; the counters are 0, and are 0 again after the launch.
// Shared memory: the members of Prefill or Decode, whose bytes src/device/gpu/ops/attention.rs adds up.
#pragma once

#include "decode.cuh"
#include "plain.cuh"
#include "prefill.cuh"

#define TENSOR_CORE_KERNELS(CACHE, SUFFIX, DIM)                                                      \
    KERNEL(attention_prefill_##DIM##_##SUFFIX, AttentionParams, (Prefill<CACHE, DIM>::THREADS), 2) { \
        Prefill<CACHE, DIM>(shared_memory()).run(p);                                                 \
    }                                                                                                \
    KERNEL(attention_decode_##DIM##_##SUFFIX, AttentionParams, (Decode<CACHE, DIM>::THREADS), 3) {   \
        Decode<CACHE, DIM>(shared_memory()).run(p);                                                  \
    }

// PRECOND: blockIdx is (four query rows, span); 128 threads; head_dim up to 256; shared memory of 4 *
// (head_dim + 64) floats.
#define PLAIN_KERNEL(ACTIVATIONS, CACHE, SUFFIX)                                         \
    KERNEL(attention_##SUFFIX, AttentionParams, 128, 1) {                                \
        Plain<ACTIVATIONS, CACHE>(shared_memory(), p.head_dim, threadIdx.x / 32).run(p); \
    }
