/* ops.c - from ops to launches of our own kernels: batch norm, elementwise, pooling, loss. */
#include "engine/cuda/kernels.h"

enum { VECTOR = NORM_VECTOR }; /* numbers that the kernels like to take at once */

static struct norm_launch norm_of(const struct stream *stream, const struct op *op, const struct tensor *x)
{
    return (struct norm_launch){
        .number = number_of(x),
        .rows = tensor_rows(x),
        .channels = (int)tensor_channels(x),
        .activation = op->attrs.activation,
        .eps = op->attrs.eps,
        .momentum = op->attrs.momentum,
        .scratch = op->scratch,
        .clusters = stream->properties.major >= 9,
    };
}

static bool check_plain(const struct tensor *x, struct err *err)
{
    return !x || !x->layout || err_set(err, ERR_BUG, "an activation with padded channels");
}

bool cuda_batch_norm_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, BN_X);
    struct tensor *mask = op_output(graph, op, BN_MASK);
    int64_t channels = tensor_channels(x);

    (void)stream;
    if (mask)
        mask->bytes =
            op->attrs.activation == ACTIVATION_RELU && channels % VECTOR == 0 ? (size_t)tensor_elements(x) / VECTOR : 0;
    if (op->attrs.training)
        op->scratch_bytes = norm_scratch_bytes(tensor_rows(x), (int)channels);
    return check_plain(x, err);
}

bool cuda_batch_norm(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, BN_X), *mask = op_output(graph, op, BN_MASK);
    const struct norm_launch launch = norm_of(stream, op, x);
    const struct norm_forward_args args = {
        .x = x->data,
        .residual = data_of(op_input(graph, op, BN_RESIDUAL)),
        .weight = data_of(op_input(graph, op, BN_WEIGHT)),
        .bias = data_of(op_input(graph, op, BN_BIAS)),
        .running_mean = data_of(op_input(graph, op, BN_RUNNING_MEAN)),
        .running_var = data_of(op_input(graph, op, BN_RUNNING_VAR)),
        .batches = data_of(op_input(graph, op, BN_BATCHES)),
        .save_mean = data_of(op_output(graph, op, BN_SAVE_MEAN)),
        .save_invstd = data_of(op_output(graph, op, BN_SAVE_INVSTD)),
        .y = op_output(graph, op, BN_Y)->data,
        .mask = mask && mask->bytes ? mask->data : NULL,
    };

    return cuda_ok(op->attrs.training ? norm_forward_training(stream->queue, &launch, &args)
                                      : norm_forward_inference(stream->queue, &launch, &args),
                   "batch norm", err);
}

bool cuda_batch_norm_backward_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, BNB_X);

    (void)stream;
    op->scratch_bytes = norm_scratch_bytes(tensor_rows(x), (int)tensor_channels(x));
    return check_plain(x, err);
}

bool cuda_batch_norm_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, BNB_X), *mask = op_input(graph, op, BNB_MASK);
    const struct norm_launch launch = norm_of(stream, op, x);
    const struct norm_backward_args args = {
        .dy = op_input(graph, op, BNB_DY)->data,
        .dy2 = data_of(op_input(graph, op, BNB_DY2)),
        .x = x->data,
        .y = data_of(op_input(graph, op, BNB_Y)),
        .mask = mask && mask->bytes ? mask->data : NULL,
        .bias = data_of(op_input(graph, op, BNB_BIAS)),
        .weight = data_of(op_input(graph, op, BNB_WEIGHT)),
        .save_mean = data_of(op_input(graph, op, BNB_SAVE_MEAN)),
        .save_invstd = data_of(op_input(graph, op, BNB_SAVE_INVSTD)),
        .dx = op_output(graph, op, BNB_DX)->data,
        .dresidual = data_of(op_output(graph, op, BNB_DRESIDUAL)),
        .dweight = data_of(op_output(graph, op, BNB_DWEIGHT)),
        .dbias = data_of(op_output(graph, op, BNB_DBIAS)),
    };

    return cuda_ok(norm_backward(stream->queue, &launch, &args), "batch norm", err);
}

bool cuda_batch_norm_apply(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, BNA_X);
    const struct norm_launch launch = norm_of(stream, op, x);
    const struct norm_forward_args args = {
        .x = x->data,
        .residual = data_of(op_input(graph, op, BNA_RESIDUAL)),
        .weight = data_of(op_input(graph, op, BNA_WEIGHT)),
        .bias = data_of(op_input(graph, op, BNA_BIAS)),
        .save_mean = data_of(op_input(graph, op, BNA_SAVE_MEAN)),
        .save_invstd = data_of(op_input(graph, op, BNA_SAVE_INVSTD)),
        .y = op_output(graph, op, 0)->data,
    };

    return cuda_ok(norm_apply(stream->queue, &launch, &args), "batch norm", err);
}

