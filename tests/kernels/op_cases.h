/* op_cases.h - the one list of op cases, and what runs one on a backend. Every test of kernels goes over this list:
 * gradients by finite differences, other backends against the reference, fused against unfused.
 *
 * A case builds a small graph. Its F32 INPUTs and PARAMs are filled at random from a fixed seed, `dy` arrives at its
 * output, and everything that can be read is compared: output, gradients, parameters, buffers, moments, statistics. */
#ifndef RFUAV_TESTS_KERNELS_OP_CASES_H
#define RFUAV_TESTS_KERNELS_OP_CASES_H

#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "base/random.h"
#include "engine/autograd.h"
#include "engine/fuse.h"
#include "engine/nn.h"
#include "engine/optim.h"
#include "engine/plan.h"
#include "engine/precision.h"
#include "engine/recompute.h"

enum case_flags {
    CASE_BIAS = 1 << 0,
    CASE_RESIDUAL = 1 << 1,
    CASE_RELU = 1 << 2,
    CASE_INFER = 1 << 3,     /* an inference graph: no gradients */
    CASE_ADAM = 1 << 4,      /* and three optimizer steps */
    CASE_READERS = 1 << 5,   /* the output has two more readers, so that gradients are added */
    CASE_RECOMPUTE = 1 << 6, /* fused runs keep no activation that can be made again */
    CASE_HARDSWISH = 1 << 7,
    CASE_HARDSIGMOID = 1 << 8,
    CASE_GELU = 1 << 9,
    CASE_ROWS = 1 << 10, /* stochastic depth */
};

struct op_case {
    const char *name;
    tensor_id (*build)(struct graph *graph, const struct op_case *c);
    int n, h, w, c, out; /* input (N,H,W,C), output channels or classes */
    int kernel[2], stride[2], padding[2], groups;
    unsigned flags;
};

/* --- building ---------------------------------------------------------------------------------------------------- */

static inline tensor_id case_input(struct graph *graph, int rank, const int64_t *shape)
{
    return graph_tensor(graph, TENSOR_INPUT, DTYPE_F32, rank, shape, "x");
}

static inline tensor_id case_image(struct graph *graph, const struct op_case *c)
{
    return case_input(graph, 4, (int64_t[]){c->n, c->h, c->w, c->c});
}

static inline tensor_id case_param(struct graph *graph, const char *name, int rank, const int64_t *shape)
{
    return graph_tensor(graph, TENSOR_PARAM, DTYPE_F32, rank, shape, name);
}

static inline struct op_attrs case_attrs(const struct op_case *c)
{
    return (struct op_attrs){.kernel = {c->kernel[0], c->kernel[1]},
                             .stride = {c->stride[0], c->stride[1]},
                             .padding = {c->padding[0], c->padding[1]},
                             .groups = c->groups};
}

static inline tensor_id case_activation(struct graph *graph, const struct op_case *c, tensor_id x)
{
    static const struct {
        unsigned flag;
        enum activation activation;
    } activations[] = {{CASE_RELU, ACTIVATION_RELU},
                       {CASE_HARDSWISH, ACTIVATION_HARDSWISH},
                       {CASE_HARDSIGMOID, ACTIVATION_HARDSIGMOID},
                       {CASE_GELU, ACTIVATION_GELU}};

    for (int i = 0; i < 4; i++)
        if (c->flags & activations[i].flag)
            x = nn_activation(graph, activations[i].activation, x);
    return x;
}

/* The flags' residual, activation and readers after y. */
static inline tensor_id case_finish(struct graph *graph, const struct op_case *c, tensor_id y)
{
    if (c->flags & CASE_RESIDUAL) {
        struct tensor like = graph->tensors[y];

        y = nn_add(graph, y, case_input(graph, like.rank, like.shape));
    }
    y = case_activation(graph, c, y);
    if (c->flags & CASE_READERS)
        y = nn_add(graph, nn_relu(graph, y), nn_add(graph, y, y));
    return y;
}

static inline tensor_id build_conv(struct graph *graph, const struct op_case *c)
{
    struct op_attrs attrs = case_attrs(c);
    tensor_id x = case_image(graph, c), bias = NO_TENSOR;
    tensor_id weight = case_param(graph, "weight", 4,
                                  (int64_t[]){c->out, c->c / (c->groups ? c->groups : 1), c->kernel[0], c->kernel[1]});

    attrs.groups = c->groups ? c->groups : 1;
    if (c->flags & CASE_BIAS)
        bias = case_param(graph, "bias", 1, (int64_t[]){c->out});
    return case_finish(graph, c, nn_conv2d_op(graph, &attrs, x, weight, bias, NO_TENSOR));
}

static inline tensor_id build_batch_norm(struct graph *graph, const struct op_case *c)
{
    return case_finish(graph, c, nn_batch_norm(graph, "bn", case_image(graph, c)));
}

/* eps: large, so that it is seen to be used. */
static inline tensor_id build_layer_norm(struct graph *graph, const struct op_case *c)
{
    return case_finish(graph, c, nn_layer_norm(graph, "ln", case_image(graph, c), 0.1));
}

/* A block whose input goes around a layer norm: gradients meet at x. */
static inline tensor_id build_layer_norm_around(struct graph *graph, const struct op_case *c)
{
    tensor_id x = nn_relu(graph, case_image(graph, c));

    x = nn_add(graph, x, nn_relu(graph, nn_layer_norm(graph, "ln1", x, 1e-6)));
    return nn_add(graph, x, nn_layer_norm(graph, "ln2", x, 1e-6));
}

static inline tensor_id build_activation(struct graph *graph, const struct op_case *c)
{
    return case_activation(graph, c, case_image(graph, c));
}

static inline tensor_id build_scale(struct graph *graph, const struct op_case *c)
{
    tensor_id x = nn_relu(graph, case_image(graph, c));

    return nn_scale(graph, x, case_input(graph, 2, (int64_t[]){c->n, c->c}));
}

