/* fault.h - what went wrong with the GPU, as a sentence that says what would work. */
#ifndef RFUAV_ENGINE_CUDA_FAULT_H
#define RFUAV_ENGINE_CUDA_FAULT_H

#include <cuda_runtime_api.h>
#include <cudnn_graph.h>

#include "base/err.h"

/* *err from a CUDA or cuDNN status, in the language in use; always false. what: "a copy to the device". ERR_MEMORY when
 * the GPU has none left, else ERR_DEVICE. */
bool cuda_fail(cudaError_t status, const char *what, struct err *err);
bool cudnn_fail(cudnnStatus_t status, const char *what, struct err *err);

/* Has the GPU's context broken? Then all that comes after fails, whatever library reports it first, and *err says why.
 * Waits for the GPU. */
bool cuda_broken(const char *what, struct err *err);

/* Has cuda_fail() been given a failure after which this process can do no more on the GPU? Libraries may call abort()
 * when they are to give back what they had on such a GPU, and the sentence would be lost; the process is about to end,
 * and the driver takes everything back then. */
bool cuda_is_lost(void);

/* The GPU is older than the kernels of this object. */
bool capability_fail(const struct cudaDeviceProp *gpu, struct err *err);

#endif
