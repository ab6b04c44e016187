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

void cuda_estimate(struct graph *graph, struct op *op)
{
    struct tensor *where;

    switch (op->type) {
    case OP_IMAGE:
        estimate_image(op, op_output(graph, op, 0));
        break;
    case OP_CONV2D:
    case OP_LINEAR:
        estimate_weight(op_input(graph, op, 1), op_input(graph, op, 0));
        if (op->type == OP_CONV2D)
            op->scratch_bytes = LIKELY_WORKSPACE;
        break;
    case OP_CONV2D_BACKWARD_DATA:
    case OP_CONV2D_BACKWARD_WEIGHT:
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
    default:
        break;
    }
}
