/* window.c - Swin v2's ops as launches of our own kernels. */
#include "engine/window.h"

#include "engine/cuda/kernels.h"

static bool check_plain(const struct tensor *x, struct err *err)
{
    return !x->layout || err_set(err, ERR_BUG, "an activation with padded channels");
}

static struct window_launch launch_of(const struct stream *stream, const struct op *op, const struct tensor *qkv)
{
    const struct window_grid grid = window_grid_of(&op->attrs, qkv);

    return (struct window_launch){
        .number = number_of(qkv),
        .images = (int)qkv->shape[0],
        .height = grid.height,
        .width = grid.width,
        .channels = (int)tensor_channels(qkv) / 3,
        .heads = op->attrs.heads,
        .rows = grid.rows,
        .columns = grid.columns,
        .shift = {grid.shift[0], grid.shift[1]},
        .processors = stream->properties.multiProcessorCount,
    };
}

static bool check_size(const struct op *op, const struct tensor *qkv, struct err *err)
{
    int64_t dim = tensor_channels(qkv) / 3 / op->attrs.heads;

    if (op->attrs.kernel[0] == WINDOW_SIDE && op->attrs.kernel[1] == WINDOW_SIDE && dim == WINDOW_DIM)
        return check_plain(qkv, err);
    return err_set(err, ERR_INVALID, "windows are %d by %d, heads of %d channels; possible are 8 by 8 and 32",
                   op->attrs.kernel[0], op->attrs.kernel[1], (int)dim);
}

bool cuda_window_attention_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    (void)stream;
    return check_size(op, op_input(graph, op, WINDOW_QKV), err);
}

bool cuda_window_attention(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *qkv = op_input(graph, op, WINDOW_QKV);
    const struct window_launch launch = launch_of(stream, op, qkv);

    return cuda_ok(window_attention(stream->queue, &launch, qkv->data, op_input(graph, op, WINDOW_QKV_BIAS)->data,
                                    op_input(graph, op, WINDOW_LOGIT_SCALE)->data,
                                    op_input(graph, op, WINDOW_TABLE)->data, op_output(graph, op, 0)->data),
                   "window attention", err);
}

bool cuda_window_attention_backward_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    const struct tensor *qkv = op_input(graph, op, WINDOWB_QKV);
    const struct window_launch launch = launch_of(stream, op, qkv);

    op->scratch_bytes = window_scratch_bytes(&launch);
    return check_size(op, qkv, err);
}

bool cuda_window_attention_backward(struct stream *stream, const struct graph *graph, const struct op *op,
                                    struct err *err)
{
    const struct tensor *qkv = op_input(graph, op, WINDOWB_QKV), *dtable = op_output(graph, op, WINDOWB_DTABLE);
    const struct tensor *dlogit_scale = op_output(graph, op, WINDOWB_DLOGIT_SCALE);
    const struct window_launch launch = launch_of(stream, op, qkv);
    const struct window_gradients gradients = {
        .dqkv = op_output(graph, op, WINDOWB_DQKV)->data,
        .dqkv_bias = op_output(graph, op, WINDOWB_DQKV_BIAS)->data,
        .dlogit_scale = dlogit_scale->data,
        .dtable = dtable->data,
        .scale_number = number_of(dlogit_scale),
        .table_number = number_of(dtable),
    };

    return cuda_ok(window_attention_backward(stream->queue, &launch, op_input(graph, op, WINDOWB_DY)->data, qkv->data,
                                             op_input(graph, op, WINDOWB_QKV_BIAS)->data,
                                             op_input(graph, op, WINDOWB_LOGIT_SCALE)->data,
                                             op_input(graph, op, WINDOWB_TABLE)->data, op->scratch, &gradients),
                   "window attention", err);
}

bool cuda_position_bias_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    bool backward = op->type == OP_POSITION_BIAS_BACKWARD;
    int64_t heads = op_input(graph, op, backward ? POSITIONB_WEIGHT2 : POSITION_WEIGHT2)->shape[0];

    (void)stream;
    return heads <= POSITION_MOST_HEADS ||
           err_set(err, ERR_INVALID, "%d heads; possible are %d", (int)heads, POSITION_MOST_HEADS);
}

static struct position_launch position_of(const struct tensor *coords, const struct tensor *weight1,
                                          const struct tensor *bias1, const struct tensor *weight2)
{
    return (struct position_launch){
        .places = (int)(coords->shape[1] * coords->shape[2]),
        .middle = (int)weight2->shape[1],
        .heads = (int)weight2->shape[0],
        .coords = coords->data,
        .weight1 = weight1->data,
        .bias1 = bias1->data,
        .weight2 = weight2->data,
    };
}

bool cuda_position_bias(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct position_launch launch =
        position_of(op_input(graph, op, POSITION_COORDS), op_input(graph, op, POSITION_WEIGHT1),
                    op_input(graph, op, POSITION_BIAS1), op_input(graph, op, POSITION_WEIGHT2));

    return cuda_ok(position_bias(stream->queue, &launch, op_output(graph, op, 0)->data), "position bias", err);
}

bool cuda_position_bias_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *dweight1 = op_output(graph, op, POSITIONB_DWEIGHT1);
    const struct position_launch launch =
        position_of(op_input(graph, op, POSITIONB_COORDS), op_input(graph, op, POSITIONB_WEIGHT1),
                    op_input(graph, op, POSITIONB_BIAS1), op_input(graph, op, POSITIONB_WEIGHT2));

    return cuda_ok(position_bias_backward(stream->queue, &launch, op_input(graph, op, POSITIONB_DTABLE)->data,
                                          op_input(graph, op, POSITIONB_TABLE)->data, number_of(dweight1),
                                          dweight1->data, op_output(graph, op, POSITIONB_DBIAS1)->data,
                                          op_output(graph, op, POSITIONB_DWEIGHT2)->data),
                   "position bias", err);
}

bool cuda_patch_merge_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    (void)stream;
    return check_plain(op_input(graph, op, 0), err);
}

bool cuda_patch_merge(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, 0);

    return cuda_ok(patch_merge(stream->queue, number_of(x), x->data, (int)x->shape[0], (int)x->shape[1],
                               (int)x->shape[2], (int)x->shape[3], op_output(graph, op, 0)->data),
                   "patch merging", err);
}

bool cuda_patch_merge_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *dx = op_output(graph, op, 0);

    return cuda_ok(patch_merge_backward(stream->queue, number_of(dx), op_input(graph, op, 0)->data, (int)dx->shape[0],
                                        (int)dx->shape[1], (int)dx->shape[2], (int)dx->shape[3], dx->data),
                   "patch merging", err);
}
