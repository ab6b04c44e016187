/* autograd.c - see autograd.h */
#include "engine/autograd.h"

#include <string.h>

#include "engine/activation.h"

/* Gradients that have arrived at a tensor and are not added up yet. */
struct arrived {
    tensor_id first, second;
};

struct autograd {
    struct graph *graph;
    struct arrived *arrived; /* by tensor */
    bool *wanted;            /* by tensor: does a PARAM or F32 INPUT stand behind it? */
};

/* Appends the gradient ops of `op`, given dy of its output 0 (and dy2, to be added to dy, for BATCH_NORM alone). */
typedef void backward_rule(struct autograd *ad, const struct op *op, tensor_id dy, tensor_id dy2);

static tensor_id input(const struct op *op, int slot)
{
    return slot < op->input_count ? op->inputs[slot] : NO_TENSOR;
}

static tensor_id output(const struct op *op, int slot)
{
    return slot < op->output_count ? op->outputs[slot] : NO_TENSOR;
}

static bool wanted(const struct autograd *ad, tensor_id t)
{
    return t != NO_TENSOR && ad->wanted[t];
}

static tensor_id new_gradient(struct autograd *ad, tensor_id of)
{
    tensor_id d = graph_like(ad->graph, TENSOR_GRADIENT, of);

    ad->graph->tensors[d].of = of;
    return d;
}

/* A new gradient of t, or NO_TENSOR when nobody wants it. */
static tensor_id gradient_if_wanted(struct autograd *ad, tensor_id t)
{
    return wanted(ad, t) ? new_gradient(ad, t) : NO_TENSOR;
}

/* What has arrived at t as one tensor; NO_TENSOR when nothing has. */
static tensor_id sum_of(struct autograd *ad, tensor_id t)
{
    struct arrived *a = &ad->arrived[t];

    if (a->second != NO_TENSOR) {
        tensor_id sum = new_gradient(ad, t);

        graph_op(ad->graph, OP_ADD, NULL, 2, (tensor_id[]){a->first, a->second}, 1, &sum);
        *a = (struct arrived){sum, NO_TENSOR};
    }
    return a->first;
}

/* d arrives at t. */
static void arrive(struct autograd *ad, tensor_id t, tensor_id d)
{
    struct arrived *a;

    if (!wanted(ad, t) || d == NO_TENSOR)
        return;
    sum_of(ad, t);
    a = &ad->arrived[t];
    *(a->first == NO_TENSOR ? &a->first : &a->second) = d;
}

/* Output `slot` of a backward op with one output, the gradient of t. */
static void append(struct autograd *ad, enum op_type type, const struct op *op, tensor_id a, tensor_id b, tensor_id t)
{
    tensor_id d = gradient_if_wanted(ad, t);

    if (d == NO_TENSOR)
        return;
    graph_op(ad->graph, type, &op->attrs, 2, (tensor_id[]){a, b}, 1, &d);
    arrive(ad, t, d);
}

/* CONV2D and LINEAR: gradients of data, weight and bias. */
static void append_weighted(struct autograd *ad, enum op_type data, enum op_type weight, const struct op *op,
                            tensor_id dy)
{
    tensor_id outputs[] = {gradient_if_wanted(ad, op->inputs[CONV2D_WEIGHT]),
                           gradient_if_wanted(ad, input(op, CONV2D_BIAS))};

    append(ad, data, op, dy, op->inputs[CONV2D_WEIGHT], op->inputs[CONV2D_X]);
    if (outputs[0] == NO_TENSOR)
        return;
    graph_op(ad->graph, weight, &op->attrs, 2, (tensor_id[]){dy, op->inputs[CONV2D_X]}, 2, outputs);
    arrive(ad, op->inputs[CONV2D_WEIGHT], outputs[0]);
    arrive(ad, input(op, CONV2D_BIAS), outputs[1]);
}

static void conv2d_backward(struct autograd *ad, const struct op *op, tensor_id dy, tensor_id dy2)
{
    (void)dy2;
    append_weighted(ad, OP_CONV2D_BACKWARD_DATA, OP_CONV2D_BACKWARD_WEIGHT, op, dy);
    arrive(ad, input(op, CONV2D_RESIDUAL), dy);
}

