/* swin_v2.c - Swin Transformer V2, tiny, small and base, as torchvision has them.
 * Liu et al., "Swin Transformer V2: Scaling Up Capacity and Resolution", CVPR 2022.
 * Normalisation is at the end of a branch, but its parameters come first in a checkpoint: so they are made before it.
 */
#include "engine/models/models.h"

#include <math.h>

#include "engine/nn.h"

enum { STAGES = 4, PATCH = 4, WINDOW = 8, PLACES = 2 * WINDOW - 1, TOKENS = WINDOW * WINDOW, MLP = 4, MIDDLE = 512 };

static const double EPS = 1e-5;
static const struct init weights = {INIT_NORMAL, 0.02}, zeros = {INIT_ZERO, 0}, ones = {INIT_ONE, 0};

struct swin_v2 {
    int channels, heads; /* of the first stage, twice as many in each further one */
    int blocks[STAGES];
    double stochastic_depth; /* of the last block, rising from 0 */
};

const struct swin_v2 swin_v2_t = {96, 3, {2, 2, 6, 2}, 0.2};
const struct swin_v2 swin_v2_s = {96, 3, {2, 2, 18, 2}, 0.3};
const struct swin_v2 swin_v2_b = {128, 4, {2, 2, 18, 2}, 0.5};

struct layer {
    tensor_id weight, bias;
};

static struct layer norm_params(struct graph *graph, const char *name, int64_t channels)
{
    size_t scope = graph_push(graph, "%s", name);
    struct layer norm = {nn_param(graph, "weight", 1, &channels, ones), nn_param(graph, "bias", 1, &channels, zeros)};

    graph_pop(graph, scope);
    return norm;
}

static struct layer linear_params(struct graph *graph, const char *name, int64_t in, int64_t out)
{
    size_t scope = graph_push(graph, "%s", name);
    struct layer linear = {nn_param(graph, "weight", 2, (int64_t[]){out, in}, weights),
                           nn_param(graph, "bias", 1, &out, zeros)};

    graph_pop(graph, scope);
    return linear;
}

/* A tensor whose first values are these. */
static tensor_id with_values(struct graph *graph, tensor_id t, const void *values)
{
    graph->tensors[t].init.kind = INIT_VALUES;
    graph->tensors[t].values = values;
    return t;
}

static tensor_id logit_scale(struct graph *graph, int heads)
{
    float *values = graph_alloc(graph, (size_t)heads * sizeof *values);

    for (int i = 0; values && i < heads; i++)
        values[i] = logf(10);
    return with_values(graph, nn_param(graph, "logit_scale", 3, (int64_t[]){heads, 1, 1}, zeros), values);
}

/* For every distance of two places in a window, in (-8, 8), its logarithm: sign(d) log2(|d| + 1) / 3. */
static tensor_id coords_table(struct graph *graph)
{
    const int64_t shape[] = {1, PLACES, PLACES, 2};
    float *values = graph_alloc(graph, PLACES * PLACES * 2 * sizeof *values);

    for (int i = 0; values && i < PLACES * PLACES * 2; i++) {
        float d = (float)((i % 2 ? i / 2 % PLACES : i / 2 / PLACES) - (WINDOW - 1)) / (WINDOW - 1) * 8;

        values[i] = copysignf(log2f(fabsf(d) + 1) / 3, d);
    }
    return with_values(graph, graph_tensor(graph, TENSOR_BUFFER, DTYPE_F32, 4, shape, "relative_coords_table"), values);
}

/* Which distance each pair of places has. A part of checkpoints; WINDOW_ATTENTION computes it. */
static void position_index(struct graph *graph)
{
    const int64_t shape[] = {TOKENS * TOKENS};
    int64_t *values = graph_alloc(graph, TOKENS * TOKENS * sizeof *values);

    for (int i = 0; values && i < TOKENS * TOKENS; i++) {
        int a = i / TOKENS, b = i % TOKENS;

        values[i] = (a / WINDOW - b / WINDOW + WINDOW - 1) * PLACES + a % WINDOW - b % WINDOW + WINDOW - 1;
    }
    with_values(graph, graph_tensor(graph, TENSOR_BUFFER, DTYPE_I64, 1, shape, "relative_position_index"), values);
}

static tensor_id attention(struct graph *graph, tensor_id x, int heads, int shift)
{
    struct op_attrs attrs = {.kernel = {WINDOW, WINDOW}, .shift = {shift, shift}, .heads = heads};
    int64_t channels = tensor_channels(&graph->tensors[x]);
    size_t scope = graph_push(graph, "attn");
    tensor_id scale = logit_scale(graph, heads), coords = coords_table(graph), weight, table;
    struct layer qkv, proj, cpb;

    position_index(graph);
    qkv = linear_params(graph, "qkv", channels, 3 * channels);
    proj = linear_params(graph, "proj", channels, channels);
    cpb = linear_params(graph, "cpb_mlp.0", 2, MIDDLE);
    weight = nn_param(graph, "cpb_mlp.2.weight", 2, (int64_t[]){heads, MIDDLE}, weights);
    table = nn_position_bias_op(graph, coords, cpb.weight, cpb.bias, weight);
    x = nn_linear_op(graph, x, qkv.weight, NO_TENSOR); /* the bias is the attention's, see op.h */
    x = nn_window_attention_op(graph, &attrs, x, qkv.bias, scale, table);
    graph_pop(graph, scope);
    return nn_linear_op(graph, x, proj.weight, proj.bias);
}

static tensor_id mlp(struct graph *graph, tensor_id x)
{
    int channels = (int)tensor_channels(&graph->tensors[x]);
    struct linear linear = {.features = MLP * channels, .weight = weights, .bias = zeros};

    x = nn_activation(graph, ACTIVATION_GELU, nn_linear(graph, "mlp.0", x, linear));
    linear.features = channels;
    return nn_linear(graph, "mlp.3", x, linear);
}

static tensor_id block(struct graph *graph, tensor_id x, int heads, int shift, double stochastic_depth)
{
    int64_t channels = tensor_channels(&graph->tensors[x]);
    struct layer norm = norm_params(graph, "norm1", channels);
    tensor_id y = nn_layer_norm_op(graph, attention(graph, x, heads, shift), norm.weight, norm.bias, EPS);

    x = nn_add(graph, x, nn_stochastic_depth(graph, y, stochastic_depth));
    norm = norm_params(graph, "norm2", channels);
    y = nn_layer_norm_op(graph, mlp(graph, x), norm.weight, norm.bias, EPS);
    return nn_add(graph, x, nn_stochastic_depth(graph, y, stochastic_depth));
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

            x = block(graph, x, swin->heads << stage, i % 2 ? WINDOW / 2 : 0,
                      swin->stochastic_depth * done++ / (blocks - 1));
            graph_pop(graph, scope);
        }
        if (stage + 1 < STAGES) { /* half the sides, twice the channels */
            size_t scope = graph_push(graph, "features.%d", 2 * stage + 2);
            int channels = swin->channels << (stage + 1);

            x = nn_linear(graph, "reduction", nn_patch_merge(graph, x),
                          (struct linear){.features = channels, .no_bias = true, .weight = weights});
            x = nn_layer_norm(graph, "norm", x, EPS);
            graph_pop(graph, scope);
        }
    }
    x = nn_global_avg_pool(graph, nn_layer_norm(graph, "norm", x, EPS));
    return nn_linear(graph, "head", x, (struct linear){.features = num_classes});
}
