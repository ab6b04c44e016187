/* transformer.c - from ops to launches of our own kernels: layer norm, attention, patches and tokens. */
#include "engine/cuda/kernels.h"

bool cuda_layer_norm(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, LN_X);
    const struct layer_norm_args args = {
        .x = x->data,
        .residual = data_of(op_input(graph, op, LN_RESIDUAL)),
        .weight = data_of(op_input(graph, op, LN_WEIGHT)),
        .bias = data_of(op_input(graph, op, LN_BIAS)),
        .y = data_of(op_output(graph, op, LN_Y)),
        .save_mean = data_of(op_output(graph, op, LN_SAVE_MEAN)),
        .save_invstd = data_of(op_output(graph, op, LN_SAVE_INVSTD)),
    };

    return cuda_ok(
        layer_norm(stream->queue, number_of(x), tensor_rows(x), (int)tensor_channels(x), op->attrs.eps, &args),
        "layer norm", err);
}

bool cuda_layer_norm_backward_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, LNB_X);

    (void)stream, (void)err;
    op->scratch_bytes = layer_norm_scratch_bytes(tensor_rows(x), (int)tensor_channels(x));
    return true;
}

bool cuda_layer_norm_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, LNB_X);
    const struct layer_norm_backward_args args = {
        .dy = data_of(op_input(graph, op, LNB_DY)),
        .x = x->data,
        .add = data_of(op_input(graph, op, LNB_ADD)),
        .weight = data_of(op_input(graph, op, LNB_WEIGHT)),
        .save_mean = data_of(op_input(graph, op, LNB_SAVE_MEAN)),
        .save_invstd = data_of(op_input(graph, op, LNB_SAVE_INVSTD)),
        .dx = data_of(op_output(graph, op, LNB_DX)),
        .dweight = data_of(op_output(graph, op, LNB_DWEIGHT)),
        .dbias = data_of(op_output(graph, op, LNB_DBIAS)),
    };

    return cuda_ok(
        layer_norm_backward(stream->queue, number_of(x), tensor_rows(x), (int)tensor_channels(x), op->scratch, &args),
        "layer norm", err);
}

static struct attention_launch attention_of(const struct op *op, const struct tensor *qkv)
{
    return (struct attention_launch){
        .number = number_of(qkv),
        .n = (int)qkv->shape[0],
        .tokens = (int)qkv->shape[1],
        .heads = op->attrs.heads,
        .dim = (int)(qkv->shape[2] / 3 / op->attrs.heads),
        .scale = op->attrs.scale,
    };
}

bool cuda_attention_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    const struct attention_launch launch = attention_of(op, op_input(graph, op, ATTENTION_QKV));
    struct tensor *stats = op_output(graph, op, ATTENTION_STATS);

    (void)stream;
    if (launch.dim > ATTENTION_MOST_DIM)
        return err_set(err, ERR_INVALID, "heads of %d channels; possible are up to %d", launch.dim, ATTENTION_MOST_DIM);
    if (stats)
        stats->bytes = attention_scratch_bytes(&launch); /* a float for each row, too */
    return true;
}

bool cuda_attention(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *qkv = op_input(graph, op, ATTENTION_QKV);
    const struct attention_launch launch = attention_of(op, qkv);

    return cuda_ok(attention(stream->queue, &launch, qkv->data, op_output(graph, op, ATTENTION_Y)->data,
                             data_of(op_output(graph, op, ATTENTION_STATS))),
                   "attention", err);
}

bool cuda_attention_backward_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    const struct attention_launch launch = attention_of(op, op_input(graph, op, ATTNB_QKV));

    (void)stream, (void)err;
    op->scratch_bytes = attention_scratch_bytes(&launch);
    return true;
}

bool cuda_attention_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *qkv = op_input(graph, op, ATTNB_QKV);
    const struct attention_launch launch = attention_of(op, qkv);
    const struct attention_backward_args args = {
        .dy = data_of(op_input(graph, op, ATTNB_DY)),
        .qkv = qkv->data,
        .y = data_of(op_input(graph, op, ATTNB_Y)),
        .stats = data_of(op_input(graph, op, ATTNB_STATS)),
        .products = op->scratch,
        .dqkv = data_of(op_output(graph, op, 0)),
    };

    return cuda_ok(attention_backward(stream->queue, &launch, &args), "attention", err);
}

static struct patches_launch patches_of(const struct op *op, const struct tensor *image)
{
    return (struct patches_launch){(int)image->shape[0], (int)image->shape[1], (int)image->shape[2],
                                   (int)image->shape[3], op->attrs.kernel[0]};
}

bool cuda_patches(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, 0), *y = op_output(graph, op, 0);
    const struct patches_launch launch = patches_of(op, x);

    if (x->layout)
        return err_set(err, ERR_BUG, "patches of an image with padded channels");
    return cuda_ok(patches(stream->queue, number_of(y), &launch, x->dtype == DTYPE_U8, x->data, y->data), "patches",
                   err);
}

bool cuda_patches_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *dy = op_input(graph, op, 0), *dx = op_output(graph, op, 0);
    const struct patches_launch launch = patches_of(op, dx);

    return cuda_ok(patches_backward(stream->queue, number_of(dy), &launch, dy->data, dx->data), "patches", err);
}

/* x (N, L, C): the longer side of each op. */
static struct tokens_launch tokens_of(const struct tensor *x)
{
    return (struct tokens_launch){(int)x->shape[0], (int)x->shape[1], (int)x->shape[2]};
}

bool cuda_tokens(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *y = op_output(graph, op, 0);
    const struct tokens_launch launch = tokens_of(y);

    return cuda_ok(tokens(stream->queue, number_of(y), &launch, data_of(op_input(graph, op, TOKENS_X)),
                          data_of(op_input(graph, op, TOKENS_CLASS)), data_of(op_input(graph, op, TOKENS_POS)),
                          y->data),
                   "tokens", err);
}

bool cuda_tokens_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *dy = op_input(graph, op, 0);
    const struct tokens_launch launch = tokens_of(dy);

    return cuda_ok(tokens_backward(stream->queue, number_of(dy), &launch, dy->data,
                                   data_of(op_output(graph, op, TOKENS_X)), data_of(op_output(graph, op, TOKENS_CLASS)),
                                   data_of(op_output(graph, op, TOKENS_POS))),
                   "tokens", err);
}

bool cuda_first_token(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, 0);
    const struct tokens_launch launch = tokens_of(x);

    return cuda_ok(first_token(stream->queue, number_of(x), &launch, x->data, op_output(graph, op, 0)->data),
                   "the first token", err);
}

bool cuda_first_token_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *dx = op_output(graph, op, 0);
    const struct tokens_launch launch = tokens_of(dx);

    return cuda_ok(first_token_backward(stream->queue, number_of(dx), &launch, op_input(graph, op, 0)->data, dx->data),
                   "the first token", err);
}