/* Squeeze and excitation after a depthwise convolution: of the middle of MobileNet's blocks. */
static inline tensor_id build_squeeze(struct graph *graph, const struct op_case *c)
{
    const struct conv2d depthwise = {
        .channels = c->c, .kernel = c->kernel[0], .stride = c->stride[0], .padding = c->padding[0], .groups = c->c};
    tensor_id x = nn_conv2d(graph, "0", case_image(graph, c), depthwise), s;

    x = nn_activation(graph, ACTIVATION_HARDSWISH, nn_batch_norm_with(graph, "1", x, 0.001f, 0.01f));
    s = nn_global_avg_pool(graph, x);
    s = nn_relu(graph, nn_linear(graph, "fc1", s, (struct linear){.features = 8, .pixel = true}));
    s = nn_linear(graph, "fc2", s, (struct linear){.features = c->c, .pixel = true});
    x = nn_scale(graph, x, nn_activation(graph, ACTIVATION_HARDSIGMOID, s));
    return nn_conv2d(graph, "2", x, (struct conv2d){.channels = c->out, .kernel = 1, .bias = true});
}

/* Two of them, so that their running numbers differ. */
static inline tensor_id build_dropout(struct graph *graph, const struct op_case *c)
{
    tensor_id x = case_image(graph, c);

    graph->seed = 0x123456789ABCDEFu;
    x = c->flags & CASE_ROWS ? nn_stochastic_depth(graph, x, 0.3) : nn_dropout(graph, x, 0.3);
    x = nn_dropout(graph, nn_relu(graph, x), 0.2);
    return case_finish(graph, c, x);
}

/* Dropout between two layers, whose masks change from step to step. */
static inline tensor_id build_dropout_mlp(struct graph *graph, const struct op_case *c)
{
    tensor_id x = case_input(graph, 2, (int64_t[]){c->n, c->c});

    x = nn_relu(graph, nn_linear(graph, "0", x, (struct linear){.features = 24}));
    return nn_linear(graph, "3", nn_dropout(graph, x, 0.5), (struct linear){.features = c->out, .no_bias = true});
}

static inline tensor_id build_add(struct graph *graph, const struct op_case *c)
{
    return case_finish(graph, c, nn_add(graph, case_image(graph, c), case_image(graph, c)));
}

static inline tensor_id build_double(struct graph *graph, const struct op_case *c)
{
    tensor_id x = nn_relu(graph, case_image(graph, c));

    return nn_add(graph, x, x);
}

static inline tensor_id build_max_pool(struct graph *graph, const struct op_case *c)
{
    struct op_attrs attrs = case_attrs(c);

    return nn_max_pool_op(graph, &attrs, case_image(graph, c));
}

static inline tensor_id build_avg_pool(struct graph *graph, const struct op_case *c)
{
    return nn_global_avg_pool(graph, case_image(graph, c));
}

/* x (N, H, C) when h > 0, else (N, C). */
static inline tensor_id build_linear(struct graph *graph, const struct op_case *c)
{
    tensor_id x =
        c->h ? case_input(graph, 3, (int64_t[]){c->n, c->h, c->c}) : case_input(graph, 2, (int64_t[]){c->n, c->c});
    tensor_id weight = case_param(graph, "weight", 2, (int64_t[]){c->out, c->c}), bias = NO_TENSOR;

    if (c->flags & CASE_BIAS)
        bias = case_param(graph, "bias", 1, (int64_t[]){c->out});
    return case_finish(graph, c, nn_linear_op(graph, x, weight, bias));
}

static inline tensor_id build_image(struct graph *graph, const struct op_case *c);

static inline tensor_id build_patches(struct graph *graph, const struct op_case *c)
{
    return nn_patches(graph, case_image(graph, c), c->kernel[0]);
}

static inline tensor_id build_tokens(struct graph *graph, const struct op_case *c)
{
    tensor_id class_token = case_param(graph, "class_token", 3, (int64_t[]){1, 1, c->c});
    tensor_id pos = case_param(graph, "pos_embedding", 3, (int64_t[]){1, c->h + 1, c->c});

    return nn_tokens(graph, class_token, pos, case_input(graph, 3, (int64_t[]){c->n, c->h, c->c}));
}

static inline tensor_id build_first_token(struct graph *graph, const struct op_case *c)
{
    return nn_first_token(graph, case_input(graph, 3, (int64_t[]){c->n, c->h, c->c}));
}

/* h tokens, `groups` heads, c channels in all. */
static inline tensor_id build_attention(struct graph *graph, const struct op_case *c)
{
    return nn_attention_op(graph, case_input(graph, 3, (int64_t[]){c->n, c->h, 3 * c->c}), c->groups);
}

/* Patches of bytes, tokens, one attention with its projection, to classes. */
static inline tensor_id build_transformer(struct graph *graph, const struct op_case *c)
{
    tensor_id x = nn_patches(graph, build_image(graph, c), c->kernel[0]), y;
    tensor_id weight = case_param(graph, "weight", 4, (int64_t[]){c->groups * 8, c->c, c->kernel[0], c->kernel[0]});

    x = nn_linear_op(graph, x, weight, case_param(graph, "bias", 1, (int64_t[]){c->groups * 8}));
    x = nn_tokens(graph, case_param(graph, "class_token", 3, (int64_t[]){1, 1, c->groups * 8}),
                  case_param(graph, "pos_embedding", 3, (int64_t[]){1, graph->tensors[x].shape[1] + 1, c->groups * 8}),
                  x);
    y = nn_self_attention(graph, nn_layer_norm(graph, "ln", x, 1e-6), c->groups);
    weight = case_param(graph, "out", 2, (int64_t[]){c->groups * 8, c->groups * 8});
    x = nn_add(graph, x, nn_linear_op(graph, y, weight, NO_TENSOR));
    return nn_layer_norm(graph, "ln2", nn_first_token(graph, x), 1e-6);
}

