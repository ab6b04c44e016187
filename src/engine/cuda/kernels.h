/* kernels.h - the rows of the CUDA backend's table, by file. */
#ifndef RFUAV_ENGINE_CUDA_KERNELS_H
#define RFUAV_ENGINE_CUDA_KERNELS_H

#include "engine/cuda/stream.h"

#define CUDA_PREPARE(name)                                                                                             \
    bool cuda_##name##_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
#define CUDA_RUN(name)                                                                                                 \
    bool cuda_##name(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
#define CUDA_RELEASE(name) void cuda_##name##_release(struct op *op)

CUDA_PREPARE(conv2d); /* conv.c */
CUDA_RUN(conv2d);
CUDA_PREPARE(conv2d_backward_data);
CUDA_RUN(conv2d_backward_data);
CUDA_PREPARE(conv2d_backward_weight);
CUDA_RUN(conv2d_backward_weight);
CUDA_RELEASE(conv2d);

CUDA_PREPARE(linear); /* linear.c */
CUDA_RUN(linear);
CUDA_PREPARE(linear_backward_data);
CUDA_RUN(linear_backward_data);
CUDA_PREPARE(linear_backward_weight);
CUDA_RUN(linear_backward_weight);
CUDA_RELEASE(linear);

CUDA_PREPARE(adam); /* adam.c */
CUDA_RUN(adam);
CUDA_RELEASE(adam);

CUDA_PREPARE(batch_norm); /* ops.c */
CUDA_RUN(batch_norm);
CUDA_PREPARE(batch_norm_backward);
CUDA_RUN(batch_norm_backward);
CUDA_RUN(batch_norm_apply);
CUDA_PREPARE(fold_batch_norm);
CUDA_RUN(fold_batch_norm);
CUDA_PREPARE(image);
CUDA_RUN(image);
CUDA_RUN(activation);
CUDA_RUN(activation_backward);
CUDA_RUN(add);
CUDA_RUN(scale);
CUDA_RUN(scale_backward);
CUDA_RUN(dropout);
CUDA_RUN(dropout_backward);
CUDA_RUN(reorder);
CUDA_PREPARE(max_pool);
CUDA_RUN(max_pool);
CUDA_RUN(max_pool_backward);
CUDA_RUN(global_avg_pool);
CUDA_RUN(global_avg_pool_backward);
CUDA_RUN(layer_norm); /* transformer.c */
CUDA_PREPARE(layer_norm_backward);
CUDA_RUN(layer_norm_backward);
CUDA_PREPARE(attention);
CUDA_RUN(attention);
CUDA_PREPARE(attention_backward);
CUDA_RUN(attention_backward);
CUDA_RUN(patches);
CUDA_RUN(patches_backward);
CUDA_RUN(tokens);
CUDA_RUN(tokens_backward);
CUDA_RUN(first_token);
CUDA_RUN(first_token_backward);

CUDA_RUN(cross_entropy); /* ops.c */
CUDA_RUN(cross_entropy_backward);

CUDA_PREPARE(window_attention); /* window.c */
CUDA_RUN(window_attention);
CUDA_PREPARE(window_attention_backward);
CUDA_RUN(window_attention_backward);
CUDA_PREPARE(position_bias); /* of both */
CUDA_RUN(position_bias);
CUDA_RUN(position_bias_backward);
CUDA_PREPARE(patch_merge); /* of both */
CUDA_RUN(patch_merge);
CUDA_RUN(patch_merge_backward);

#endif
