/* layer_norm.c - layer normalisation, threads sharing the rows. */
#include <string.h>

#include "engine/cpu/kernels.h"
#include "engine/cpu/parallel.h"
#include "engine/cpu/primitive.h"

static float *data_of(const struct tensor *tensor)
{
    return tensor ? tensor->data : NULL;
}

bool cpu_layer_norm(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *tensor = op_input(graph, op, LN_X);
    const float *x = tensor->data, *weight = data_of(op_input(graph, op, LN_WEIGHT));
    const float *bias = data_of(op_input(graph, op, LN_BIAS)), *residual = data_of(op_input(graph, op, LN_RESIDUAL));
    float *y = data_of(op_output(graph, op, LN_Y)), *save_mean = data_of(op_output(graph, op, LN_SAVE_MEAN));
    float *save_invstd = data_of(op_output(graph, op, LN_SAVE_INVSTD));
    int64_t rows = tensor_rows(tensor), channels = tensor_channels(tensor);

    (void)err;
    PARALLEL(stream->threads)
    {
        int64_t first, last;

        parallel_share(rows, 1, &first, &last);
        for (int64_t row = first; row < last; row++) {
            int64_t at = row * channels;
            float mean, invstd;

            stream->simd->layer_norm_row(x + at, weight, bias, residual ? residual + at : NULL, op->attrs.eps, channels,
                                         y + at, &mean, &invstd);
            if (save_mean)
                save_mean[row] = mean;
            if (save_invstd)
                save_invstd[row] = invstd;
        }
    }
    return true;
}

/* Scratch: each thread's sums for weight and bias. */
bool cpu_layer_norm_backward_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    (void)err;
    scratch_book(op, 2 * (size_t)stream->threads * (size_t)tensor_channels(op_input(graph, op, LNB_X)) * sizeof(float));
    return true;
}

/* to = sum of `count` vectors of `channels` numbers, `stride` apart. */
static void add_up(const float *from, int count, int64_t stride, int64_t channels, float *to)
{
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0;

        for (int i = 0; i < count; i++)
            sum += (double)from[i * stride + c];
        to[c] = (float)sum;
    }
}

bool cpu_layer_norm_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *tensor = op_input(graph, op, LNB_X);
    const float *dy = data_of(op_input(graph, op, LNB_DY)), *add = data_of(op_input(graph, op, LNB_ADD));
    const float *save_mean = data_of(op_input(graph, op, LNB_SAVE_MEAN));
    const float *save_invstd = data_of(op_input(graph, op, LNB_SAVE_INVSTD));
    int64_t rows = tensor_rows(tensor), channels = tensor_channels(tensor);
    float *sums = op->scratch;

    (void)err;
    memset(sums, 0, 2 * (size_t)stream->threads * (size_t)channels * sizeof *sums);
    PARALLEL(stream->threads)
    {
        float *mine = sums + 2 * parallel_thread() * channels;
        int64_t first, last;

        parallel_share(rows, 1, &first, &last);
        for (int64_t row = first; row < last; row++) {
            int64_t at = row * channels;
            const struct layer_norm_gradient args = {
                .dy = dy + at,
                .x = (const float *)tensor->data + at,
                .weight = data_of(op_input(graph, op, LNB_WEIGHT)),
                .add = add ? add + at : NULL,
                .mean = save_mean[row],
                .invstd = save_invstd[row],
                .dx = data_of(op_output(graph, op, LNB_DX)) + at,
                .dweight = mine,
                .dbias = mine + channels,
            };

            stream->simd->layer_norm_row_backward(&args, channels);
        }
    }
    add_up(sums, stream->threads, 2 * channels, channels, data_of(op_output(graph, op, LNB_DWEIGHT)));
    add_up(sums + channels, stream->threads, 2 * channels, channels, data_of(op_output(graph, op, LNB_DBIAS)));
    return true;
}