/* kernel: the window; padding: the shift; groups: heads. */
static inline tensor_id build_window_attention(struct graph *graph, const struct op_case *c)
{
    struct op_attrs attrs = {
        .kernel = {c->kernel[0], c->kernel[1]}, .shift = {c->padding[0], c->padding[1]}, .heads = c->groups};
    int64_t places = (2 * c->kernel[0] - 1) * (2 * c->kernel[1] - 1);
    tensor_id qkv = case_input(graph, 4, (int64_t[]){c->n, c->h, c->w, 3 * c->c});
    tensor_id qkv_bias = case_param(graph, "qkv.bias", 1, (int64_t[]){3 * c->c});
    tensor_id logit_scale = case_param(graph, "logit_scale", 3, (int64_t[]){c->groups, 1, 1});
    tensor_id table = case_param(graph, "table", 2, (int64_t[]){c->groups, places});

    return case_finish(graph, c, nn_window_attention_op(graph, &attrs, qkv, qkv_bias, logit_scale, table));
}

/* kernel: the window; groups: heads. In inference the table is the prologue's, and attention reads it. */
static inline tensor_id build_position_bias(struct graph *graph, const struct op_case *c)
{
    struct op_attrs attrs = {.kernel = {c->kernel[0], c->kernel[1]}, .heads = c->groups};
    int64_t shape[] = {1, 2 * c->kernel[0] - 1, 2 * c->kernel[1] - 1, 2}, channels = 32 * c->groups;
    tensor_id coords = graph_tensor(graph, TENSOR_BUFFER, DTYPE_F32, 4, shape, "coords");
    tensor_id weight1 = case_param(graph, "weight1", 2, (int64_t[]){c->c, 2});
    tensor_id bias1 = case_param(graph, "bias1", 1, (int64_t[]){c->c});
    tensor_id weight2 = case_param(graph, "weight2", 2, (int64_t[]){c->groups, c->c});
    tensor_id table = nn_position_bias_op(graph, coords, weight1, bias1, weight2), qkv, bias, scale;

    if (!(c->flags & CASE_INFER))
        return table;
    qkv = case_input(graph, 4, (int64_t[]){1, c->kernel[0], c->kernel[1], 3 * channels});
    bias = case_param(graph, "qkv.bias", 1, (int64_t[]){3 * channels});
    scale = case_param(graph, "logit_scale", 3, (int64_t[]){c->groups, 1, 1});
    return nn_window_attention_op(graph, &attrs, qkv, bias, scale, table);
}

/* The multilayer perceptron of a transformer: layer norm, linear, GELU, linear, sum. */
static inline tensor_id build_mlp(struct graph *graph, const struct op_case *c)
{
    tensor_id x = nn_relu(graph, case_input(graph, 3, (int64_t[]){c->n, c->h, c->c})), y;

    y = nn_linear(graph, "0", nn_layer_norm(graph, "ln", x, 1e-6), (struct linear){.features = c->out});
    y = nn_linear(graph, "3", nn_activation(graph, ACTIVATION_GELU, y), (struct linear){.features = c->c});
    return nn_add(graph, x, y);
}

static inline tensor_id build_patch_merge(struct graph *graph, const struct op_case *c)
{
    return nn_patch_merge(graph, case_image(graph, c));
}

static inline tensor_id build_cross_entropy(struct graph *graph, const struct op_case *c)
{
    return nn_cross_entropy(graph, case_input(graph, 2, (int64_t[]){c->n, c->out}));
}

static inline tensor_id build_image(struct graph *graph, const struct op_case *c)
{
    return nn_image(graph, graph_tensor(graph, TENSOR_INPUT, DTYPE_U8, 4, (int64_t[]){c->n, c->h, c->w, c->c}, "x"));
}

/* An image and the convolution that alone reads it: a network's first op. */
static inline tensor_id build_stem(struct graph *graph, const struct op_case *c)
{
    struct op_attrs attrs = case_attrs(c);
    tensor_id x = build_image(graph, c);
    tensor_id weight = case_param(graph, "weight", 4, (int64_t[]){c->out, c->c, c->kernel[0], c->kernel[1]});

    attrs.groups = 1;
    return case_finish(graph, c, nn_conv2d_op(graph, &attrs, x, weight, NO_TENSOR, NO_TENSOR));
}

/* A convolution without bias, and batch norm. */
static inline tensor_id case_conv_bn(struct graph *graph, const char *conv, const char *bn, tensor_id x, int channels,
                                     int kernel, int stride, int groups)
{
    const struct conv2d layer = {
        .channels = channels, .kernel = kernel, .stride = stride, .padding = kernel / 2, .groups = groups};

    return nn_batch_norm(graph, bn, nn_conv2d(graph, conv, x, layer));
}

/* conv, batch norm, relu, conv, batch norm, add of the block's input, relu: a ResNet's basic block. */
static inline tensor_id build_block(struct graph *graph, const struct op_case *c)
{
    tensor_id x = case_image(graph, c), y;

    x = nn_relu(graph, case_conv_bn(graph, "conv0", "bn0", x, c->out, 3, 1, 1));
    y = nn_relu(graph, case_conv_bn(graph, "conv1", "bn1", x, c->out, 3, 1, 1));
    y = case_conv_bn(graph, "conv2", "bn2", y, c->out, 3, 1, 1);
    return nn_relu(graph, nn_add(graph, y, x));
}

/* Residual sums one after the other, the first over a batch norm: of their outputs every second one can be made again.
 */
static inline tensor_id build_chain(struct graph *graph, const struct op_case *c)
{
    tensor_id x = case_conv_bn(graph, "conv0", "bn0", case_image(graph, c), c->out, 1, 1, 1), y;

    for (int i = 0; i < 4; i++) {
        size_t scope = graph_push(graph, "%d", i);

        y = case_conv_bn(graph, "conv", "bn", x, c->out, 3, 1, 1);
        x = nn_relu(graph, nn_add(graph, y, x));
        graph_pop(graph, scope);
    }
    return x;
}