static void linear_backward(struct autograd *ad, const struct op *op, tensor_id dy, tensor_id dy2)
{
    (void)dy2;
    append_weighted(ad, OP_LINEAR_BACKWARD_DATA, OP_LINEAR_BACKWARD_WEIGHT, op, dy);
    arrive(ad, input(op, LINEAR_RESIDUAL), dy);
}

static void batch_norm_backward(struct autograd *ad, const struct op *op, tensor_id dy, tensor_id dy2)
{
    bool from_y = activation_info(op->attrs.activation)->from_y, by_y = op->attrs.activation && from_y;
    tensor_id inputs[] = {
        [BNB_DY] = dy,
        [BNB_X] = op->inputs[BN_X],
        [BNB_Y] = by_y ? op->outputs[BN_Y] : NO_TENSOR,
        [BNB_WEIGHT] = op->inputs[BN_WEIGHT],
        [BNB_SAVE_MEAN] = op->outputs[BN_SAVE_MEAN],
        [BNB_SAVE_INVSTD] = op->outputs[BN_SAVE_INVSTD],
        [BNB_MASK] = by_y ? output(op, BN_MASK) : NO_TENSOR,
        [BNB_DY2] = dy2,
        [BNB_BIAS] = from_y ? NO_TENSOR : op->inputs[BN_BIAS],
    };
    tensor_id outputs[] = {
        [BNB_DX] = new_gradient(ad, op->inputs[BN_X]),
        [BNB_DWEIGHT] = new_gradient(ad, op->inputs[BN_WEIGHT]),
        [BNB_DBIAS] = new_gradient(ad, op->inputs[BN_BIAS]),
        [BNB_DRESIDUAL] = gradient_if_wanted(ad, input(op, BN_RESIDUAL)),
    };

    if (!op->attrs.training)
        graph_fail(ad->graph, ERR_BUG, "BATCH_NORM outside training has no gradient");
    if (!from_y && input(op, BN_RESIDUAL) != NO_TENSOR)
        graph_fail(ad->graph, ERR_BUG, "BATCH_NORM has no gradient of a residual through this activation");
    graph_op(ad->graph, OP_BATCH_NORM_BACKWARD, &op->attrs, 9, inputs, 4, outputs);
    arrive(ad, op->inputs[BN_X], outputs[BNB_DX]);
    arrive(ad, op->inputs[BN_WEIGHT], outputs[BNB_DWEIGHT]);
    arrive(ad, op->inputs[BN_BIAS], outputs[BNB_DBIAS]);
    arrive(ad, input(op, BN_RESIDUAL), outputs[BNB_DRESIDUAL]);
}

/* A gradient that has reached x already is added inside the op. */
static void layer_norm_backward(struct autograd *ad, const struct op *op, tensor_id dy, tensor_id dy2)
{
    tensor_id x = op->inputs[LN_X], add, outputs[3];

    (void)dy2;
    if (output(op, LN_SAVE_MEAN) == NO_TENSOR) {
        graph_fail(ad->graph, ERR_BUG, "LAYER_NORM outside training has no gradient");
        return;
    }
    arrive(ad, input(op, LN_RESIDUAL), dy);
    add = sum_of(ad, x);
    outputs[LNB_DX] = new_gradient(ad, x);
    outputs[LNB_DWEIGHT] = new_gradient(ad, op->inputs[LN_WEIGHT]);
    outputs[LNB_DBIAS] = new_gradient(ad, op->inputs[LN_BIAS]);
    graph_op(ad->graph, OP_LAYER_NORM_BACKWARD, &op->attrs, 6,
             (tensor_id[]){[LNB_DY] = dy,
                           [LNB_X] = x,
                           [LNB_WEIGHT] = op->inputs[LN_WEIGHT],
                           [LNB_SAVE_MEAN] = op->outputs[LN_SAVE_MEAN],
                           [LNB_SAVE_INVSTD] = op->outputs[LN_SAVE_INVSTD],
                           [LNB_ADD] = add},
             3, outputs);
    ad->arrived[x] = (struct arrived){outputs[LNB_DX], NO_TENSOR};
    arrive(ad, op->inputs[LN_WEIGHT], outputs[LNB_DWEIGHT]);
    arrive(ad, op->inputs[LN_BIAS], outputs[LNB_DBIAS]);
}

