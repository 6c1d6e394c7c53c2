// attention.cu over a cache of e4m3. The tensor cores receive its numbers as bf16, which is exact. The scales
// of keys multiply the products, the scales of values multiply the weights.
#include "attention/kernels.cuh"

TENSOR_CORE_KERNELS(e4m3, bf16_e4m3, 64)
TENSOR_CORE_KERNELS(e4m3, bf16_e4m3, 80)
TENSOR_CORE_KERNELS(e4m3, bf16_e4m3, 96)
TENSOR_CORE_KERNELS(e4m3, bf16_e4m3, 128)
TENSOR_CORE_KERNELS(e4m3, bf16_e4m3, 256)

PLAIN_KERNEL(float, e4m3, f32_e4m3)
PLAIN_KERNEL(bf16, e4m3, bf16_e4m3)