/* A bottleneck with stride and downsample, pooled, to a loss. */
static inline tensor_id build_bottleneck(struct graph *graph, const struct op_case *c)
{
    tensor_id x = case_image(graph, c), y;

    x = nn_max_pool(graph, nn_relu(graph, case_conv_bn(graph, "conv0", "bn0", x, 8, 7, 2, 1)), 3, 2, 1);
    y = nn_relu(graph, case_conv_bn(graph, "conv1", "bn1", x, 8, 1, 1, 1));
    y = nn_relu(graph, case_conv_bn(graph, "conv2", "bn2", y, 8, 3, 2, 1));
    y = case_conv_bn(graph, "conv3", "bn3", y, 32, 1, 1, 1);
    x = case_conv_bn(graph, "downsample.0", "downsample.1", x, 32, 1, 2, 1);
    y = nn_linear(graph, "fc", nn_global_avg_pool(graph, nn_relu(graph, nn_add(graph, y, x))),
                  (struct linear){.features = c->out});
    return c->flags & CASE_INFER ? y : nn_cross_entropy(graph, y);
}

/* --- the list ---------------------------------------------------------------------------------------------------- */

#define CONV(n_, h_, w_, c_, o_, kh, kw, sh, sw, ph, pw, groups_, flags_)                                              \
    {                                                                                                                  \
        "conv " #n_ "x" #h_ "x" #w_ "x" #c_ "->" #o_ " kernel " #kh "x" #kw " stride " #sh "x" #sw " padding " #ph     \
        "x" #pw " groups " #groups_ " " #flags_,                                                                       \
            build_conv, n_, h_, w_, c_, o_, {kh, kw}, {sh, sw}, {ph, pw}, groups_, flags_                              \
    }
#define POOL(n_, h_, w_, c_, kh, kw, sh, sw, ph, pw, flags_)                                                           \
    {                                                                                                                  \
        "max pool " #n_ "x" #h_ "x" #w_ "x" #c_ " kernel " #kh "x" #kw " " #flags_, build_max_pool, n_, h_, w_, c_, 0, \
            {kh, kw}, {sh, sw}, {ph, pw}, 0, flags_                                                                    \
    }
#define STEM(n_, h_, w_, o_, kernel_, padding_, flags_)                                                                \
    {                                                                                                                  \
        "stem " #n_ "x" #h_ "x" #w_ " kernel " #kernel_ " " #flags_, build_stem, n_, h_, w_, 3, o_,                    \
            {kernel_, kernel_}, {2, 2}, {padding_, padding_}, 1, flags_                                                \
    }
#define PATCHES(build_, n_, h_, w_, c_, kernel_, heads_, flags_)                                                       \
    {                                                                                                                  \
#build_ " " #n_ "x" #h_ "x" #w_ "x" #c_ " kernel " #kernel_ " heads " #heads_ " " #flags_, build_, n_, h_, w_, \
            c_, 0, {kernel_, kernel_ }, {0 }, {0 }, heads_, flags_                                                     \
    }
#define ATTENTION(n_, tokens_, heads_, dim_, flags_)                                                                   \
    {                                                                                                                  \
        "attention " #n_ "x" #tokens_ " heads " #heads_ " of " #dim_ " " #flags_, build_attention, n_, tokens_, 1,     \
            (heads_) * (dim_), 0, {0}, {0}, {0}, heads_, flags_                                                        \
    }
#define WINDOWS(n_, h_, w_, c_, heads_, window_, shift_, flags_)                                                       \
    {                                                                                                                  \
        "window attention " #n_ "x" #h_ "x" #w_ "x" #c_ " heads " #heads_ " window " #window_ " shift " #shift_        \
        " " #flags_,                                                                                                   \
            build_window_attention, n_, h_, w_, c_, 0, {window_, window_}, {0}, {shift_, shift_}, heads_, flags_       \
    }
#define POSITIONS(middle_, heads_, window_, flags_)                                                                    \
    {                                                                                                                  \
        "position bias " #middle_ " heads " #heads_ " window " #window_ " " #flags_, build_position_bias, 0, 0, 0,     \
            middle_, 0, {window_, window_}, {0}, {0}, heads_, flags_                                                   \
    }
#define SQUEEZE(n_, h_, w_, c_, o_, kernel_, stride_, flags_)                                                          \
    {                                                                                                                  \
        "squeeze " #n_ "x" #h_ "x" #w_ "x" #c_ " kernel " #kernel_ " " #flags_, build_squeeze, n_, h_, w_, c_, o_,     \
            {kernel_, kernel_}, {stride_, stride_}, {kernel_ / 2, kernel_ / 2}, 1, flags_                              \
    }
#define PLAIN(build_, n_, h_, w_, c_, o_, flags_)                                                                      \
    {                                                                                                                  \
#build_ " " #n_ "x" #h_ "x" #w_ "x" #c_ "->" #o_ " " #flags_, build_, n_, h_, w_, c_, o_,                      \
            {0 }, {0 }, {0 }, 0, flags_                                                                                \
    }

