/* ref.h - the reference backend: every op in plain C, written to be read. It defines what the ops mean; the tests
 * compare every other backend with it.
 * Layouts: activations plain (N, H, W, C); convolution weights (KH, KW, I/groups, O) in memory, so that inner loops run
 * over output channels; everything else plain. */
#ifndef RFUAV_ENGINE_REF_REF_H
#define RFUAV_ENGINE_REF_REF_H

#include "engine/activation.h"
#include "engine/backend.h"

extern const struct backend ref_backend;
extern const struct kernel ref_kernels[OP_COUNT];

/* The layout of convolution weights, and of their gradients and moments. */
extern const void *const ref_layout_hwio;

/* Memory of tensors, for the kernels. NULL for an absent tensor. */
static inline float *ref_f32(const struct tensor *tensor)
{
    return tensor ? tensor->data : NULL;
}

static inline float ref_activate(enum activation activation, float value)
{
    return activation == ACTIVATION_NONE ? value : activation_info(activation)->value(value);
}

/* The kernels, by file. */
#define REF_KERNEL(name)                                                                                               \
    bool ref_##name(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
#define REF_PREPARE(name)                                                                                              \
    bool ref_##name##_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)

REF_PREPARE(conv2d); /* conv.c */
REF_KERNEL(conv2d);
REF_KERNEL(conv2d_backward_data);
REF_KERNEL(conv2d_backward_weight);

REF_PREPARE(batch_norm); /* norm.c */
REF_KERNEL(batch_norm);
REF_PREPARE(batch_norm_backward);
REF_KERNEL(batch_norm_backward);
REF_KERNEL(batch_norm_apply);
REF_PREPARE(fold_batch_norm);
REF_KERNEL(fold_batch_norm);

REF_KERNEL(layer_norm); /* layer_norm.c */
REF_PREPARE(layer_norm_backward);
REF_KERNEL(layer_norm_backward);

REF_KERNEL(image); /* elementwise.c */
REF_KERNEL(activation);
REF_KERNEL(activation_backward);
REF_KERNEL(add);
REF_KERNEL(scale);
REF_KERNEL(scale_backward);
REF_KERNEL(dropout);
REF_KERNEL(dropout_backward);
REF_KERNEL(reorder);

REF_PREPARE(max_pool); /* pool.c */
REF_KERNEL(max_pool);
REF_KERNEL(max_pool_backward);
REF_KERNEL(global_avg_pool);
REF_KERNEL(global_avg_pool_backward);

REF_KERNEL(linear); /* linear.c */
REF_KERNEL(linear_backward_data);
REF_KERNEL(linear_backward_weight);

REF_KERNEL(patches); /* tokens.c */
REF_KERNEL(patches_backward);
REF_KERNEL(tokens);
REF_KERNEL(tokens_backward);
REF_KERNEL(first_token);
REF_KERNEL(first_token_backward);

REF_PREPARE(attention); /* attention.c */
REF_KERNEL(attention);
REF_KERNEL(attention_backward);

REF_KERNEL(cross_entropy); /* loss.c */
REF_KERNEL(cross_entropy_backward);

REF_KERNEL(position_bias); /* window.c */
REF_KERNEL(position_bias_backward);
REF_PREPARE(window_attention); /* of both */
REF_KERNEL(window_attention);
REF_KERNEL(window_attention_backward);
REF_KERNEL(patch_merge);
REF_KERNEL(patch_merge_backward);

REF_KERNEL(adam); /* optim.c */

#endif
