/* swin_v2.c - Swin Transformer V2, tiny, small and base, as torchvision has them.
 * Liu et al., "Swin Transformer V2: Scaling Up Capacity and Resolution", CVPR 2022.
 * Normalisation is at the end of a branch, but its parameters come first in a checkpoint: so they are made before it.
 */
#include "engine/models/models.h"

#include "engine/nn.h"

enum { STAGES = 4, PATCH = 4, MLP = 4 };

static const double EPS = 1e-5;
static const struct init weights = {INIT_NORMAL, 0.02};

struct swin_v2 {
    int channels, heads; /* of the first stage, twice as many in each further one */
    int blocks[STAGES];
    double stochastic_depth; /* of the last block, rising from 0 */
};

const struct swin_v2 swin_v2_t = {96, 3, {2, 2, 6, 2}, 0.2};
const struct swin_v2 swin_v2_s = {96, 3, {2, 2, 18, 2}, 0.3};
const struct swin_v2 swin_v2_b = {128, 4, {2, 2, 18, 2}, 0.5};

static tensor_id mlp(struct graph *graph, tensor_id x)
{
    int channels = (int)tensor_channels(&graph->tensors[x]);
    struct linear linear = {.features = MLP * channels, .weight = weights, .bias = {.kind = INIT_ZERO}};

    x = nn_activation(graph, ACTIVATION_GELU, nn_linear(graph, "mlp.0", x, linear));
    linear.features = channels;
    return nn_linear(graph, "mlp.3", x, linear);
}

/* x (N,H,W,C) -> the same shape */
static tensor_id block(struct graph *graph, tensor_id x, int heads, bool shifted, double stochastic_depth)
{
    int64_t channels = tensor_channels(&graph->tensors[x]);
    struct layer norm = nn_layer_norm_params(graph, "norm1", channels);
    tensor_id y = nn_window_attention(graph, "attn", x, heads, shifted);

    y = nn_layer_norm_op(graph, y, norm.weight, norm.bias, EPS);
    x = nn_add(graph, x, nn_stochastic_depth(graph, y, stochastic_depth));
    norm = nn_layer_norm_params(graph, "norm2", channels);
    y = nn_layer_norm_op(graph, mlp(graph, x), norm.weight, norm.bias, EPS);
    return nn_add(graph, x, nn_stochastic_depth(graph, y, stochastic_depth));
}

/* Half the sides, twice the channels. */
static tensor_id patch_merging(struct graph *graph, tensor_id x)
{
    int channels = 2 * (int)tensor_channels(&graph->tensors[x]);

    x = nn_linear(graph, "reduction", nn_patch_merge(graph, x),
                  (struct linear){.features = channels, .no_bias = true, .weight = weights});
    return nn_layer_norm(graph, "norm", x, EPS);
}

tensor_id swin_v2_build(struct graph *graph, const void *size, tensor_id x, int num_classes)
{
    const struct swin_v2 *swin = size;
    int blocks = 0, done = 0;

    for (int stage = 0; stage < STAGES; stage++)
        blocks += swin->blocks[stage];
    x = nn_conv2d(graph, "features.0.0", x,
                  (struct conv2d){.channels = swin->channels, .kernel = PATCH, .stride = PATCH, .bias = true});
    x = nn_layer_norm(graph, "features.0.2", x, EPS); /* (N, S/4, S/4, channels) */
    for (int stage = 0; stage < STAGES; stage++) {
        for (int i = 0; i < swin->blocks[stage]; i++) {
            size_t scope = graph_push(graph, "features.%d.%d", 2 * stage + 1, i);

            x = block(graph, x, swin->heads << stage, i % 2, swin->stochastic_depth * done++ / (blocks - 1));
            graph_pop(graph, scope);
        }
        if (stage + 1 < STAGES) {
            size_t scope = graph_push(graph, "features.%d", 2 * stage + 2);

            x = patch_merging(graph, x);
            graph_pop(graph, scope);
        }
    }
    x = nn_global_avg_pool(graph, nn_layer_norm(graph, "norm", x, EPS));
    return nn_linear(graph, "head", x, (struct linear){.features = num_classes});
}
