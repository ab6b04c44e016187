/* optim.c - see optim.h */
#include "engine/optim.h"

#include <stdlib.h>

struct due {
    tensor_id param, exp_avg, exp_avg_sq;
    int op; /* the last one that reads the parameter or writes its gradient */
};

static tensor_id moment(struct graph *graph, tensor_id param, const char *name)
{
    tensor_id m = graph_like(graph, TENSOR_MOMENT, param);

    graph->tensors[m].name = name;
    graph->tensors[m].of = param;
    return m;
}

/* Appends one ADAM. */
static void update(struct graph *graph, double learning_rate, const struct due *due, int count, bool last)
{
    struct op_attrs attrs = {
        .learning_rate = learning_rate, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8f, .counts_step = last};
    tensor_id *inputs = graph_alloc(graph, (size_t)(ADAM_FIRST + ADAM_GROUP * count) * sizeof *inputs);
    tensor_id *group;

    if (!inputs)
        return;
    inputs[ADAM_STEP] = graph_step(graph);
    group = inputs + ADAM_FIRST;
    for (int i = 0; i < count; i++, group += ADAM_GROUP) {
        tensor_id t = due[i].param;

        group[ADAM_PARAM] = t;
        group[ADAM_GRAD] = graph->gradients[t];
        group[ADAM_EXP_AVG] = due[i].exp_avg;
        group[ADAM_EXP_AVG_SQ] = due[i].exp_avg_sq;
    }
    graph_op(graph, OP_ADAM, &attrs, ADAM_FIRST + ADAM_GROUP * count, inputs, 0, NULL);
}

static int by_op(const void *a, const void *b)
{
    const struct due *x = a, *y = b;

    return x->op != y->op ? (x->op > y->op) - (x->op < y->op) : (x->param > y->param) - (x->param < y->param);
}

/* All that have a gradient, in the order in which they are due; returns how many. Moments are made in the order of the
 * parameters, which graphs of other batch sizes have too. */
static int find_due(struct graph *graph, struct due *due)
{
    int *last = graph_alloc(graph, (size_t)graph->tensor_count * sizeof *last), count = 0;

    if (!last)
        return 0;
    for (int i = 0; i < graph->op_count; i++) {
        const struct op *op = &graph->ops[i];

        for (int k = 0; k < op->input_count; k++)
            if (op->inputs[k] != NO_TENSOR)
                last[op->inputs[k]] = i;
        for (int k = 0; k < op->output_count; k++)
            if (op->outputs[k] != NO_TENSOR)
                last[op->outputs[k]] = i;
    }
    for (tensor_id t = 0; t < graph->gradient_count; t++) {
        tensor_id gradient = graph->gradients[t];

        if (graph->tensors[t].role == TENSOR_PARAM && gradient != NO_TENSOR)
            due[count++] = (struct due){.param = t,
                                        .exp_avg = moment(graph, t, "exp_avg"),
                                        .exp_avg_sq = moment(graph, t, "exp_avg_sq"),
                                        .op = last[t] > last[gradient] ? last[t] : last[gradient]};
    }
    qsort(due, (size_t)count, sizeof *due, by_op);
    return count;
}

void graph_adam(struct graph *graph, double learning_rate, size_t least_bytes, int parts)
{
    struct due *due = graph_alloc(graph, (size_t)graph->gradient_count * sizeof *due);
    struct op *source = graph->ops;
    int op_count = graph->op_count, count = due ? find_due(graph, due) : 0, first = 0, next = 0;
    size_t all = 0, bytes = 0;

    if (graph->failed)
        return;
    for (int i = 0; i < count; i++)
        all += tensor_plain_bytes(&graph->tensors[due[i].param]);
    if (least_bytes < all / (size_t)parts)
        least_bytes = all / (size_t)parts;
    graph->ops = NULL;
    graph->op_count = graph->op_capacity = 0;
    for (int i = 0; i < op_count && !graph->failed; i++) {
        const struct op *op = &source[i];

        graph_op(graph, op->type, &op->attrs, op->input_count, op->inputs, op->output_count, op->outputs);
        for (; next < count && due[next].op == i; next++)
            bytes += tensor_plain_bytes(&graph->tensors[due[next].param]);
        if (next > first && (bytes >= least_bytes || next == count)) {
            update(graph, learning_rate, due + first, next - first, next == count);
            first = next;
            bytes = 0;
        }
    }
    free(source);
}
