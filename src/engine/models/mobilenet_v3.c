/* mobilenet_v3.c - MobileNet v3, small and large, as torchvision has them.
 * Howard et al., "Searching for MobileNetV3", ICCV 2019, tables 1 and 2. */
#include "engine/models/models.h"

#include <stdio.h>

#include "engine/nn.h"

enum { MOST_BLOCKS = 15, STEM_CHANNELS = 16, REFERENCE_HEAD = 512 };

static const double DROPOUT = 0.2;

#define RE ACTIVATION_RELU
#define HS ACTIVATION_HARDSWISH

/* An inverted residual block: kernel of the depthwise convolution, its channels, channels of the result. */
struct block {
    int kernel, expanded, channels;
    bool squeeze;
    enum activation activation;
    int stride;
};

struct mobilenet_v3 {
    int block_count;
    struct block blocks[MOST_BLOCKS];
    int head; /* channels before the last layer; torchvision's, if it is not the service's own */
};

#define LARGE                                                                                                          \
    15,                                                                                                                \
    {                                                                                                                  \
        {3, 16, 16, false, RE, 1}, {3, 64, 24, false, RE, 2}, {3, 72, 24, false, RE, 1}, {5, 72, 40, true, RE, 2},     \
            {5, 120, 40, true, RE, 1}, {5, 120, 40, true, RE, 1}, {3, 240, 80, false, HS, 2},                          \
            {3, 200, 80, false, HS, 1}, {3, 184, 80, false, HS, 1}, {3, 184, 80, false, HS, 1},                        \
            {3, 480, 112, true, HS, 1}, {3, 672, 112, true, HS, 1}, {5, 672, 160, true, HS, 2},                        \
            {5, 960, 160, true, HS, 1}, {5, 960, 160, true, HS, 1},                                                    \
    }
#define SMALL                                                                                                          \
    11,                                                                                                                \
    {                                                                                                                  \
        {3, 16, 16, true, RE, 2}, {3, 72, 24, false, RE, 2}, {3, 88, 24, false, RE, 1}, {5, 96, 40, true, HS, 2},      \
            {5, 240, 40, true, HS, 1}, {5, 240, 40, true, HS, 1}, {5, 120, 48, true, HS, 1},                           \
            {5, 144, 48, true, HS, 1}, {5, 288, 96, true, HS, 2}, {5, 576, 96, true, HS, 1},                           \
            {5, 576, 96, true, HS, 1},                                                                                 \
    }
const struct mobilenet_v3 mobilenet_v3_large = {LARGE, REFERENCE_HEAD}, mobilenet_v3_large_torchvision = {LARGE, 1280};
const struct mobilenet_v3 mobilenet_v3_small = {SMALL, REFERENCE_HEAD}, mobilenet_v3_small_torchvision = {SMALL, 1024};

/* Convolution, batch norm and activation: torchvision's Conv2dNormActivation. */
static tensor_id conv_norm(struct graph *graph, const char *name, tensor_id x, struct conv2d conv,
                           enum activation activation)
{
    size_t scope = graph_push(graph, "%s", name);

    conv.padding = conv.kernel / 2;
    conv.weight.kind = INIT_KAIMING;
    x = nn_batch_norm_with(graph, "1", nn_conv2d(graph, "0", x, conv), 0.001f, 0.01f);
    graph_pop(graph, scope);
    return activation == ACTIVATION_NONE ? x : nn_activation(graph, activation, x);
}

/* To a multiple of 8, but never less than nine tenths. */
static int divisible(int channels)
{
    int rounded = channels < 8 ? 8 : (channels + 4) / 8 * 8;

    return 10 * rounded < 9 * channels ? rounded + 8 : rounded;
}

/* x times a factor for every channel, which follows from all channels' means. */
static tensor_id squeeze_excitation(struct graph *graph, const char *name, tensor_id x)
{
    int channels = (int)tensor_channels(&graph->tensors[x]);
    struct linear fc = {.pixel = true, .weight = {.kind = INIT_KAIMING}, .bias = {.kind = INIT_ZERO}};
    size_t scope = graph_push(graph, "%s", name);
    tensor_id s = nn_global_avg_pool(graph, x); /* (N, C) */

    fc.features = divisible(channels / 4);
    s = nn_relu(graph, nn_linear(graph, "fc1", s, fc));
    fc.features = channels;
    s = nn_activation(graph, ACTIVATION_HARDSIGMOID, nn_linear(graph, "fc2", s, fc));
    graph_pop(graph, scope);
    return nn_scale(graph, x, s);
}

static tensor_id inverted_residual(struct graph *graph, tensor_id x, const struct block *b)
{
    const struct conv2d expand = {.channels = b->expanded, .kernel = 1},
                        project = {.channels = b->channels, .kernel = 1};
    const struct conv2d depthwise = {
        .channels = b->expanded, .kernel = b->kernel, .stride = b->stride, .groups = b->expanded};
    char layers[][8] = {"block.0", "block.1", "block.2", "block.3"};
    bool expands = tensor_channels(&graph->tensors[x]) != b->expanded;
    tensor_id y = x;
    int k = 0;

    if (expands)
        y = conv_norm(graph, layers[k++], y, expand, b->activation);
    y = conv_norm(graph, layers[k++], y, depthwise, b->activation);
    if (b->squeeze)
        y = squeeze_excitation(graph, layers[k++], y);
    y = conv_norm(graph, layers[k], y, project, ACTIVATION_NONE);
    return b->stride == 1 && tensor_same_shape(&graph->tensors[x], &graph->tensors[y]) ? nn_add(graph, y, x) : y;
}

/* The service's head is of PyTorch's layers as they are, torchvision's of its own. */
static tensor_id classifier(struct graph *graph, tensor_id x, int features, int num_classes)
{
    bool reference = features == REFERENCE_HEAD;
    struct linear layer = {.features = features};

    if (!reference) {
        layer.weight = (struct init){INIT_NORMAL, 0.01};
        layer.bias.kind = INIT_ZERO;
    }
    x = nn_linear(graph, "classifier.0", x, layer);
    x = nn_dropout(graph, nn_activation(graph, reference ? RE : HS, x), DROPOUT);
    layer.features = num_classes;
    return nn_linear(graph, "classifier.3", x, layer);
}

tensor_id mobilenet_v3_build(struct graph *graph, const void *size, tensor_id x, int num_classes)
{
    const struct mobilenet_v3 *net = size;
    const struct conv2d stem = {.channels = STEM_CHANNELS, .kernel = 3, .stride = 2};
    struct conv2d last = {.kernel = 1};
    char name[24];

    x = conv_norm(graph, "features.0", x, stem, HS); /* (N, S/2, S/2, 16) */
    for (int i = 0; i < net->block_count; i++) {
        size_t scope = graph_push(graph, "features.%d", i + 1);

        x = inverted_residual(graph, x, &net->blocks[i]);
        graph_pop(graph, scope);
    }
    snprintf(name, sizeof name, "features.%d", net->block_count + 1);
    last.channels = 6 * (int)tensor_channels(&graph->tensors[x]);
    x = nn_global_avg_pool(graph, conv_norm(graph, name, x, last, HS)); /* (N, S/32, S/32, C) -> (N, C) */
    return classifier(graph, x, net->head, num_classes);
}
