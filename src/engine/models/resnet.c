/* resnet.c - ResNet 18 to 152 as torchvision has them (the stride of a bottleneck is on its 3×3 convolution).
 * He et al., "Deep residual learning for image recognition", CVPR 2016, table 1. */
#include "engine/models/models.h"

#include "engine/nn.h"

enum { STAGES = 4 };

typedef tensor_id resnet_block(struct graph *graph, tensor_id x, int channels, int stride);

struct resnet {
    resnet_block *block;
    int blocks[STAGES];
};

static tensor_id conv_bn(struct graph *graph, const char *conv, const char *bn, tensor_id x, int channels, int kernel,
                         int stride)
{
    const struct conv2d layer = {.channels = channels,
                                 .kernel = kernel,
                                 .stride = stride,
                                 .padding = kernel / 2,
                                 .weight = {.kind = INIT_KAIMING}};

    return nn_batch_norm(graph, bn, nn_conv2d(graph, conv, x, layer));
}

/* act(y + x), x through a 1×1 convolution where the shape changes. */
static tensor_id add_shortcut(struct graph *graph, tensor_id x, tensor_id y, int stride)
{
    if (!tensor_same_shape(&graph->tensors[x], &graph->tensors[y]))
        x = conv_bn(graph, "downsample.0", "downsample.1", x, (int)tensor_channels(&graph->tensors[y]), 1, stride);
    return nn_relu(graph, nn_add(graph, y, x));
}

static tensor_id basic_block(struct graph *graph, tensor_id x, int channels, int stride)
{
    tensor_id y = nn_relu(graph, conv_bn(graph, "conv1", "bn1", x, channels, 3, stride));

    y = conv_bn(graph, "conv2", "bn2", y, channels, 3, 1);
    return add_shortcut(graph, x, y, stride);
}

static tensor_id bottleneck(struct graph *graph, tensor_id x, int channels, int stride)
{
    tensor_id y = nn_relu(graph, conv_bn(graph, "conv1", "bn1", x, channels, 1, 1));

    y = nn_relu(graph, conv_bn(graph, "conv2", "bn2", y, channels, 3, stride));
    y = conv_bn(graph, "conv3", "bn3", y, 4 * channels, 1, 1);
    return add_shortcut(graph, x, y, stride);
}

const struct resnet resnet18 = {basic_block, {2, 2, 2, 2}};
const struct resnet resnet34 = {basic_block, {3, 4, 6, 3}};
const struct resnet resnet50 = {bottleneck, {3, 4, 6, 3}};
const struct resnet resnet101 = {bottleneck, {3, 4, 23, 3}};
const struct resnet resnet152 = {bottleneck, {3, 8, 36, 3}};

tensor_id resnet_build(struct graph *graph, const void *size, tensor_id x, int num_classes)
{
    const struct resnet *resnet = size;

    x = nn_relu(graph, conv_bn(graph, "conv1", "bn1", x, 64, 7, 2)); /* (N, S/2, S/2, 64) */
    x = nn_max_pool(graph, x, 3, 2, 1);                              /* (N, S/4, S/4, 64) */
    for (int stage = 0; stage < STAGES; stage++) {
        for (int i = 0; i < resnet->blocks[stage]; i++) {
            size_t scope = graph_push(graph, "layer%d.%d", stage + 1, i);

            x = resnet->block(graph, x, 64 << stage, stage > 0 && i == 0 ? 2 : 1);
            graph_pop(graph, scope);
        }
    }
    x = nn_global_avg_pool(graph, x); /* (N, S/32, S/32, C) -> (N, C) */
    return nn_linear(graph, "fc", x, (struct linear){.features = num_classes});
}