static const struct op_case op_cases[] = {
    CONV(2, 18, 18, 3, 16, 3, 3, 1, 1, 1, 1, 1, 0),
    CONV(1, 15, 17, 16, 16, 3, 3, 2, 2, 1, 1, 1, 0),
    CONV(2, 21, 19, 3, 24, 7, 7, 2, 2, 3, 3, 1, 0),
    CONV(3, 9, 7, 5, 6, 1, 1, 1, 1, 0, 0, 1, CASE_BIAS),
    CONV(2, 9, 7, 32, 48, 1, 1, 2, 2, 0, 0, 1, 0),
    CONV(1, 1, 1, 17, 33, 1, 1, 1, 1, 0, 0, 1, CASE_BIAS | CASE_RELU),
    CONV(2, 11, 8, 4, 7, 3, 5, 2, 1, 1, 2, 1, 0),
    CONV(1, 6, 13, 2, 3, 5, 2, 1, 3, 0, 1, 1, CASE_BIAS),
    CONV(1, 7, 7, 64, 64, 3, 3, 1, 1, 1, 1, 1, CASE_BIAS | CASE_RESIDUAL | CASE_RELU),
    CONV(2, 5, 6, 3, 17, 3, 3, 1, 1, 1, 1, 1, CASE_RESIDUAL),
    CONV(2, 5, 6, 16, 16, 3, 3, 1, 1, 1, 1, 1, CASE_RELU | CASE_READERS),
    CONV(2, 9, 10, 8, 12, 3, 3, 1, 1, 1, 1, 4, CASE_BIAS),
    CONV(1, 9, 10, 6, 6, 3, 3, 2, 2, 1, 1, 6, 0),
    CONV(1, 7, 9, 32, 32, 5, 5, 1, 1, 2, 2, 32, CASE_RELU),
    CONV(2, 13, 10, 24, 24, 3, 3, 1, 1, 1, 1, 24, 0),
    CONV(2, 12, 11, 40, 40, 3, 3, 2, 2, 1, 1, 40, 0),
    CONV(1, 9, 14, 72, 72, 5, 5, 1, 1, 2, 2, 72, CASE_BIAS),
    CONV(3, 14, 13, 16, 16, 5, 5, 2, 2, 2, 2, 16, 0),
    CONV(2, 15, 15, 120, 120, 5, 5, 2, 2, 2, 2, 120, CASE_INFER | CASE_BIAS | CASE_HARDSWISH),
    CONV(1, 2, 1, 16, 16, 5, 5, 1, 1, 2, 2, 16, CASE_RELU),
    CONV(1, 3, 3, 8, 8, 5, 5, 2, 2, 2, 2, 8, CASE_RESIDUAL),
    CONV(2, 2, 2, 8, 8, 3, 3, 1, 1, 1, 1, 1, 0),
    CONV(1, 8, 8, 1, 1, 3, 3, 1, 1, 0, 0, 1, 0),
    CONV(1, 7, 7, 64, 64, 3, 3, 1, 1, 1, 1, 1, CASE_INFER | CASE_BIAS | CASE_RESIDUAL | CASE_RELU),
    CONV(2, 7, 7, 16, 24, 1, 1, 1, 1, 0, 0, 1, CASE_INFER | CASE_BIAS | CASE_HARDSWISH),
    CONV(2, 7, 7, 32, 16, 1, 1, 1, 1, 0, 0, 1, CASE_INFER | CASE_BIAS | CASE_HARDSIGMOID),
    CONV(2, 7, 7, 16, 16, 3, 3, 1, 1, 1, 1, 1, CASE_INFER | CASE_BIAS | CASE_GELU),
    CONV(2, 7, 7, 16, 16, 3, 3, 1, 1, 1, 1, 1, CASE_BIAS | CASE_HARDSWISH),
    CONV(2, 7, 7, 16, 24, 1, 1, 1, 1, 0, 0, 1, CASE_BIAS | CASE_HARDSIGMOID),
    CONV(4, 15, 13, 32, 48, 3, 3, 1, 1, 1, 1, 1, CASE_INFER | CASE_BIAS | CASE_RESIDUAL | CASE_RELU),

    PLAIN(build_batch_norm, 4, 7, 7, 16, 0, 0),
    PLAIN(build_batch_norm, 1, 5, 3, 17, 0, CASE_RELU),
    PLAIN(build_batch_norm, 2, 8, 6, 64, 0, CASE_RELU | CASE_RESIDUAL),
    PLAIN(build_batch_norm, 2, 3, 5, 33, 0, CASE_RESIDUAL),
    PLAIN(build_batch_norm, 2, 3, 5, 8, 0, CASE_READERS),
    PLAIN(build_batch_norm, 2, 3, 5, 16, 0, CASE_RELU | CASE_RESIDUAL | CASE_READERS),
    PLAIN(build_batch_norm, 1, 1, 1, 16, 0, CASE_RELU),
    PLAIN(build_batch_norm, 2, 5, 4, 19, 0, CASE_INFER),
    PLAIN(build_batch_norm, 2, 5, 4, 16, 0, CASE_INFER | CASE_RESIDUAL | CASE_RELU),

    PLAIN(build_layer_norm, 2, 3, 5, 16, 0, 0),
    PLAIN(build_layer_norm, 3, 1, 7, 37, 0, CASE_RESIDUAL),
    PLAIN(build_layer_norm, 1, 1, 1, 8, 0, CASE_READERS),
    PLAIN(build_layer_norm, 2, 7, 1, 768, 0, CASE_RELU),
    PLAIN(build_layer_norm, 1, 7, 29, 96, 0, CASE_RESIDUAL),
    PLAIN(build_layer_norm, 2, 1, 3, 1, 0, 0),
    PLAIN(build_layer_norm, 2, 3, 5, 24, 0, CASE_INFER | CASE_RESIDUAL),
    PLAIN(build_layer_norm, 5, 1, 1, 1030, 0, CASE_INFER),
    PLAIN(build_layer_norm_around, 2, 3, 5, 24, 0, 0),
    PLAIN(build_layer_norm_around, 1, 1, 3, 33, 0, 0),
    PLAIN(build_layer_norm_around, 2, 3, 5, 24, 0, CASE_RECOMPUTE),
    PLAIN(build_batch_norm, 4, 7, 7, 16, 0, CASE_HARDSWISH),
    PLAIN(build_batch_norm, 2, 5, 3, 40, 0, CASE_HARDSWISH),
    PLAIN(build_batch_norm, 1, 5, 3, 17, 0, CASE_HARDSWISH),
    PLAIN(build_batch_norm, 2, 3, 5, 48, 0, CASE_HARDSWISH | CASE_READERS),
    PLAIN(build_batch_norm, 2, 3, 5, 16, 0, CASE_HARDSWISH | CASE_RESIDUAL),
    PLAIN(build_batch_norm, 2, 3, 5, 32, 0, CASE_GELU),
    PLAIN(build_batch_norm, 2, 5, 4, 24, 0, CASE_INFER | CASE_HARDSWISH),

    PLAIN(build_activation, 2, 5, 3, 7, 0, CASE_RELU),
    PLAIN(build_activation, 2, 5, 3, 7, 0, CASE_HARDSWISH),
    PLAIN(build_activation, 1, 9, 8, 16, 0, CASE_HARDSWISH),
    PLAIN(build_activation, 1, 5, 3, 24, 0, CASE_HARDSIGMOID),
    PLAIN(build_activation, 2, 5, 3, 7, 0, CASE_GELU),
    PLAIN(build_activation, 1, 4, 4, 64, 0, CASE_GELU),
    PLAIN(build_scale, 3, 5, 3, 7, 0, 0),
    PLAIN(build_scale, 2, 4, 4, 16, 0, 0),
    PLAIN(build_scale, 2, 3, 5, 24, 0, CASE_INFER),
    SQUEEZE(3, 9, 8, 24, 16, 3, 1, 0),
    SQUEEZE(2, 9, 11, 16, 24, 5, 2, 0),
    SQUEEZE(1, 7, 7, 72, 40, 5, 1, CASE_INFER),
    SQUEEZE(2, 14, 13, 40, 8, 3, 2, CASE_INFER),
    PLAIN(build_dropout, 3, 5, 3, 7, 0, 0),
    PLAIN(build_dropout, 2, 4, 4, 16, 0, CASE_RESIDUAL),
    PLAIN(build_dropout, 6, 3, 5, 16, 0, CASE_ROWS),
    PLAIN(build_dropout, 5, 3, 5, 8, 0, CASE_ROWS | CASE_RESIDUAL | CASE_READERS),
    PLAIN(build_dropout, 2, 3, 5, 8, 0, CASE_INFER | CASE_RESIDUAL),
    PLAIN(build_dropout_mlp, 6, 0, 0, 40, 7, CASE_ADAM),
    PLAIN(build_add, 2, 5, 3, 7, 0, 0),
    PLAIN(build_add, 1, 4, 4, 16, 0, CASE_RELU),
    PLAIN(build_double, 1, 3, 5, 9, 0, 0),

    POOL(2, 13, 11, 16, 3, 3, 2, 2, 1, 1, 0),
    POOL(1, 8, 9, 5, 2, 3, 2, 1, 0, 0, 0),
    POOL(2, 6, 6, 64, 3, 3, 2, 2, 1, 1, CASE_INFER),
    POOL(1, 1, 1, 3, 3, 3, 2, 2, 1, 1, 0),
    PLAIN(build_avg_pool, 3, 7, 7, 20, 0, 0),
    PLAIN(build_avg_pool, 1, 1, 3, 64, 0, 0),

    PLAIN(build_linear, 5, 0, 0, 37, 11, CASE_BIAS),
    PLAIN(build_linear, 1, 0, 0, 512, 5, CASE_BIAS),
    PLAIN(build_linear, 2, 3, 0, 16, 8, CASE_BIAS | CASE_RELU),
    PLAIN(build_linear, 4, 0, 0, 1, 1, 0),
    PLAIN(build_linear, 3, 0, 0, 64, 37, CASE_INFER | CASE_BIAS | CASE_RELU),
    PLAIN(build_linear, 3, 0, 0, 64, 40, CASE_INFER | CASE_BIAS | CASE_HARDSWISH),
    PLAIN(build_linear, 2, 5, 0, 32, 24, CASE_INFER | CASE_BIAS | CASE_GELU),
    PLAIN(build_linear, 2, 5, 0, 32, 24, CASE_BIAS | CASE_GELU),
    PLAIN(build_linear, 4, 0, 0, 24, 40, CASE_BIAS | CASE_HARDSIGMOID),

    PLAIN(build_linear, 3, 4, 0, 24, 16, CASE_BIAS | CASE_RESIDUAL),
    PLAIN(build_linear, 2, 3, 0, 5, 7, CASE_RESIDUAL | CASE_RELU),
    PLAIN(build_linear, 2, 9, 0, 64, 32, CASE_INFER | CASE_BIAS | CASE_RESIDUAL),
    PLAIN(build_linear, 3, 174, 0, 48, 37, CASE_BIAS | CASE_RESIDUAL),
    PLAIN(build_linear, 5, 104, 0, 33, 64, CASE_INFER | CASE_BIAS | CASE_GELU),

    PATCHES(build_patches, 2, 8, 12, 3, 4, 0, 0),
    PATCHES(build_patches, 1, 6, 3, 5, 3, 0, 0),
    PLAIN(build_tokens, 3, 4, 1, 24, 0, 0),
    PLAIN(build_tokens, 1, 1, 1, 5, 0, 0),
    PLAIN(build_first_token, 3, 4, 1, 24, 0, 0),
    PLAIN(build_first_token, 2, 1, 1, 3, 0, CASE_INFER),
    ATTENTION(2, 5, 2, 8, 0),
    ATTENTION(1, 17, 3, 64, 0),
    ATTENTION(1, 1, 1, 16, 0),
    ATTENTION(2, 50, 2, 64, 0),
    ATTENTION(1, 197, 1, 64, 0),
    ATTENTION(1, 300, 2, 16, 0), /* two blocks of scores on the CPU */
    ATTENTION(1, 65, 2, 32, CASE_INFER),
    ATTENTION(3, 197, 2, 64, CASE_INFER),
    ATTENTION(1, 209, 2, 64, 0), /* more tokens than a GPU's shared memory holds of a head */
    ATTENTION(6, 50, 12, 64, 0),
    ATTENTION(19, 120, 7, 64, 0), /* more heads than a GPU has multiprocessors */
    PATCHES(build_transformer, 2, 16, 8, 3, 4, 2, 0),
    PATCHES(build_transformer, 1, 32, 16, 3, 16, 3, CASE_INFER),

    PLAIN(build_mlp, 2, 5, 0, 24, 96, 0),
    PLAIN(build_mlp, 2, 5, 0, 24, 96, CASE_RECOMPUTE),
    PATCHES(build_transformer, 2, 16, 8, 3, 4, 2, CASE_RECOMPUTE),

    WINDOWS(1, 8, 8, 32, 1, 8, 0, 0),
    WINDOWS(1, 16, 13, 32, 1, 8, 4, 0),
    WINDOWS(2, 3, 2, 64, 2, 8, 4, 0),
    WINDOWS(2, 16, 24, 96, 3, 8, 4, CASE_INFER),
    WINDOWS(2, 11, 19, 64, 2, 8, 4, CASE_ADAM),
    WINDOWS(2, 28, 28, 192, 6, 8, 0, CASE_INFER),
    POSITIONS(64, 3, 8, 0),
    POSITIONS(512, 24, 8, CASE_INFER),
    POSITIONS(512, 32, 8, CASE_ADAM),
    PLAIN(build_patch_merge, 2, 6, 4, 32, 0, 0),
    PLAIN(build_patch_merge, 1, 7, 5, 12, 0, 0),

    PLAIN(build_cross_entropy, 5, 0, 0, 0, 37, 0),
    PLAIN(build_cross_entropy, 1, 0, 0, 0, 2, 0),
    PLAIN(build_cross_entropy, 3, 0, 0, 0, 1, 0),
    PLAIN(build_image, 2, 5, 7, 3, 0, CASE_INFER),

    STEM(2, 16, 20, 24, 7, 3, CASE_ADAM),
    STEM(1, 32, 14, 16, 7, 3, CASE_INFER | CASE_RELU),
    STEM(2, 13, 16, 8, 7, 3, 0),
    STEM(3, 11, 12, 16, 3, 1, 0),
    STEM(2, 16, 20, 24, 7, 3, CASE_ADAM | CASE_RECOMPUTE),

    PLAIN(build_block, 2, 9, 7, 5, 16, 0),
    PLAIN(build_block, 1, 8, 8, 16, 24, 0),
    PLAIN(build_block, 4, 15, 13, 3, 16, 0), /* enough tiles for Winograd */
    PLAIN(build_block, 2, 9, 7, 5, 16, CASE_INFER),
    PLAIN(build_bottleneck, 3, 37, 33, 3, 7, 0),
    PLAIN(build_bottleneck, 2, 32, 32, 3, 5, 0),
    PLAIN(build_block, 2, 9, 7, 5, 16, CASE_RECOMPUTE),
    PLAIN(build_block, 1, 5, 3, 4, 7, CASE_RECOMPUTE),
    PLAIN(build_chain, 2, 9, 7, 5, 16, CASE_RECOMPUTE),
    PLAIN(build_chain, 1, 6, 5, 3, 7, CASE_RECOMPUTE),
    PLAIN(build_bottleneck, 3, 37, 33, 3, 7, CASE_RECOMPUTE),
    /* Adam only where no gradient is 0 but for rounding (a shift before another batch norm has such a one): the sign
     * of that rounding would decide about a whole step */
    CONV(2, 9, 7, 32, 48, 3, 3, 2, 2, 1, 1, 1, CASE_BIAS | CASE_ADAM),
    CONV(2, 8, 9, 5, 7, 3, 3, 1, 1, 1, 1, 1, CASE_ADAM),
    PLAIN(build_linear, 5, 0, 0, 37, 11, CASE_BIAS | CASE_ADAM),
    PLAIN(build_batch_norm, 4, 7, 7, 16, 0, CASE_RELU | CASE_ADAM),
    PLAIN(build_bottleneck, 2, 37, 33, 3, 7, CASE_INFER),
};
enum { OP_CASES = sizeof op_cases / sizeof *op_cases };

