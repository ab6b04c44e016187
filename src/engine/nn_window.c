/* nn_window.c - what Swin v2 has of its own. See nn.h */
#include "engine/nn.h"

#include "engine/window.h"

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
