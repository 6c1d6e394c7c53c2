// attention.cu over a cache of e4m3. The tensor cores are given its numbers as bf16, exactly; the scales of
// keys multiply the products, those of values the weights.
#include "attention/kernels.cuh"

TENSOR_CORE_KERNELS(e4m3, bf16_e4m3, 64)
TENSOR_CORE_KERNELS(e4m3, bf16_e4m3, 80)
TENSOR_CORE_KERNELS(e4m3, bf16_e4m3, 96)
TENSOR_CORE_KERNELS(e4m3, bf16_e4m3, 128)
TENSOR_CORE_KERNELS(e4m3, bf16_e4m3, 256)

PLAIN_KERNEL(float, e4m3, f32_e4m3)
PLAIN_KERNEL(bf16, e4m3, bf16_e4m3)