/* --- running ----------------------------------------------------------------------------------------------------- */

struct case_run {
    const struct backend *backend;
    struct stream *stream;
    struct params *params;
    struct plan *plan;
    struct graph *graph; /* the plan's */
    void *arena;
    enum dtype precision;
    bool rounded;        /* matrices that the run is given hold BF16 values, whatever its precision */
    tensor_id y, dy;     /* dy: NO_TENSOR for a loss and in inference */
    int forward_tensors; /* tensors before gradients were appended: the same in all runs of a case */
};

/* Deterministic values of tensor t for a run: normal, labels and bytes in range, variances and scales above 0. Those of
 * a BF16 tensor come as floats. */
static inline void case_fill(const struct graph *graph, tensor_id t, int classes, void *data)
{
    const struct tensor *tensor = &graph->tensors[t];
    bool positive = tensor->name && (strstr(tensor->name, "running_var") || tensor->init.kind == INIT_ONE);
    double scale = tensor->role == TENSOR_PARAM && tensor->rank > 1 ? 0.3 : 1;
    int64_t count = tensor_elements(tensor);
    struct random random;

    /* dy's id depends on how many tensors a graph has; its values must not */
    random_init(&random, 7, tensor->name && strcmp(tensor->name, "dy") == 0 ? 1u << 20 : (uint64_t)t);
    memset(data, 0, tensor->dtype == DTYPE_BF16 ? (size_t)count * sizeof(float) : tensor_plain_bytes(tensor));
    for (int64_t i = 0; i < count; i++) {
        if (tensor->dtype == DTYPE_U8)
            ((uint8_t *)data)[i] = (uint8_t)random_below(&random, 256);
        else if (tensor->dtype == DTYPE_I32)
            ((int32_t *)data)[i] = (int32_t)random_below(&random, (uint32_t)classes);
        else if ((tensor->dtype == DTYPE_F32 || tensor->dtype == DTYPE_BF16) && tensor->role != TENSOR_MOMENT)
            ((float *)data)[i] =
                positive ? 0.5f + (float)random_uniform(&random) : (float)(scale * random_normal(&random));
    }
}

