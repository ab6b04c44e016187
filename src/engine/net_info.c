/* net_info.c - how large a network is, from its graph. */
#include "engine/net_internal.h"
#include "engine/window.h"

/* Products of a sum are counted as two operations each (multiply and add), what is element-wise not at all, as is the
 * custom (torchvision's tables, which count a multiply-add as one). 0 for ops without such sums. */
static int64_t op_flops(const struct graph *graph, const struct op *op)
{
    const struct tensor *x = op_input(graph, op, 0), *weight = op_input(graph, op, 1), *y = op_output(graph, op, 0);
    int64_t pairs;

    switch (op->type) {
    case OP_CONV2D:
    case OP_LINEAR: /* a sum over what belongs to one output channel, for every output */
        return 2 * tensor_elements(y) * (tensor_elements(weight) / weight->shape[0]);
    case OP_ATTENTION: /* (N,L,3C): each of L tokens with each, over C channels, for the weights and for the values */
        pairs = x->shape[0] * x->shape[1] * x->shape[1];
        return 2 * 2 * pairs * tensor_channels(y);
    case OP_WINDOW_ATTENTION: { /* the same within each window of the padded image */
        const struct window_grid grid = window_grid_of(&op->attrs, x);

        pairs = x->shape[0] * grid.rows * grid.columns * grid.tokens * grid.tokens;
        return 2 * 2 * pairs * tensor_channels(y);
    }
    default:
        return 0;
    }
}

bool net_describe(const struct net_config *config, struct net_info *ret, struct err *err)
{
    struct graph *graph;
    bool ok;

    if (!net_check(config, err))
        return false;
    graph = net_graph(model_find(config->model), config, backend_find(config->backend), 1, false);
    if (!graph)
        return err_set(err, ERR_MEMORY, "no memory for a graph");
    ok = !graph->failed || err_set(err, graph->err.kind, "%s", graph->err.message);
    *ret = (struct net_info){0};
    for (int t = 0; t < graph->tensor_count; t++)
        if (graph->tensors[t].role == TENSOR_PARAM)
            ret->parameters += tensor_elements(&graph->tensors[t]);
    for (int i = 0; ok && i < graph->op_count; i++)
        ret->flops += op_flops(graph, &graph->ops[i]);
    graph_free(graph);
    return ok;
}
