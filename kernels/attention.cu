// Causal attention of each token over its sequence's cached keys and values, the last `window` positions of
// them where there is one. bf16 with heads of 64, 80, 96, 128 or 256: prefill and decode on tensor cores,
// each for its spans; all else: plain. A row's bits depend on its sequence alone.
#include "attention/decode.cuh"
#include "attention/plain.cuh"
#include "attention/prefill.cuh"

// PRECOND: head_dim as the name says, cache and qkv 16-byte aligned.
// Prefill: blockIdx (tile of rows, key/value head, index into prefills); 128 threads.
// Decode: blockIdx (key/value head and part of its group, span, split); 128 threads, 64 for heads of 256.
// Shared memory: the members of Prefill and Decode, as launch/attention.rs adds them up.
#define TENSOR_CORE_KERNELS(DIM)                                                        \
    KERNEL(attention_prefill_##DIM##_bf16, AttentionParams, Prefill<DIM>::THREADS, 2) { \
        Prefill<DIM>(shared_memory()).run(p);                                           \
    }                                                                                   \
    KERNEL(attention_decode_##DIM##_bf16, AttentionParams, Decode<DIM>::THREADS, 3) {   \
        Decode<DIM>(shared_memory()).run(p);                                            \
    }

TENSOR_CORE_KERNELS(64)
TENSOR_CORE_KERNELS(80)
TENSOR_CORE_KERNELS(96)
TENSOR_CORE_KERNELS(128)
TENSOR_CORE_KERNELS(256)

// PRECOND: blockIdx (query head, span); a thread for four columns; after a decode kernel.
KERNEL(attention_combine_bf16, AttentionParams, 64, 1) { combine(p); }

// PRECOND: blockIdx (four query rows, span); 128 threads; head_dim up to 256; shared memory
// of 4 * (head_dim + 64) floats.
KERNEL(attention_f32, AttentionParams, 128, 1) {
    Plain<float>(shared_memory(), p.head_dim, threadIdx.x / 32).run(p);
}
KERNEL(attention_bf16, AttentionParams, 128, 1) {
    Plain<bf16>(shared_memory(), p.head_dim, threadIdx.x / 32).run(p);
}
