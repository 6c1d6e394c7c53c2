// Causal attention of each token over its sequence's cached keys and values, or over the last `window` of
// them. bf16 with heads of 64, 80, 96, 128 or 256 uses tensor cores, with one kernel for spans that prefill
// and one for spans that decode. All other shapes use the plain kernel. A row's bits depend on its sequence
// alone.
#include "attention/kernels.cuh"

TENSOR_CORE_KERNELS(bf16, bf16, 64)
TENSOR_CORE_KERNELS(bf16, bf16, 80)
TENSOR_CORE_KERNELS(bf16, bf16, 96)
TENSOR_CORE_KERNELS(bf16, bf16, 128)
TENSOR_CORE_KERNELS(bf16, bf16, 256)

PLAIN_KERNEL(float, float, f32)
PLAIN_KERNEL(bf16, bf16, bf16)
