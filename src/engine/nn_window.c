/* nn_window.c - what Swin v2 has of its own. See nn.h */
#include "engine/nn.h"

#include <math.h>

#include "engine/window.h"

enum { WINDOW = 8, PLACES = 2 * WINDOW - 1, TOKENS = WINDOW * WINDOW, MIDDLE = 512 };

tensor_id nn_position_bias_op(struct graph *graph, tensor_id coords, tensor_id weight1, tensor_id bias1,
                              tensor_id weight2)
{
    const struct tensor *places = &graph->tensors[coords];
    int64_t shape[] = {graph->tensors[weight2].shape[0], places->shape[1] * places->shape[2]};
    tensor_id inputs[] = {[POSITION_COORDS] = coords,
                          [POSITION_WEIGHT1] = weight1,
                          [POSITION_BIAS1] = bias1,
                          [POSITION_WEIGHT2] = weight2};
    tensor_id table =
        graph_tensor(graph, graph->training ? TENSOR_ACTIVATION : TENSOR_DERIVED, DTYPE_F32, 2, shape, NULL);

    graph_op(graph, OP_POSITION_BIAS, NULL, 4, inputs, 1, &table);
    return table;
}

tensor_id nn_window_attention_op(struct graph *graph, const struct op_attrs *attrs, tensor_id qkv, tensor_id qkv_bias,
                                 tensor_id logit_scale, tensor_id table)
{
    struct tensor in = graph->tensors[qkv];
    struct op_attrs a = *attrs;
    tensor_id inputs[] = {
        [WINDOW_QKV] = qkv, [WINDOW_QKV_BIAS] = qkv_bias, [WINDOW_LOGIT_SCALE] = logit_scale, [WINDOW_TABLE] = table};
    tensor_id y;

    if (in.rank != 4 || in.shape[3] % (3 * a.heads)) {
        graph_fail(graph, ERR_BUG, "%swindow attention: %d heads do not fit the input", graph->scope, a.heads);
        return 0;
    }
    for (int i = 0; i < 2; i++)
        if (in.shape[1 + i] <= a.kernel[i])
            a.shift[i] = 0; /* one window is all */
    in.shape[3] /= 3;
    y = graph_tensor(graph, TENSOR_ACTIVATION, in.dtype, 4, in.shape, NULL);
    graph_op(graph, OP_WINDOW_ATTENTION, &a, 4, inputs, 1, &y);
    return y;
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
    return nn_buffer(graph, "relative_coords_table", DTYPE_F32, 4, shape, values);
}

/* Which distance each pair of places has. A part of checkpoints; WINDOW_ATTENTION computes it. */
static void position_index(struct graph *graph)
{
    const struct window_grid window = {.size = {WINDOW, WINDOW}};
    int64_t *values = graph_alloc(graph, TOKENS * TOKENS * sizeof *values);

    for (int i = 0; values && i < TOKENS * TOKENS; i++)
        values[i] = window_distance(&window, i / TOKENS, i % TOKENS);
    nn_buffer(graph, "relative_position_index", DTYPE_I64, 1, (int64_t[]){TOKENS * TOKENS}, values);
}

/* The order is that of a checkpoint. */
tensor_id nn_window_attention(struct graph *graph, const char *name, tensor_id x, int heads, bool shifted)
{
    const struct init weights = {INIT_NORMAL, 0.02}, zeros = {INIT_ZERO, 0}, log_10 = {INIT_CONSTANT, log(10)};
    int channels = (int)tensor_channels(&graph->tensors[x]), shift = shifted ? WINDOW / 2 : 0;
    const struct op_attrs attrs = {.kernel = {WINDOW, WINDOW}, .shift = {shift, shift}, .heads = heads};
    struct linear linear = {.features = 3 * channels, .weight = weights, .bias = zeros};
    size_t scope = graph_push(graph, "%s", name);
    struct layer qkv, proj, hidden, out;
    tensor_id logit_scale, coords, table;

    logit_scale = nn_param(graph, "logit_scale", 3, (int64_t[]){heads, 1, 1}, log_10);
    coords = coords_table(graph);
    position_index(graph);
    qkv = nn_linear_params(graph, "qkv", channels, linear);
    linear.features = channels;
    proj = nn_linear_params(graph, "proj", channels, linear);
    linear.features = MIDDLE;
    hidden = nn_linear_params(graph, "cpb_mlp.0", 2, linear);
    out = nn_linear_params(graph, "cpb_mlp.2", MIDDLE,
                           (struct linear){.features = heads, .no_bias = true, .weight = weights});
    graph_pop(graph, scope);
    table = nn_position_bias_op(graph, coords, hidden.weight, hidden.bias, out.weight);
    x = nn_linear_op(graph, x, qkv.weight, NO_TENSOR); /* the bias is the attention's, see op.h */
    x = nn_window_attention_op(graph, &attrs, x, qkv.bias, logit_scale, table);
    return nn_linear_op(graph, x, proj.weight, proj.bias);
}

tensor_id nn_patch_merge(struct graph *graph, tensor_id x)
{
    struct tensor in = graph->tensors[x];
    tensor_id y;

    if (in.rank != 4) {
        graph_fail(graph, ERR_BUG, "%spatch merging: input has %d dimensions, not 4", graph->scope, in.rank);
        return 0;
    }
    y = graph_tensor(graph, TENSOR_ACTIVATION, in.dtype, 4,
                     (int64_t[]){in.shape[0], (in.shape[1] + 1) / 2, (in.shape[2] + 1) / 2, 4 * in.shape[3]}, NULL);
    graph_op(graph, OP_PATCH_MERGE, NULL, 1, &x, 1, &y);
    return y;
}
