/* fuse.c - see fuse.h. One walk over the ops; a merged op leaves a gap, gaps are closed at the end. */
#include "engine/fuse.h"

#include <string.h>

#include "engine/activation.h"

#define GONE OP_COUNT /* type of an op that was merged into another */

struct fuser {
    struct graph *graph;
    int *producer; /* by tensor: index of the op that makes it, or -1 */
    int *uses;     /* by tensor: how many ops read it */
};

static bool index_ops(struct fuser *f)
{
    struct graph *graph = f->graph;

    f->producer = graph_alloc(graph, (size_t)graph->tensor_count * sizeof *f->producer);
    f->uses = graph_alloc(graph, (size_t)graph->tensor_count * sizeof *f->uses);
    if (!f->producer || !f->uses)
        return false;
    for (int t = 0; t < graph->tensor_count; t++)
        f->producer[t] = -1;
    for (int i = 0; i < graph->op_count; i++) {
        for (int k = 0; k < graph->ops[i].output_count; k++)
            if (graph->ops[i].outputs[k] != NO_TENSOR)
                f->producer[graph->ops[i].outputs[k]] = i;
        for (int k = 0; k < graph->ops[i].input_count; k++)
            if (graph->ops[i].inputs[k] != NO_TENSOR)
                f->uses[graph->ops[i].inputs[k]]++;
    }
    if (graph->logits != NO_TENSOR)
        f->uses[graph->logits]++; /* read by the host */
    return true;
}

/* The op that makes t, if t has one reader, that op has no activation yet, and its type is among `types`; else NULL. */
static struct op *sole_producer(const struct fuser *f, tensor_id t, unsigned types)
{
    struct op *op = f->producer[t] < 0 || f->uses[t] != 1 ? NULL : &f->graph->ops[f->producer[t]];

    return op && types >> op->type & 1 && op->attrs.activation == ACTIVATION_NONE ? op : NULL;
}

enum {
    RESIDUAL_OPS = 1u << OP_CONV2D | 1u << OP_BATCH_NORM | 1u << OP_LAYER_NORM | 1u << OP_LINEAR | 1u << OP_DROPOUT
};

/* Where an op takes a tensor that is added to its result; -1: nowhere. */
static int residual_slot(enum op_type type)
{
    return type == OP_CONV2D       ? CONV2D_RESIDUAL
           : type == OP_BATCH_NORM ? BN_RESIDUAL
           : type == OP_LAYER_NORM ? LN_RESIDUAL
           : type == OP_LINEAR     ? LINEAR_RESIDUAL
           : type == OP_DROPOUT    ? DROPOUT_RESIDUAL
                                   : -1;
}

static bool has_residual(const struct op *op)
{
    int slot = residual_slot(op->type);

    return slot < op->input_count && op->inputs[slot] != NO_TENSOR;
}

/* Input `slot` of the op becomes t; the list grows as needed. */
static void set_input(struct graph *graph, struct op *op, int slot, tensor_id t)
{
    if (slot >= op->input_count) {
        tensor_id *inputs = graph_alloc(graph, (size_t)(slot + 1) * sizeof *inputs);

        if (!inputs)
            return;
        for (int i = 0; i <= slot; i++)
            inputs[i] = i < op->input_count ? op->inputs[i] : NO_TENSOR;
        op->inputs = inputs;
        op->input_count = slot + 1;
    }
    op->inputs[slot] = t;
}

static void fold_batch_norm(struct fuser *f, int i)
{
    struct graph *graph = f->graph;
    struct op bn = graph->ops[i];
    struct op *conv =
        bn.attrs.training || has_residual(&bn) ? NULL : sole_producer(f, bn.inputs[BN_X], 1u << OP_CONV2D);
    tensor_id weight, bias, outputs[2];

    if (!conv || has_residual(conv))
        return;
    weight = conv->inputs[CONV2D_WEIGHT];
    bias = conv->input_count > CONV2D_BIAS ? conv->inputs[CONV2D_BIAS] : NO_TENSOR;
    outputs[0] = graph_like(graph, TENSOR_DERIVED, weight);
    outputs[1] = graph_like(graph, TENSOR_DERIVED, bn.inputs[BN_BIAS]);
    set_input(graph, conv, CONV2D_WEIGHT, outputs[0]);
    set_input(graph, conv, CONV2D_BIAS, outputs[1]);
    conv->outputs[0] = bn.outputs[BN_Y];
    f->producer[bn.outputs[BN_Y]] = (int)(conv - graph->ops);
    graph->ops[i].type = GONE;
    graph_op(graph, OP_FOLD_BATCH_NORM, &(struct op_attrs){.eps = bn.attrs.eps}, 6,
             (tensor_id[]){[FOLD_WEIGHT] = weight,
                           [FOLD_BIAS] = bias,
                           [FOLD_BN_WEIGHT] = bn.inputs[BN_WEIGHT],
                           [FOLD_BN_BIAS] = bn.inputs[BN_BIAS],
                           [FOLD_RUNNING_MEAN] = bn.inputs[BN_RUNNING_MEAN],
                           [FOLD_RUNNING_VAR] = bn.inputs[BN_RUNNING_VAR]},
             2, outputs);
}

