/* attention.cuh - what attention.cu, for any numbers and size of heads, hands on to attention_mma.cu and
 * attention_head.cu. */
#ifndef RFUAV_ENGINE_CUDA_ATTENTION_CUH
#define RFUAV_ENGINE_CUDA_ATTENTION_CUH

#include "engine/cuda/launch.h"

bool attention_mma_fits(const attention_launch *a);
cudaError_t attention_mma(cudaStream_t stream, const attention_launch *a, const void *qkv, void *y, float *stats);
cudaError_t attention_mma_backward(cudaStream_t stream, const attention_launch *a, const attention_backward_args *b);

/* Is a head small enough for shared memory? Of the two forwards the second is for few heads. */
bool attention_head_fits(const attention_launch *a);
cudaError_t attention_head(cudaStream_t stream, const attention_launch *a, const void *qkv, void *y, float *stats);
cudaError_t attention_head_parts(cudaStream_t stream, const attention_launch *a, const void *qkv, void *y,
                                 float *stats);
cudaError_t attention_head_backward(cudaStream_t stream, const attention_launch *a, const attention_backward_args *b);

#endif
