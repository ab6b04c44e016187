/* nn.h - layers as model files use them, after torch.nn: each makes its parameters, named by scope and `name`, with
 * torchvision's initial distribution, appends its op and returns the output. Shapes are checked; failures are kept in
 * the graph (graph.h). */
#ifndef RFUAV_ENGINE_NN_H
#define RFUAV_ENGINE_NN_H

#include "engine/graph.h"

/* (N,H,W,3) bytes -> (N,H,W,3) in [0,1]. */
tensor_id nn_image(struct graph *graph, tensor_id x);

/* A parameter alone; INIT_TORCH, KAIMING and XAVIER are for weights (O,I,…). */
tensor_id nn_param(struct graph *graph, const char *name, int rank, const int64_t *shape, struct init init);

/* A buffer with these values (plain, with the graph's life); NULL: without memory for them, and the graph has failed.
 */
tensor_id nn_buffer(struct graph *graph, const char *name, enum dtype dtype, int rank, const int64_t *shape,
                    const void *values);

/* A convolution with a square kernel. What is left 0: stride 1, one group, no bias. Weights begin with `weight`, which
 * is PyTorch's own INIT_TORCH when left 0; so is the bias's `bias_init`. */
struct conv2d {
    int channels, kernel, stride, padding, groups;
    bool bias;
    struct init weight, bias_init;
};

/* x (N,H,W,C) -> (N,OH,OW,channels) */
tensor_id nn_conv2d(struct graph *graph, const char *name, tensor_id x, struct conv2d conv);

/* A linear layer with bias, unless there is none; initial values as above. pixel: the weight has a 1×1 convolution's
 * shape (features,in,1,1), for networks that convolve images of one pixel, which are (N,C) here. */
struct linear {
    int features;
    bool no_bias, pixel;
    struct init weight, bias;
};

/* x (…,in) -> (…,features) */
tensor_id nn_linear(struct graph *graph, const char *name, tensor_id x, struct linear linear);

/* weight 1, bias 0. In a training graph with the batch's statistics. */
tensor_id nn_batch_norm_with(struct graph *graph, const char *name, tensor_id x, float eps, float momentum);
tensor_id nn_batch_norm(struct graph *graph, const char *name, tensor_id x); /* eps 1e-5, momentum 0.1 */

/* Over the last dimension; weight 1, bias 0. */
tensor_id nn_layer_norm(struct graph *graph, const char *name, tensor_id x, double eps);

tensor_id nn_activation(struct graph *graph, enum activation activation, tensor_id x);
tensor_id nn_relu(struct graph *graph, tensor_id x);
tensor_id nn_add(struct graph *graph, tensor_id a, tensor_id b);
tensor_id nn_scale(struct graph *graph, tensor_id x, tensor_id s); /* x (N,H,W,C), s (N,C): x s */
tensor_id nn_max_pool(struct graph *graph, tensor_id x, int kernel, int stride, int padding);
tensor_id nn_global_avg_pool(struct graph *graph, tensor_id x); /* (N,H,W,C) -> (N,C) */

/* A share p of the numbers becomes 0, the others grow by 1 / (1 - p); stochastic depth: a share p of the images, as
 * torchvision's mode "row". x itself outside training and for p = 0. */
tensor_id nn_dropout(struct graph *graph, tensor_id x, double p);
tensor_id nn_stochastic_depth(struct graph *graph, tensor_id x, double p);

/* The mean loss of a batch; sets graph->logits, labels and loss, and sums into the COUNTER `stats` (op.h). */
tensor_id nn_cross_entropy(struct graph *graph, tensor_id logits);

/* An image cut into size×size squares, as a convolution of that kernel and stride sees them: (N,H,W,C) ->
 * (N, H/size W/size, C size size); H and W must be multiples. The convolution is then a linear layer whose weight has
 * four dimensions. */
tensor_id nn_patches(struct graph *graph, tensor_id x, int size);

/* A class token (1,1,C) in front of the tokens and a position embedding (1,L+1,C) on all. (N,L,C) -> (N,L+1,C). */
tensor_id nn_tokens(struct graph *graph, tensor_id class_token, tensor_id pos_embedding, tensor_id x);
tensor_id nn_first_token(struct graph *graph, tensor_id x); /* (N,L,C) -> (N,C) */

/* torch.nn.MultiheadAttention as self attention, without its output projection: x (N,L,C) -> (N,L,C). Parameters
 * in_proj_weight (xavier) and in_proj_bias (zeros). */
tensor_id nn_self_attention(struct graph *graph, tensor_id x, int heads);

/* The parameters of a layer alone, `in` channels going in; bias: NO_TENSOR where there is none. For checkpoints whose
 * order is not that of the ops, and for weights that another op than the layer's own takes. */
struct layer {
    tensor_id weight, bias;
};

struct layer nn_conv2d_params(struct graph *graph, const char *name, int64_t in, struct conv2d conv);
struct layer nn_linear_params(struct graph *graph, const char *name, int64_t in, struct linear linear);
struct layer nn_layer_norm_params(struct graph *graph, const char *name, int64_t channels);

/* The ops alone, over tensors that exist, with any attributes. */
tensor_id nn_conv2d_op(struct graph *graph, const struct op_attrs *attrs, tensor_id x, tensor_id weight, tensor_id bias,
                       tensor_id residual);
tensor_id nn_max_pool_op(struct graph *graph, const struct op_attrs *attrs, tensor_id x);
tensor_id nn_linear_op(struct graph *graph, tensor_id x, tensor_id weight, tensor_id bias);
tensor_id nn_layer_norm_op(struct graph *graph, tensor_id x, tensor_id weight, tensor_id bias, double eps);
tensor_id nn_attention_op(struct graph *graph, tensor_id qkv, int heads);

/* --- Swin v2 (nn_window.c), see op.h --------------------------------------------------------------------------------
 */

/* torchvision's ShiftedWindowAttentionV2 in windows of 8×8 pixels, with its output projection and initial values. x
 * (N,H,W,C) -> (N,H,W,C). */
tensor_id nn_window_attention(struct graph *graph, const char *name, tensor_id x, int heads, bool shifted);

/* The table of position biases; DERIVED outside training, since it depends on parameters alone. */
tensor_id nn_position_bias_op(struct graph *graph, tensor_id coords, tensor_id weight1, tensor_id bias1,
                              tensor_id weight2);

/* attrs: kernel (the window), shift (becomes 0 where one window is all), heads. qkv (N,H,W,3 C) -> (N,H,W,C). */
tensor_id nn_window_attention_op(struct graph *graph, const struct op_attrs *attrs, tensor_id qkv, tensor_id qkv_bias,
                                 tensor_id logit_scale, tensor_id table);

/* (N,H,W,C) -> (N,ceil(H/2),ceil(W/2),4 C) */
tensor_id nn_patch_merge(struct graph *graph, tensor_id x);

#endif