/* Rounds floats to BF16 values: in place or, when `pack`, into 16 bits each. */
static inline void case_round(float *values, int64_t count, bool pack)
{
    for (int64_t i = 0; i < count; i++) {
        uint16_t half = bf16_of_float(values[i]);

        if (pack)
            memcpy((uint16_t *)values + i, &half, sizeof half);
        else
            values[i] = bf16_to_float(half);
    }
}

static inline bool case_is_input(const struct tensor *tensor)
{
    return tensor_is_persistent(tensor->role) || tensor->role == TENSOR_INPUT;
}

static inline void case_close(struct case_run *run)
{
    plan_free(run->plan);
    params_free(run->params);
    if (run->stream) {
        run->backend->free(run->stream, run->arena);
        run->backend->stream_close(run->stream);
    }
}

/* Builds the case's graph, gradients included. */
static inline struct graph *case_graph(const struct op_case *c, bool fuse, struct case_run *run)
{
    struct graph *graph = graph_new(!(c->flags & CASE_INFER));
    struct tensor y;

    run->y = c->build(graph, c);
    run->dy = NO_TENSOR;
    graph->logits = run->y; /* it is read: no pass may merge it away */
    graph->tensors[run->y].keep = true;
    if (fuse)
        graph_fuse(graph);
    run->forward_tensors = graph->tensor_count;
    if (c->flags & CASE_INFER)
        return graph;
    y = graph->tensors[run->y];
    if (graph->loss == NO_TENSOR)
        run->dy = graph_tensor(graph, TENSOR_INPUT, DTYPE_F32, y.rank, y.shape, "dy");
    graph_backward(graph, run->y, run->dy);
    for (tensor_id t = 0; t < graph->gradient_count; t++)
        if (graph->gradients[t] != NO_TENSOR)
            graph->tensors[graph->gradients[t]].keep = true;
    if (c->flags & CASE_ADAM)
        graph_adam(graph, 1e-2, 64, 1000);
    return graph;
}