static void merge_add(struct fuser *f, int i)
{
    struct graph *graph = f->graph;
    struct op add = graph->ops[i];

    for (int k = 0; k < 2; k++) {
        struct op *op = sole_producer(f, add.inputs[k], RESIDUAL_OPS);

        if (!op || has_residual(op))
            continue;
        set_input(graph, op, residual_slot(op->type), add.inputs[1 - k]);
        op->outputs[0] = add.outputs[0];
        graph->ops[i] = *op; /* here, because the residual may be made after the op's old place */
        op->type = GONE;
        f->producer[add.outputs[0]] = i;
        return;
    }
}

/* Can the gradient be computed when what goes into the activation is not kept? A batch norm's backward computes it anew
 * from its own input. */
static bool may_merge(const struct graph *graph, const struct op *op, enum activation activation)
{
    return !graph->training || activation_info(activation)->from_y || (op->type == OP_BATCH_NORM && !has_residual(op));
}

static void merge_activation(struct fuser *f, int i)
{
    struct op *activation = &f->graph->ops[i];
    struct op *op =
        sole_producer(f, activation->inputs[0], 1u << OP_CONV2D | 1u << OP_BATCH_NORM | 1u << OP_ADD | 1u << OP_LINEAR);

    if (!op || !may_merge(f->graph, op, activation->attrs.activation))
        return;
    op->attrs.activation = activation->attrs.activation;
    op->outputs[0] = activation->outputs[0];
    f->producer[activation->outputs[0]] = (int)(op - f->graph->ops);
    activation->type = GONE;
}

/* An image whose only reader is a convolution learns of its window. */
static void tell_image(struct fuser *f, int i)
{
    struct op *conv = &f->graph->ops[i];
    int image = f->producer[conv->inputs[CONV2D_X]];

    if (image < 0 || f->graph->ops[image].type != OP_IMAGE || f->uses[conv->inputs[CONV2D_X]] != 1)
        return;
    f->graph->ops[image].attrs = conv->attrs;
    f->graph->ops[image].attrs.activation = ACTIVATION_NONE;
}

/* Patches cut from bytes need no image in floats. */
static void skip_image(struct fuser *f, int i)
{
    struct op *patches = &f->graph->ops[i];
    struct op *image = sole_producer(f, patches->inputs[0], 1u << OP_IMAGE);

    if (!image)
        return;
    patches->inputs[0] = image->inputs[0];
    image->type = GONE;
}

/* Closes the gaps and puts the ops that make DERIVED tensors first. */
static void compact(struct graph *graph)
{
    struct op *ops = graph_alloc(graph, (size_t)graph->op_count * sizeof *ops);
    int count = 0;

    if (!ops)
        return;
    for (int prologue = 1; prologue >= 0; prologue--) {
        for (int i = 0; i < graph->op_count; i++) {
            const struct op *op = &graph->ops[i];
            const struct tensor *y = op->type == GONE ? NULL : op_output(graph, op, 0);

            if (op->type != GONE && (y && y->role == TENSOR_DERIVED) == prologue)
                ops[count++] = *op;
        }
        if (prologue)
            graph->prologue_count = count;
    }
    memcpy(graph->ops, ops, (size_t)count * sizeof *ops);
    graph->op_count = count;
}

void graph_fuse(struct graph *graph)
{
    struct fuser f = {graph, NULL, NULL};
    int count = graph->op_count;

    if (graph->failed || !index_ops(&f))
        return;
    for (int i = 0; i < count && !graph->failed; i++) {
        if (graph->ops[i].type == OP_BATCH_NORM)
            fold_batch_norm(&f, i);
        else if (graph->ops[i].type == OP_ADD)
            merge_add(&f, i);
        else if (graph->ops[i].type == OP_ACTIVATION)
            merge_activation(&f, i);
        else if (graph->ops[i].type == OP_CONV2D)
            tell_image(&f, i);
        else if (graph->ops[i].type == OP_PATCHES)
            skip_image(&f, i);
    }
    compact(graph);
}

void graph_fold_once(struct graph *graph)
{
    graph->fold_once = true;
    for (int i = 0; i < graph->op_count; i++)
        for (int k = 0; k < graph->ops[i].input_count; k++) {
            struct tensor *tensor = op_input(graph, &graph->ops[i], k);

            if (tensor && tensor_is_persistent(tensor->role))
                tensor->passing = i < graph->prologue_count; /* the prologue comes first */
        }
}
