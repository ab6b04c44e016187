/* kernels.h - the CPU backend's functions: prepare, run (by the op's name alone) and release of struct kernel. */
#ifndef RFUAV_ENGINE_CPU_KERNELS_H
#define RFUAV_ENGINE_CPU_KERNELS_H

#include "engine/backend.h"

#define PREPARE(name) bool name(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
#define RUN(name)     bool name(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
#define RELEASE(name) void name(struct op *op)

PREPARE(cpu_image_prepare);
RUN(cpu_image);

PREPARE(cpu_conv2d_prepare);
RUN(cpu_conv2d);
PREPARE(cpu_conv2d_backward_data_prepare);
RUN(cpu_conv2d_backward_data);
PREPARE(cpu_conv2d_backward_weight_prepare);
RUN(cpu_conv2d_backward_weight);
RELEASE(cpu_conv2d_release); /* of all three */

PREPARE(cpu_batch_norm_prepare);
RUN(cpu_batch_norm);
PREPARE(cpu_batch_norm_backward_prepare);
RUN(cpu_batch_norm_backward);
PREPARE(cpu_batch_norm_apply_prepare);
RUN(cpu_batch_norm_apply);
RELEASE(cpu_batch_norm_release); /* of all three */
PREPARE(cpu_fold_batch_norm_prepare);
RUN(cpu_fold_batch_norm);
RELEASE(cpu_fold_batch_norm_release);

PREPARE(cpu_activation_prepare);
RUN(cpu_activation);
PREPARE(cpu_pair_prepare); /* of ops whose two inputs must lie alike */
RELEASE(cpu_pair_release);
RUN(cpu_activation_backward);
RUN(cpu_add);

PREPARE(cpu_max_pool_prepare);
RUN(cpu_max_pool);
PREPARE(cpu_max_pool_backward_prepare);
RUN(cpu_max_pool_backward);
PREPARE(cpu_global_avg_pool_prepare);
RUN(cpu_global_avg_pool);
RELEASE(cpu_pool_release); /* of the three above */
PREPARE(cpu_global_avg_pool_backward_prepare);
RUN(cpu_global_avg_pool_backward);

PREPARE(cpu_scale_prepare);
RUN(cpu_scale);
PREPARE(cpu_scale_backward_prepare);
RUN(cpu_scale_backward);
RELEASE(cpu_scale_release); /* of both */

enum { LINEAR_ENOUGH_ROWS = 512 }; /* of x, for which a weight is brought into blocks */
PREPARE(cpu_linear_prepare);
RUN(cpu_linear);
PREPARE(cpu_linear_backward_data_prepare);
RUN(cpu_linear_backward_data);
PREPARE(cpu_linear_backward_weight_prepare);
RUN(cpu_linear_backward_weight);
RELEASE(cpu_linear_release); /* of all three */

RUN(cpu_layer_norm);
PREPARE(cpu_layer_norm_backward_prepare);
RUN(cpu_layer_norm_backward);

PREPARE(cpu_attention_prepare);
RUN(cpu_attention);
PREPARE(cpu_attention_backward_prepare);
RUN(cpu_attention_backward);

RUN(cpu_patches);
RUN(cpu_tokens);
RUN(cpu_tokens_backward);

PREPARE(cpu_window_attention_prepare); /* of both */
RUN(cpu_window_attention);
RUN(cpu_window_attention_backward);
PREPARE(cpu_position_bias_prepare); /* of both */
RUN(cpu_position_bias);
RUN(cpu_position_bias_backward);
RUN(cpu_patch_merge);
RUN(cpu_patch_merge_backward);

RUN(cpu_adam);
PREPARE(cpu_reorder_prepare);
RUN(cpu_reorder);
RELEASE(cpu_reorder_release);

#undef PREPARE
#undef RUN
#undef RELEASE

#endif
