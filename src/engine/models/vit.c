/* vit.c - vision transformers as torchvision has them.
 * Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021, table 1. */
#include <math.h>

#include "engine/models/models.h"
#include "engine/nn.h"

struct vit {
    int patch, layers, heads, channels, mlp;
};

const struct vit vit_b_16 = {16, 12, 12, 768, 3072};
const struct vit vit_b_32 = {32, 12, 12, 768, 3072};
const struct vit vit_l_16 = {16, 24, 16, 1024, 4096};
const struct vit vit_l_32 = {32, 24, 16, 1024, 4096};

#define EPS 1e-6

/* x (…,C) -> (…,C) */
static tensor_id mlp(struct graph *graph, const struct vit *vit, tensor_id x)
{
    struct linear layer = {.features = vit->mlp, .weight = {.kind = INIT_XAVIER}, .bias = {INIT_NORMAL, 1e-6}};
    size_t scope = graph_push(graph, "mlp");

    x = nn_activation(graph, ACTIVATION_GELU, nn_linear(graph, "0", x, layer));
    layer.features = vit->channels;
    x = nn_linear(graph, "3", x, layer);
    graph_pop(graph, scope);
    return x;
}

/* One layer: (N,L,C) -> (N,L,C). After the last one only the class token is looked at, so from its attention on nothing
 * else is computed: (N,C). */
static tensor_id encoder_layer(struct graph *graph, const struct vit *vit, tensor_id x, bool last)
{
    const struct linear out_proj = {.features = vit->channels, .bias = {.kind = INIT_ZERO}};
    tensor_id y = nn_layer_norm(graph, "ln_1", x, EPS);
    size_t scope = graph_push(graph, "self_attention");

    y = nn_self_attention(graph, y, vit->heads);
    if (last) {
        x = nn_first_token(graph, x);
        y = nn_first_token(graph, y);
    }
    y = nn_linear(graph, "out_proj", y, out_proj);
    graph_pop(graph, scope);
    x = nn_add(graph, x, y);
    return nn_add(graph, x, mlp(graph, vit, nn_layer_norm(graph, "ln_2", x, EPS)));
}

/* The first convolution as a linear layer over patches; its initial normal is cut off at 2, dozens of deviations. */
static tensor_id conv_proj(struct graph *graph, const struct vit *vit, tensor_id x)
{
    const struct conv2d conv = {.channels = vit->channels,
                                .kernel = vit->patch,
                                .bias = true,
                                .weight = {INIT_NORMAL, sqrt(1.0 / (3 * vit->patch * vit->patch))},
                                .bias_init = {.kind = INIT_ZERO}};
    struct layer layer = nn_conv2d_params(graph, "conv_proj", 3, conv);

    return nn_linear_op(graph, nn_patches(graph, x, vit->patch), layer.weight, layer.bias);
}

tensor_id vit_build(struct graph *graph, const void *size, tensor_id x, int num_classes)
{
    const struct vit *vit = size;
    const int64_t side = graph->tensors[x].shape[1] / vit->patch, channels = vit->channels;
    tensor_id class_token, pos_embedding;
    size_t encoder, scope;

    class_token = nn_param(graph, "class_token", 3, (int64_t[]){1, 1, channels}, (struct init){.kind = INIT_ZERO});
    x = conv_proj(graph, vit, x); /* (N, L, C) */
    encoder = graph_push(graph, "encoder");
    pos_embedding = nn_param(graph, "pos_embedding", 3, (int64_t[]){1, side * side + 1, channels},
                             (struct init){INIT_NORMAL, 0.02});
    x = nn_tokens(graph, class_token, pos_embedding, x); /* (N, L+1, C) */
    for (int i = 0; i < vit->layers; i++) {
        scope = graph_push(graph, "layers.encoder_layer_%d", i);
        x = encoder_layer(graph, vit, x, i == vit->layers - 1);
        graph_pop(graph, scope);
    }
    x = nn_layer_norm(graph, "ln", x, EPS); /* (N, C) */
    graph_pop(graph, encoder);
    return nn_linear(graph, "heads.head", x, (struct linear){.features = num_classes});
}