bool cuda_fold_batch_norm_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    struct tensor *weight = op_input(graph, op, FOLD_WEIGHT);
    const struct tensor *to = op_output(graph, op, 0);

    (void)stream;
    layout_set_weight(weight, to->layout, false);
    return weight->layout == to->layout || err_set(err, ERR_BUG, "weights in two layouts");
}

bool cuda_fold_batch_norm(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *weight = op_input(graph, op, FOLD_WEIGHT), *to = op_output(graph, op, 0);
    const struct fold_launch launch = {
        .weight = weight->data,
        .bias = data_of(op_input(graph, op, FOLD_BIAS)),
        .bn_weight = data_of(op_input(graph, op, FOLD_BN_WEIGHT)),
        .bn_bias = data_of(op_input(graph, op, FOLD_BN_BIAS)),
        .running_mean = data_of(op_input(graph, op, FOLD_RUNNING_MEAN)),
        .running_var = data_of(op_input(graph, op, FOLD_RUNNING_VAR)),
        .out = weight->shape[0],
        .row = layout_numbers(weight) / weight->shape[0],
        .eps = op->attrs.eps,
        .number = number_of(to),
        .weight2 = to->data,
        .bias2 = data_of(op_output(graph, op, 1)),
    };

    return cuda_ok(fold_batch_norm(stream->queue, &launch), "folding batch norm", err);
}

/* Is the image read by the one convolution that blocks are for? */
static bool wants_blocks(const struct op_attrs *a, const struct tensor *y)
{
    return a->kernel[0] == 7 && a->kernel[1] == 7 && a->stride[0] == 2 && a->stride[1] == 2 && a->padding[0] == 3 &&
           a->padding[1] == 3 && a->groups == 1 && y->shape[1] % 2 == 0 && y->shape[2] % 2 == 0;
}

bool cuda_image_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    struct tensor *y = op_output(graph, op, 0);

    (void)stream;
    if (tensor_channels(y) != 3)
        return err_set(err, ERR_BUG, "images have %d channels, not 3", (int)tensor_channels(y));
    if (!y->fixed) {
        y->layout = wants_blocks(&op->attrs, y)   ? &layout_image_blocked
                    : number_of(y) == NUMBER_BF16 ? &layout_image8
                                                  : &layout_image4;
        y->bytes = (size_t)layout_numbers(y) * dtype_size(y->dtype);
    }
    return true;
}

bool cuda_image(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, 0), *y = op_output(graph, op, 0);

    if (layout_is_blocked(y))
        return cuda_ok(image_block(stream->queue, number_of(y), x->data, (int)y->shape[0], (int)y->shape[1],
                                   (int)y->shape[2], y->data),
                       "converting images", err);
    return cuda_ok(image_convert(stream->queue, number_of(y), x->data, tensor_rows(y), layout_channels(y), y->data),
                   "converting images", err);
}

/* y = act(x + residual) over all numbers. */
static bool add_and_activate(struct stream *stream, const struct op *op, const struct tensor *x,
                             const struct tensor *residual, const struct tensor *y, struct err *err)
{
    int64_t count = tensor_elements(x);
    int vector = count % VECTOR ? 1 : VECTOR;

    return check_plain(x, err) &&
           cuda_ok(epilogue(stream->queue, number_of(x), number_of(y), x->data, count / vector, vector, NULL,
                            NUMBER_F32, data_of(residual), op->attrs.activation, y->data),
                   "an addition", err);
}

bool cuda_activation(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    return add_and_activate(stream, op, op_input(graph, op, 0), NULL, op_output(graph, op, 0), err);
}

bool cuda_add(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    return add_and_activate(stream, op, op_input(graph, op, 0), op_input(graph, op, 1), op_output(graph, op, 0), err);
}

bool cuda_activation_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *dy = op_input(graph, op, 0);

    return cuda_ok(activation_backward(stream->queue, number_of(dy), op->attrs.activation, dy->data,
                                       op_input(graph, op, 1)->data, tensor_elements(dy),
                                       op_output(graph, op, 0)->data),
                   "an activation", err);
}

bool cuda_scale(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, 0);

    return check_plain(x, err) &&
           cuda_ok(scale(stream->queue, number_of(x), x->data, op_input(graph, op, 1)->data, (int)x->shape[0],
                         (int)(x->shape[1] * x->shape[2]), (int)x->shape[3], op_output(graph, op, 0)->data),
                   "a scale", err);
}

bool cuda_scale_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, 1);

    return cuda_ok(scale_backward(stream->queue, number_of(x), op_input(graph, op, 0)->data, x->data,
                                  op_input(graph, op, 2)->data, (int)x->shape[0], (int)(x->shape[1] * x->shape[2]),
                                  (int)x->shape[3], op_output(graph, op, 0)->data, op_output(graph, op, 1)->data),
                   "a scale", err);
}

