/* optim.c - see optim.h */
#include "engine/optim.h"

static tensor_id moment(struct graph *graph, tensor_id param, const char *name)
{
    tensor_id m = graph_like(graph, TENSOR_MOMENT, param);

    graph->tensors[m].name = name;
    graph->tensors[m].of = param;
    return m;
}

void graph_adam(struct graph *graph, double learning_rate)
{
    struct op_attrs attrs = {.learning_rate = learning_rate, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8f};
    int count = graph->gradient_count, n = ADAM_FIRST;
    tensor_id *inputs = graph_alloc(graph, (size_t)(ADAM_FIRST + ADAM_GROUP * count) * sizeof *inputs);

    if (graph->failed)
        return;
    inputs[ADAM_STEP] = graph_step(graph);
    for (tensor_id t = 0; t < count; t++) {
        if (graph->tensors[t].role != TENSOR_PARAM || graph->gradients[t] == NO_TENSOR)
            continue;
        inputs[n + ADAM_PARAM] = t;
        inputs[n + ADAM_GRAD] = graph->gradients[t];
        inputs[n + ADAM_EXP_AVG] = moment(graph, t, "exp_avg");
        inputs[n + ADAM_EXP_AVG_SQ] = moment(graph, t, "exp_avg_sq");
        n += ADAM_GROUP;
    }
    graph_op(graph, OP_ADAM, &attrs, n, inputs, 0, NULL);
}