static void add_backward(struct autograd *ad, const struct op *op, tensor_id dy, tensor_id dy2)
{
    (void)dy2;
    arrive(ad, op->inputs[0], dy);
    arrive(ad, op->inputs[1], dy);
}

/* ACTIVATION alone: the driver has already taken dy through the activation. */
static void activation_backward(struct autograd *ad, const struct op *op, tensor_id dy, tensor_id dy2)
{
    (void)dy2;
    arrive(ad, op->inputs[0], dy);
}

static void scale_backward(struct autograd *ad, const struct op *op, tensor_id dy, tensor_id dy2)
{
    tensor_id outputs[] = {new_gradient(ad, op->inputs[0]), new_gradient(ad, op->inputs[1])};

    (void)dy2;
    graph_op(ad->graph, OP_SCALE_BACKWARD, &op->attrs, 3, (tensor_id[]){dy, op->inputs[0], op->inputs[1]}, 2, outputs);
    arrive(ad, op->inputs[0], outputs[0]);
    arrive(ad, op->inputs[1], outputs[1]);
}

static void dropout_backward(struct autograd *ad, const struct op *op, tensor_id dy, tensor_id dy2)
{
    (void)dy2;
    append(ad, OP_DROPOUT_BACKWARD, op, dy, op->inputs[DROPOUT_STEP], op->inputs[DROPOUT_X]);
    arrive(ad, input(op, DROPOUT_RESIDUAL), dy);
}

static void max_pool_backward(struct autograd *ad, const struct op *op, tensor_id dy, tensor_id dy2)
{
    (void)dy2;
    append(ad, OP_MAX_POOL_BACKWARD, op, dy, output(op, 1), op->inputs[0]);
}

static void global_avg_pool_backward(struct autograd *ad, const struct op *op, tensor_id dy, tensor_id dy2)
{
    (void)dy2;
    append(ad, OP_GLOBAL_AVG_POOL_BACKWARD, op, dy, NO_TENSOR, op->inputs[0]);
}

static void patches_backward(struct autograd *ad, const struct op *op, tensor_id dy, tensor_id dy2)
{
    (void)dy2;
    append(ad, OP_PATCHES_BACKWARD, op, dy, NO_TENSOR, op->inputs[0]);
}

static void tokens_backward(struct autograd *ad, const struct op *op, tensor_id dy, tensor_id dy2)
{
    tensor_id outputs[3];

    (void)dy2;
    for (int i = 0; i < 3; i++)
        outputs[i] = new_gradient(ad, op->inputs[i]);
    graph_op(ad->graph, OP_TOKENS_BACKWARD, &op->attrs, 1, &dy, 3, outputs);
    for (int i = 0; i < 3; i++)
        arrive(ad, op->inputs[i], outputs[i]);
}

static void first_token_backward(struct autograd *ad, const struct op *op, tensor_id dy, tensor_id dy2)
{
    (void)dy2;
    append(ad, OP_FIRST_TOKEN_BACKWARD, op, dy, NO_TENSOR, op->inputs[0]);
}

static void attention_backward(struct autograd *ad, const struct op *op, tensor_id dy, tensor_id dy2)
{
    tensor_id d = new_gradient(ad, op->inputs[ATTENTION_QKV]);

    (void)dy2;
    graph_op(ad->graph, OP_ATTENTION_BACKWARD, &op->attrs, 4,
             (tensor_id[]){[ATTNB_DY] = dy,
                           [ATTNB_QKV] = op->inputs[ATTENTION_QKV],
                           [ATTNB_Y] = op->outputs[ATTENTION_Y],
                           [ATTNB_STATS] = output(op, ATTENTION_STATS)},
             1, &d);
    arrive(ad, op->inputs[ATTENTION_QKV], d);
}

