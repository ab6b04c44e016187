/* gelu.cuh - GELU alone over `count` numbers, what elementwise.cu hands on. */
#ifndef RFUAV_ENGINE_CUDA_GELU_CUH
#define RFUAV_ENGINE_CUDA_GELU_CUH

#include "engine/cuda/launch.h"

bool gelu_fits(int64_t count);
cudaError_t gelu_forward(cudaStream_t stream, enum number number, const void *x, int64_t count, void *y);
cudaError_t gelu_backward(cudaStream_t stream, enum number number, const void *dy, const void *x, int64_t count,
                          void *dx);

#endif