/* Logits stay F32, which no op but a LINEAR alone makes from BF16; they were named only to be kept. */
static inline void case_set_precision(struct graph *graph, enum dtype precision)
{
    tensor_id logits = graph->logits;

    for (int i = 0; i < graph->op_count; i++)
        if (graph->ops[i].output_count && graph->ops[i].outputs[0] == logits &&
            (graph->ops[i].type != OP_LINEAR || graph->ops[i].attrs.activation ||
             graph->ops[i].input_count > LINEAR_RESIDUAL))
            graph->logits = NO_TENSOR;
    graph_precision(graph, precision);
    graph->logits = logits;
}

static inline bool case_open_in(const struct op_case *c, const struct backend *backend, bool fuse, enum dtype precision,
                                struct case_run *run, struct err *err)
{
    struct stream_config config = {.threads = 2};
    struct graph *graph;

    *run = (struct case_run){.backend = backend, .precision = precision};
    if (!backend->stream_open(&config, &run->stream, err))
        return false;
    run->params = params_new(backend, run->stream);
    graph = case_graph(c, fuse, run);
    case_set_precision(graph, precision);
    if (fuse && c->flags & CASE_RECOMPUTE)
        graph_recompute(graph, 1);
    if (!plan_new(graph, backend, run->stream, run->params, &run->plan, err) ||
        !backend->alloc(run->stream, plan_memory(run->plan)->arena, &run->arena, err)) {
        case_close(run);
        return false;
    }
    plan_bind(run->plan, run->arena);
    run->graph = plan_graph(run->plan);
    return true;
}

static inline bool case_open(const struct op_case *c, const struct backend *backend, bool fuse, struct case_run *run,
                             struct err *err)
{
    return case_open_in(c, backend, fuse, DTYPE_F32, run, err);
}

/* Puts the initial values of tensor t, plus h times direction (NULL: none), where the run finds them. */
static inline bool case_write(const struct case_run *run, const struct op_case *c, tensor_id t, const float *direction,
                              double h, struct err *err)
{
    const struct tensor *tensor = &run->graph->tensors[t];
    int64_t count = tensor_elements(tensor);
    void *data = malloc((size_t)count * sizeof(double));
    bool ok;

    case_fill(run->graph, t, c->out ? c->out : 1, data);
    for (int64_t i = 0; direction && i < tensor_elements(tensor); i++)
        ((float *)data)[i] += (float)(h * direction[i]);
    if (tensor->dtype == DTYPE_BF16 || (run->rounded && tensor->dtype == DTYPE_F32 && tensor->rank >= 2))
        case_round(data, count, tensor->dtype == DTYPE_BF16);
    ok = run->backend->write(run->stream, tensor, data, err);
    free(data);
    return ok;
}

/* Sets all of the arena to NaN. */
static inline bool case_poison(const struct case_run *run, struct err *err)
{
    size_t bytes = plan_memory(run->plan)->arena;
    struct tensor all = {.dtype = DTYPE_U8, .rank = 1, .shape = {(int64_t)bytes}, .bytes = bytes, .data = run->arena};
    void *poison = malloc(bytes);
    bool ok;

    memset(poison, 0xFF, bytes);
    ok = run->backend->write(run->stream, &all, poison, err);
    free(poison);
    return ok;
}

/* Sets every input to its initial values, the rest of the arena to NaN, and runs. */
static inline bool case_run(struct case_run *run, const struct op_case *c, tensor_id moved, const float *direction,
                            double h, struct err *err)
{
    if (!case_poison(run, err))
        return false;
    params_set_derived_valid(run->params, false);
    for (tensor_id t = 0; t < run->graph->tensor_count; t++)
        if (case_is_input(&run->graph->tensors[t]) && run->graph->tensors[t].data &&
            !case_write(run, c, t, t == moved ? direction : NULL, h, err))
            return false;
    for (int step = 0; step < (c->flags & CASE_ADAM ? 3 : 1); step++) {
        /* inputs may have been overwritten after their last use */
        for (tensor_id t = 0; step && t < run->graph->tensor_count; t++)
            if (run->graph->tensors[t].role == TENSOR_INPUT && !case_write(run, c, t, NULL, 0, err))
                return false;
        if (!plan_run(run->plan, err))
            return false;
    }
    return true;
}

/* A tensor's values as floats, plain; to be freed. Other types are converted. */
static inline float *case_read(const struct case_run *run, tensor_id t, struct err *err)
{
    const struct tensor *tensor = &run->graph->tensors[t];
    int64_t count = tensor_elements(tensor);
    void *data = calloc(1, tensor_plain_bytes(tensor) + 8);
    float *values = calloc((size_t)count + 1, sizeof *values);

    if (!run->backend->read(run->stream, tensor, data, err)) {
        free(values);
        values = NULL;
    }
    for (int64_t i = 0; values && i < count; i++)
        values[i] = tensor->dtype == DTYPE_F64   ? (float)((double *)data)[i]
                    : tensor->dtype == DTYPE_I64 ? (float)((int64_t *)data)[i]
                    : tensor->dtype == DTYPE_F32 ? ((float *)data)[i]
                                                 : 0;
    for (int64_t i = 0; values && i < count && tensor->dtype == DTYPE_BF16; i++) {
        uint32_t bits = (uint32_t)((uint16_t *)data)[i] << 16;

        memcpy(&values[i], &bits, sizeof bits);
    }
    free(data);
    return values;
}

#endif