static void position_bias_backward(struct autograd *ad, const struct op *op, tensor_id dy, tensor_id dy2)
{
    tensor_id inputs[] = {
        [POSITIONB_DTABLE] = dy,
        [POSITIONB_TABLE] = op->outputs[0],
        [POSITIONB_COORDS] = op->inputs[POSITION_COORDS],
        [POSITIONB_WEIGHT1] = op->inputs[POSITION_WEIGHT1],
        [POSITIONB_BIAS1] = op->inputs[POSITION_BIAS1],
        [POSITIONB_WEIGHT2] = op->inputs[POSITION_WEIGHT2],
    };
    tensor_id outputs[] = {
        [POSITIONB_DWEIGHT1] = new_gradient(ad, op->inputs[POSITION_WEIGHT1]),
        [POSITIONB_DBIAS1] = new_gradient(ad, op->inputs[POSITION_BIAS1]),
        [POSITIONB_DWEIGHT2] = new_gradient(ad, op->inputs[POSITION_WEIGHT2]),
    };

    (void)dy2;
    graph_op(ad->graph, OP_POSITION_BIAS_BACKWARD, &op->attrs, 6, inputs, 3, outputs);
    arrive(ad, op->inputs[POSITION_WEIGHT1], outputs[POSITIONB_DWEIGHT1]);
    arrive(ad, op->inputs[POSITION_BIAS1], outputs[POSITIONB_DBIAS1]);
    arrive(ad, op->inputs[POSITION_WEIGHT2], outputs[POSITIONB_DWEIGHT2]);
}

static void window_attention_backward(struct autograd *ad, const struct op *op, tensor_id dy, tensor_id dy2)
{
    tensor_id inputs[] = {
        [WINDOWB_DY] = dy,
        [WINDOWB_QKV] = op->inputs[WINDOW_QKV],
        [WINDOWB_QKV_BIAS] = op->inputs[WINDOW_QKV_BIAS],
        [WINDOWB_LOGIT_SCALE] = op->inputs[WINDOW_LOGIT_SCALE],
        [WINDOWB_TABLE] = op->inputs[WINDOW_TABLE],
    };
    tensor_id outputs[4];

    (void)dy2;
    for (int i = 0; i < 4; i++) /* one for each input, in their order */
        outputs[i] = new_gradient(ad, op->inputs[i]);
    graph_op(ad->graph, OP_WINDOW_ATTENTION_BACKWARD, &op->attrs, 5, inputs, 4, outputs);
    for (int i = 0; i < 4; i++)
        arrive(ad, op->inputs[i], outputs[i]);
}

static void patch_merge_backward(struct autograd *ad, const struct op *op, tensor_id dy, tensor_id dy2)
{
    (void)dy2;
    append(ad, OP_PATCH_MERGE_BACKWARD, op, dy, NO_TENSOR, op->inputs[0]);
}

static void cross_entropy_backward(struct autograd *ad, const struct op *op, tensor_id dy, tensor_id dy2)
{
    (void)dy, (void)dy2; /* 1 */
    append(ad, OP_CROSS_ENTROPY_BACKWARD, op, op->outputs[1], op->inputs[1], op->inputs[0]);
}

static backward_rule *const rules[OP_COUNT] = {
    [OP_CONV2D] = conv2d_backward,
    [OP_BATCH_NORM] = batch_norm_backward,
    [OP_LAYER_NORM] = layer_norm_backward,
    [OP_ACTIVATION] = activation_backward,
    [OP_ADD] = add_backward,
    [OP_MAX_POOL] = max_pool_backward,
    [OP_GLOBAL_AVG_POOL] = global_avg_pool_backward,
    [OP_LINEAR] = linear_backward,
    [OP_CROSS_ENTROPY] = cross_entropy_backward,
    [OP_PATCHES] = patches_backward,
    [OP_TOKENS] = tokens_backward,
    [OP_FIRST_TOKEN] = first_token_backward,
    [OP_ATTENTION] = attention_backward,
    [OP_POSITION_BIAS] = position_bias_backward,
    [OP_WINDOW_ATTENTION] = window_attention_backward,
    [OP_PATCH_MERGE] = patch_merge_backward,
    [OP_SCALE] = scale_backward,
    [OP_DROPOUT] = dropout_backward,
};

