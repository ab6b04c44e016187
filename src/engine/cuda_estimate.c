/* cuda_estimate.c - the sizes that the CUDA backend's kernels are going to choose, known without a GPU and without the
 * object: for the forecast of memory in the daemon. */
#include "engine/cuda/sizes.h"
#include "engine/cuda_object.h"

/* As layout_set_weight() in the object will have it; the padding of the first convolution is too small to count. */
static void estimate_weight(struct tensor *weight, const struct tensor *x)
{
    size_t floats = tensor_plain_bytes(weight), copy = WEIGHT_COPY_ALIGNMENT;

    if (weight->dtype == x->dtype)
        return;
    weight->bytes = (floats + copy - 1) / copy * copy + (size_t)tensor_elements(weight) * dtype_size(x->dtype);
}

static void estimate_image(const struct op *op, struct tensor *y)
{
    const struct op_attrs *a = &op->attrs;
    size_t number = dtype_size(y->dtype), channels = y->dtype == DTYPE_F32 ? 4 : 8;

    if (a->kernel[0] == 7 && a->stride[0] == 2 && a->padding[0] == 3 && y->shape[1] % 2 == 0 && y->shape[2] % 2 == 0)
        y->bytes = (size_t)(y->shape[0] * (y->shape[1] / 2 + BLOCKED_BORDER) * (y->shape[2] / 2 + BLOCKED_BORDER)) *
                   BLOCKED_CHANNELS * number;
    else
        y->bytes = (size_t)tensor_rows(y) * channels * number;
}

static void estimate_norm(const struct graph *graph, const struct op *op)
{
    const struct tensor *x = op_input(graph, op, BN_X);
    struct tensor *mask = op_output(graph, op, BN_MASK);

    if (mask && op->attrs.activation == ACTIVATION_RELU && tensor_channels(x) % NORM_VECTOR == 0)
        mask->bytes = (size_t)tensor_elements(x) / NORM_VECTOR;
}

/* Weight and, with its copy in BF16, bias. */
static void estimate_linear(const struct graph *graph, struct op *op)
{
    const struct tensor *x = op_input(graph, op, LINEAR_X);
    struct tensor *bias = op_input(graph, op, LINEAR_BIAS);

    estimate_weight(op_input(graph, op, LINEAR_WEIGHT), x);
    if (bias)
        estimate_weight(bias, x);
    op->scratch_bytes = LIKELY_WORKSPACE;
}

static void estimate_layer_norm_backward(const struct graph *graph, struct op *op)
{
    const struct tensor *x = op_input(graph, op, LNB_X);
    int64_t blocks = (tensor_rows(x) + LAYER_NORM_BLOCK_ROWS - 1) / LAYER_NORM_BLOCK_ROWS;

    if (blocks > LAYER_NORM_MOST_BLOCKS)
        blocks = LAYER_NORM_MOST_BLOCKS;
    op->scratch_bytes = 2 * (size_t)blocks * (size_t)tensor_channels(x) * sizeof(float);
}

/* A float for each row of each head. */
static size_t attention_rows_bytes(const struct op *op, const struct tensor *qkv)
{
    return (size_t)(qkv->shape[0] * qkv->shape[1] * op->attrs.heads) * sizeof(float);
}

/* Scratch of a convolution over the images x; y: its result. As conv.c and depthwise_fits() in the object decide. */
static size_t conv_scratch(const struct op *op, const struct tensor *x, const struct tensor *y)
{
    const struct op_attrs *a = &op->attrs;
    bool depthwise = a->groups > 1 && a->groups == x->shape[3] && a->groups == y->shape[3] && a->groups % 8 == 0 &&
                     (a->kernel[0] == 3 || a->kernel[0] == 5);

    if (!depthwise)
        return LIKELY_WORKSPACE;
    if (op->type != OP_CONV2D_BACKWARD_WEIGHT)
        return 0;
    return depthwise_scratch_bytes((int)y->shape[0], (int)y->shape[1], (int)y->shape[2], (int)y->shape[3],
                                   a->kernel[0] * a->kernel[1]);
}

void cuda_estimate(struct graph *graph, struct op *op)
{
    struct tensor *where, *stats;

    switch (op->type) {
    case OP_IMAGE:
        estimate_image(op, op_output(graph, op, 0));
        break;
    case OP_LINEAR:
        estimate_linear(graph, op);
        break;
    case OP_CONV2D:
        estimate_weight(op_input(graph, op, CONV2D_WEIGHT), op_input(graph, op, CONV2D_X));
        op->scratch_bytes = conv_scratch(op, op_input(graph, op, CONV2D_X), op_output(graph, op, 0));
        break;
    case OP_CONV2D_BACKWARD_DATA:
        op->scratch_bytes = conv_scratch(op, op_output(graph, op, 0), op_input(graph, op, 0));
        break;
    case OP_CONV2D_BACKWARD_WEIGHT:
        op->scratch_bytes = conv_scratch(op, op_input(graph, op, 1), op_input(graph, op, 0));
        break;
    case OP_LINEAR_BACKWARD_DATA:
    case OP_LINEAR_BACKWARD_WEIGHT:
        op->scratch_bytes = LIKELY_WORKSPACE;
        break;
    case OP_BATCH_NORM:
        estimate_norm(graph, op);
        break;
    case OP_MAX_POOL:
        where = op_output(graph, op, 1);
        if (where)
            where->bytes = (size_t)tensor_elements(where);
        break;
    case OP_LAYER_NORM_BACKWARD:
        estimate_layer_norm_backward(graph, op);
        break;
    case OP_ATTENTION:
        stats = op_output(graph, op, ATTENTION_STATS);
        if (stats)
            stats->bytes = attention_rows_bytes(op, op_input(graph, op, ATTENTION_QKV));
        break;
    case OP_ATTENTION_BACKWARD:
        op->scratch_bytes = attention_rows_bytes(op, op_input(graph, op, ATTNB_QKV));
        break;
    case OP_WINDOW_ATTENTION_BACKWARD:
        op->scratch_bytes = WINDOW_SUMS;
        break;
    default:
        break;
    }
}
