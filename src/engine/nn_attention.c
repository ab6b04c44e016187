/* nn_attention.c - layers of transformers: patches, tokens, attention. See nn.h */
#include <math.h>

#include "engine/nn.h"

/* Is x (N,L,C)? Otherwise the graph has failed. */
static bool is_tokens(struct graph *graph, const char *what, tensor_id x)
{
    if (graph->tensors[x].rank == 3)
        return true;
    graph_fail(graph, ERR_BUG, "%s%s: input has %d dimensions, not 3", graph->scope, what, graph->tensors[x].rank);
    return false;
}

tensor_id nn_patches(struct graph *graph, tensor_id x, int size)
{
    struct op_attrs attrs = {.kernel = {size, size}};
    struct tensor in = graph->tensors[x];
    tensor_id y;

    if (in.rank != 4 || in.shape[1] % size || in.shape[2] % size) {
        graph_fail(graph, ERR_BUG, "%spatches: the image's sides are no multiples of %d", graph->scope, size);
        return 0;
    }
    y = graph_tensor(graph, TENSOR_ACTIVATION, DTYPE_F32, 3,
                     (int64_t[]){in.shape[0], in.shape[1] / size * (in.shape[2] / size), in.shape[3] * size * size},
                     NULL);
    graph_op(graph, OP_PATCHES, &attrs, 1, &x, 1, &y);
    return y;
}

tensor_id nn_tokens(struct graph *graph, tensor_id class_token, tensor_id pos_embedding, tensor_id x)
{
    struct tensor in = graph->tensors[x];
    tensor_id y;

    if (!is_tokens(graph, "tokens", x))
        return 0;
    in.shape[1]++;
    y = graph_tensor(graph, TENSOR_ACTIVATION, DTYPE_F32, 3, in.shape, NULL);
    if (tensor_elements(&graph->tensors[class_token]) != in.shape[2] ||
        tensor_elements(&graph->tensors[pos_embedding]) != in.shape[1] * in.shape[2]) {
        graph_fail(graph, ERR_BUG, "%stokens: class token or position embedding do not match", graph->scope);
        return 0;
    }
    graph_op(graph, OP_TOKENS, NULL, 3,
             (tensor_id[]){[TOKENS_X] = x, [TOKENS_CLASS] = class_token, [TOKENS_POS] = pos_embedding}, 1, &y);
    return y;
}

tensor_id nn_first_token(struct graph *graph, tensor_id x)
{
    struct tensor in = graph->tensors[x];
    tensor_id y;

    if (!is_tokens(graph, "first token", x))
        return 0;
    y = graph_tensor(graph, TENSOR_ACTIVATION, DTYPE_F32, 2, (int64_t[]){in.shape[0], in.shape[2]}, NULL);
    graph_op(graph, OP_FIRST_TOKEN, NULL, 1, &x, 1, &y);
    return y;
}

tensor_id nn_attention_op(struct graph *graph, tensor_id qkv, int heads)
{
    struct tensor in = graph->tensors[qkv];
    struct op_attrs attrs = {.heads = heads};
    tensor_id outputs[] = {0, NO_TENSOR};

    if (!is_tokens(graph, "attention", qkv))
        return 0;
    if (in.shape[2] % (3 * heads)) {
        graph_fail(graph, ERR_BUG, "%sattention: %d channels are not thrice %d heads", graph->scope, (int)in.shape[2],
                   heads);
        return 0;
    }
    in.shape[2] /= 3;
    attrs.scale = (float)sqrt((double)heads / (double)in.shape[2]);
    outputs[ATTENTION_Y] = graph_tensor(graph, TENSOR_ACTIVATION, DTYPE_F32, 3, in.shape, NULL);
    if (graph->training)
        outputs[ATTENTION_STATS] = graph_like(graph, TENSOR_STATE, outputs[ATTENTION_Y]);
    graph_op(graph, OP_ATTENTION, &attrs, 1, &qkv, 2, outputs);
    return outputs[ATTENTION_Y];
}

tensor_id nn_self_attention(struct graph *graph, tensor_id x, int heads)
{
    int64_t channels = tensor_channels(&graph->tensors[x]), three = 3 * channels;
    tensor_id weight =
        nn_param(graph, "in_proj_weight", 2, (int64_t[]){three, channels}, (struct init){INIT_XAVIER, 0});
    tensor_id bias = nn_param(graph, "in_proj_bias", 1, &three, (struct init){INIT_ZERO, 0});

    return nn_attention_op(graph, nn_linear_op(graph, x, weight, bias), heads);
}
