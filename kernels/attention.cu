// Causal attention of each token over its sequence's cached keys and values, the last `window` positions of
// them where there is one. bf16 with heads of 64, 80, 96, 128 or 256: prefill and decode on tensor cores,
// each for its spans; all else: plain. A row's bits depend on its sequence alone.
#include "attention/kernels.cuh"

TENSOR_CORE_KERNELS(bf16, bf16, 64)
TENSOR_CORE_KERNELS(bf16, bf16, 80)
TENSOR_CORE_KERNELS(bf16, bf16, 96)
TENSOR_CORE_KERNELS(bf16, bf16, 128)
TENSOR_CORE_KERNELS(bf16, bf16, 256)

// PRECOND: blockIdx (query head, span); a thread for four columns; after a decode kernel.
KERNEL(attention_combine_bf16, AttentionParams, 64, 1) { combine(p); }

PLAIN_KERNEL(float, float, f32)
PLAIN_KERNEL(bf16, bf16, bf16)
