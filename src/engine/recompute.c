/* recompute.c - see recompute.h. First it is decided, in forward order, which tensors go; then the ops are written anew
 * with what makes those tensors again before their first reader in the backward. */
#include "engine/recompute.h"

#include <stdlib.h>

struct recompute {
    struct graph *graph;
    size_t least_bytes;
    struct op *ops; /* as they were */
    int op_count;
    int backward;      /* index of the first op of the backward */
    int *producer;     /* by tensor: op that makes it in the forward, or -1 */
    int *first, *last; /* by tensor: backward ops that read it, or -1 */
    bool *gone;        /* by tensor: it is to be made again */
    tensor_id *again;  /* by tensor: what stands for it from its first backward reader on; itself until then */
};

/* y as an input of BATCH_NORM_BACKWARD is read only where there is no mask: it alone keeps nothing alive. */
static bool reads(const struct op *op, int slot)
{
    return op->inputs[slot] != NO_TENSOR && !(op->type == OP_BATCH_NORM_BACKWARD && slot == BNB_Y);
}

static void find_readers(struct recompute *r)
{
    const struct graph *graph = r->graph;

    for (int t = 0; t < graph->tensor_count; t++) {
        r->producer[t] = r->first[t] = r->last[t] = -1;
        r->again[t] = t;
    }
    r->backward = r->op_count;
    for (int i = r->op_count - 1; i >= 0; i--) {
        const struct tensor *y = op_output(graph, &r->ops[i], 0);

        if (y && y->role == TENSOR_GRADIENT)
            r->backward = i;
    }
    for (int i = 0; i < r->backward; i++)
        for (int k = 0; k < r->ops[i].output_count; k++)
            if (r->ops[i].outputs[k] != NO_TENSOR)
                r->producer[r->ops[i].outputs[k]] = i;
    for (int i = r->backward; i < r->op_count; i++)
        for (int k = 0; k < r->ops[i].input_count; k++) {
            tensor_id t = r->ops[i].inputs[k];

            if (!reads(&r->ops[i], k))
                continue;
            r->last[t] = i;
            if (r->first[t] < 0)
                r->first[t] = i;
        }
}

static bool is_batch_norm(const struct op *op)
{
    return op && op->type == OP_BATCH_NORM && op->attrs.training;
}

static tensor_id residual_of(const struct op *op)
{
    return op->input_count > BN_RESIDUAL ? op->inputs[BN_RESIDUAL] : NO_TENSOR;
}

/* Passes over memory that change nothing but their first output. */
static bool is_cheap(const struct op *op)
{
    return op->type == OP_IMAGE || op->type == OP_ACTIVATION || op->type == OP_LAYER_NORM || is_batch_norm(op);
}

/* The op that makes t in the forward, or NULL. */
static const struct op *producer_of(const struct recompute *r, tensor_id t)
{
    return t == NO_TENSOR || r->producer[t] < 0 ? NULL : &r->ops[r->producer[t]];
}

/* Will t be there when op number i runs, without being kept for it? The bytes of an image are always kept: they are the
 * smaller form. */
static bool is_there(const struct recompute *r, tensor_id t, int i)
{
    const struct tensor *tensor = t == NO_TENSOR ? NULL : &r->graph->tensors[t];

    return !tensor || tensor_is_persistent(tensor->role) || tensor->role == TENSOR_INPUT ||
           (!r->gone[t] && r->last[t] >= i);
}

/* Can the op's output be made before op number i? */
static bool can_be_made(const struct recompute *r, const struct op *op, int i)
{
    for (int k = 0; k < op->input_count; k++)
        if (!is_there(r, op->inputs[k], i))
            return false;
    return true;
}

static void choose(struct recompute *r)
{
    for (int i = 0; i < r->backward; i++) {
        const struct op *op = &r->ops[i];
        const struct tensor *y = op_output(r->graph, op, 0);
        tensor_id t;

        if (!y || y->role != TENSOR_ACTIVATION || y->keep || tensor_plain_bytes(y) < r->least_bytes)
            continue;
        t = op->outputs[0];
        r->gone[t] = r->first[t] >= 0 && is_cheap(op) && can_be_made(r, op, r->first[t]);
    }
}

/* Appends the op that makes t again; returns the new tensor. */
static tensor_id make_again(struct recompute *r, tensor_id t)
{
    const struct op *op = producer_of(r, t);
    tensor_id y = graph_like(r->graph, TENSOR_ACTIVATION, t);

    if (is_batch_norm(op))
        graph_op(r->graph, OP_BATCH_NORM_APPLY, &op->attrs, BNA_RESIDUAL + 1,
                 (tensor_id[]){[BNA_X] = op->inputs[BN_X],
                               [BNA_WEIGHT] = op->inputs[BN_WEIGHT],
                               [BNA_BIAS] = op->inputs[BN_BIAS],
                               [BNA_SAVE_MEAN] = op->outputs[BN_SAVE_MEAN],
                               [BNA_SAVE_INVSTD] = op->outputs[BN_SAVE_INVSTD],
                               [BNA_RESIDUAL] = residual_of(op)},
                 1, &y);
    else
        graph_op(r->graph, op->type, &op->attrs, op->input_count, op->inputs, 1, &y);
    return y;
}

/* The ops once more, readers in the backward with what is made again. */
static void rewrite(struct recompute *r)
{
    struct graph *graph = r->graph;

    graph->ops = NULL;
    graph->op_count = graph->op_capacity = 0;
    for (int i = 0; i < r->op_count && !graph->failed; i++) {
        const struct op *op = &r->ops[i];

        for (int k = 0; i >= r->backward && k < op->input_count; k++) {
            tensor_id t = op->inputs[k];

            if (t == NO_TENSOR || !r->gone[t])
                continue;
            if (i == r->first[t] && r->again[t] == t)
                r->again[t] = make_again(r, t);
            op->inputs[k] = r->again[t];
        }
        graph_op(graph, op->type, &op->attrs, op->input_count, op->inputs, op->output_count, op->outputs);
    }
}

void graph_recompute(struct graph *graph, size_t least_bytes)
{
    size_t tensors = (size_t)graph->tensor_count;
    struct recompute r = {.graph = graph, .least_bytes = least_bytes, .ops = graph->ops, .op_count = graph->op_count};

    if (!least_bytes || graph->failed)
        return;
    r.producer = graph_alloc(graph, tensors * sizeof *r.producer);
    r.first = graph_alloc(graph, tensors * sizeof *r.first);
    r.last = graph_alloc(graph, tensors * sizeof *r.last);
    r.gone = graph_alloc(graph, tensors * sizeof *r.gone);
    r.again = graph_alloc(graph, tensors * sizeof *r.again);
    if (graph->failed)
        return;
    find_readers(&r);
    choose(&r);
    rewrite(&r);
    free(r.ops);
}