/* Forward and backward: the same but for the residual. */
static bool drop(struct stream *stream, const struct graph *graph, const struct op *op, const void *residual,
                 struct err *err)
{
    const struct tensor *x = op_input(graph, op, DROPOUT_X);
    const struct dropout_launch launch = {
        .number = number_of(x),
        .count = tensor_elements(x),
        .row = op->attrs.rows ? tensor_elements(x) / x->shape[0] : 0,
        .p = op->attrs.p,
        .seed = op->attrs.seed,
        .op = op->attrs.number,
        .step = op_input(graph, op, DROPOUT_STEP)->data,
    };

    return check_plain(x, err) &&
           cuda_ok(dropout(stream->queue, &launch, x->data, residual, op_output(graph, op, 0)->data), "dropout", err);
}

bool cuda_dropout(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    return drop(stream, graph, op, data_of(op_input(graph, op, DROPOUT_RESIDUAL)), err);
}

bool cuda_dropout_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    return drop(stream, graph, op, NULL, err);
}

bool cuda_reorder(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, 0), *y = op_output(graph, op, 0);

    return cuda_ok(channels_copy(stream->queue, number_of(x), x->data, tensor_rows(x), layout_channels(x),
                                 layout_channels(y), y->data),
                   "a change of layout", err);
}

/* x: the larger image, y: the pooled one. */
static struct pool_launch pool_of(const struct op *op, const struct tensor *x, const struct tensor *y)
{
    const struct op_attrs *a = &op->attrs;

    return (struct pool_launch){
        .number = number_of(x),
        .n = (int)x->shape[0],
        .h = (int)x->shape[1],
        .w = (int)x->shape[2],
        .channels = (int)x->shape[3],
        .oh = (int)y->shape[1],
        .ow = (int)y->shape[2],
        .kernel = {a->kernel[0], a->kernel[1]},
        .stride = {a->stride[0], a->stride[1]},
        .padding = {a->padding[0], a->padding[1]},
    };
}

bool cuda_max_pool_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    struct tensor *where = op_output(graph, op, 1);

    (void)stream;
    if (op->attrs.kernel[0] * op->attrs.kernel[1] > UINT8_MAX)
        return err_set(err, ERR_INVALID, "a window of %dx%d is larger than 255", op->attrs.kernel[0],
                       op->attrs.kernel[1]);
    if (where)
        where->bytes = (size_t)tensor_elements(where);
    return check_plain(op_input(graph, op, 0), err);
}

bool cuda_max_pool(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, 0), *y = op_output(graph, op, 0);
    const struct pool_launch launch = pool_of(op, x, y);

    return cuda_ok(max_pool(stream->queue, &launch, x->data, y->data, data_of(op_output(graph, op, 1))), "max pool",
                   err);
}

bool cuda_max_pool_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *dy = op_input(graph, op, 0), *dx = op_output(graph, op, 0);
    const struct pool_launch launch = pool_of(op, dx, dy);

    return cuda_ok(max_pool_backward(stream->queue, &launch, dy->data, op_input(graph, op, 1)->data, dx->data),
                   "max pool", err);
}

bool cuda_global_avg_pool(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, 0);

    return check_plain(x, err) &&
           cuda_ok(global_avg_pool(stream->queue, number_of(x), x->data, (int)x->shape[0],
                                   (int)(x->shape[1] * x->shape[2]), (int)x->shape[3], op_output(graph, op, 0)->data),
                   "average pool", err);
}

bool cuda_global_avg_pool_backward(struct stream *stream, const struct graph *graph, const struct op *op,
                                   struct err *err)
{
    const struct tensor *dx = op_output(graph, op, 0);

    return cuda_ok(global_avg_pool_backward(stream->queue, number_of(dx), op_input(graph, op, 0)->data,
                                            (int)dx->shape[0], (int)(dx->shape[1] * dx->shape[2]), (int)dx->shape[3],
                                            dx->data),
                   "average pool", err);
}

bool cuda_cross_entropy(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *logits = op_input(graph, op, 0);

    return cuda_ok(cross_entropy(stream->queue, logits->data, op_input(graph, op, 1)->data, (int)logits->shape[0],
                                 (int)logits->shape[1], op_output(graph, op, 0)->data, op_output(graph, op, 1)->data,
                                 data_of(op_input(graph, op, 2))),
                   "cross entropy", err);
}

bool cuda_cross_entropy_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *probabilities = op_input(graph, op, 0), *dlogits = op_output(graph, op, 0);

    return cuda_ok(cross_entropy_backward(stream->queue, probabilities->data, op_input(graph, op, 1)->data,
                                          (int)probabilities->shape[0], (int)probabilities->shape[1],
                                          number_of(dlogits), dlogits->data),
                   "cross entropy", err);
}