/* dy through an op's activation; BATCH_NORM_BACKWARD does that itself. */
static tensor_id through_activation(struct autograd *ad, const struct op *op, tensor_id dy)
{
    bool from_y = activation_info(op->attrs.activation)->from_y;
    tensor_id d, at = from_y ? op->outputs[0] : op->inputs[0];

    if (op->attrs.activation == ACTIVATION_NONE)
        return dy;
    if (!from_y && op->type != OP_ACTIVATION)
        graph_fail(ad->graph, ERR_BUG, "%s has no gradient through its activation", op_info(op->type)->name);
    d = new_gradient(ad, op->outputs[0]);
    graph_op(ad->graph, OP_ACTIVATION_BACKWARD, &op->attrs, 2, (tensor_id[]){dy, at}, 1, &d);
    return d;
}

static void find_wanted(struct autograd *ad)
{
    const struct graph *graph = ad->graph;

    for (int t = 0; t < graph->tensor_count; t++) {
        const struct tensor *tensor = &graph->tensors[t];

        ad->wanted[t] = tensor->dtype == DTYPE_F32 && (tensor->role == TENSOR_PARAM || tensor->role == TENSOR_INPUT);
    }
    for (int i = 0; i < graph->op_count; i++) {
        const struct op *op = &graph->ops[i];

        for (int k = 0; k < op->input_count; k++)
            if (wanted(ad, op->inputs[k]))
                ad->wanted[op->outputs[0]] = true;
    }
}

/* The gradients of one op's inputs, once those of its output are complete: all its readers come after it. */
static void differentiate(struct autograd *ad, int i, tensor_id loss)
{
    struct op op = ad->graph->ops[i]; /* a copy: the table may move */
    tensor_id y = op.output_count ? op.outputs[0] : NO_TENSOR, dy, dy2 = NO_TENSOR;

    if (!wanted(ad, y) || (ad->arrived[y].first == NO_TENSOR && y != loss))
        return;
    if (!rules[op.type]) {
        graph_fail(ad->graph, ERR_BUG, "%s has no gradient", op_info(op.type)->name);
        return;
    }
    if (op.type == OP_BATCH_NORM) {
        dy = ad->arrived[y].first;
        dy2 = ad->arrived[y].second;
    } else {
        dy = through_activation(ad, &op, sum_of(ad, y));
        op.attrs.activation = ACTIVATION_NONE;
    }
    rules[op.type](ad, &op, dy, dy2);
}

void graph_backward(struct graph *graph, tensor_id y, tensor_id dy)
{
    int tensors = graph->tensor_count, ops = graph->op_count;
    struct autograd ad = {
        .graph = graph,
        .arrived = graph_alloc(graph, (size_t)tensors * sizeof *ad.arrived),
        .wanted = graph_alloc(graph, (size_t)tensors * sizeof *ad.wanted),
    };
    tensor_id *gradients = graph_alloc(graph, (size_t)tensors * sizeof *gradients);

    if (graph->failed)
        return;
    for (int t = 0; t < tensors; t++)
        ad.arrived[t] = (struct arrived){NO_TENSOR, NO_TENSOR};
    find_wanted(&ad);
    ad.arrived[y].first = dy;
    for (int i = ops - 1; i >= 0 && !graph->failed; i--)
        differentiate(&ad, i, dy == NO_TENSOR ? y : NO_TENSOR);
    for (int t = 0; t < tensors && !graph->failed; t++) {
        bool leaf = graph->tensors[t].role == TENSOR_PARAM || graph->tensors[t].role == TENSOR_INPUT;

        gradients[t] = wanted(&ad, t) && leaf ? sum_of(&ad, t) : NO_TENSOR;
    }
    graph->gradients = gradients;
    graph->gradient_count = tensors;
}
