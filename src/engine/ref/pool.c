/* pool.c - max pooling and global average pooling with their gradients. See ref.h, op.h
 * `where` holds, for each output, the position ih * W + iw of the input that was the largest (int32). */
#include "engine/ref/ref.h"

#include <math.h>
#include <string.h>

bool ref_max_pool_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    struct tensor *where = op_output(graph, op, 1);

    (void)stream, (void)err;
    if (where)
        where->bytes = (size_t)tensor_elements(where) * sizeof(int32_t);
    return true;
}

bool ref_max_pool(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, 0), *y = op_output(graph, op, 0), *where = op_output(graph, op, 1);
    const struct op_attrs *a = &op->attrs;
    int64_t h = x->shape[1], w = x->shape[2], c = x->shape[3], ow = y->shape[2], rows = tensor_rows(y);

    (void)stream, (void)err;
#pragma omp parallel for
    for (int64_t row = 0; row < rows; row++) {
        int64_t n = row / ow / y->shape[1], top = row / ow % y->shape[1] * a->stride[0] - a->padding[0];
        int64_t left = row % ow * a->stride[1] - a->padding[1];

        for (int64_t k = 0; k < c; k++) {
            float best = -INFINITY;
            int64_t at = -1;

            for (int64_t ih = top < 0 ? 0 : top; ih < top + a->kernel[0] && ih < h; ih++)
                for (int64_t iw = left < 0 ? 0 : left; iw < left + a->kernel[1] && iw < w; iw++) {
                    float value = ref_f32(x)[((n * h + ih) * w + iw) * c + k];

                    if (at < 0 || value > best || isnan(value)) {
                        best = value;
                        at = ih * w + iw;
                    }
                }
            ref_f32(y)[row * c + k] = best;
            if (where)
                ((int32_t *)where->data)[row * c + k] = (int32_t)at;
        }
    }
    return true;
}

bool ref_max_pool_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *dy = op_input(graph, op, 0), *where = op_input(graph, op, 1), *dx = op_output(graph, op, 0);
    int64_t plane = dx->shape[1] * dx->shape[2], c = dx->shape[3], outputs = dy->shape[1] * dy->shape[2];

    (void)stream, (void)err;
    memset(dx->data, 0, dx->bytes);
    for (int64_t row = 0; row < tensor_rows(dy); row++)
        for (int64_t k = 0; k < c; k++) {
            int64_t at = ((const int32_t *)where->data)[row * c + k];

            ref_f32(dx)[(row / outputs * plane + at) * c + k] += ref_f32(dy)[row * c + k];
        }
    return true;
}

bool ref_global_avg_pool(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, 0);
    int64_t plane = x->shape[1] * x->shape[2], c = x->shape[3];
    float *y = ref_f32(op_output(graph, op, 0));

    (void)stream, (void)err;
    for (int64_t n = 0; n < x->shape[0]; n++)
        for (int64_t k = 0; k < c; k++) {
            double sum = 0;

            for (int64_t i = 0; i < plane; i++)
                sum += ref_f32(x)[(n * plane + i) * c + k];
            y[n * c + k] = (float)(sum / (double)plane);
        }
    return true;
}

bool ref_global_avg_pool_backward(struct stream *stream, const struct graph *graph, const struct op *op,
                                  struct err *err)
{
    const struct tensor *dx = op_output(graph, op, 0);
    int64_t plane = dx->shape[1] * dx->shape[2], c = dx->shape[3];
    const float *dy = ref_f32(op_input(graph, op, 0));

    (void)stream, (void)err;
    for (int64_t row = 0; row < tensor_rows(dx); row++)
        for (int64_t k = 0; k < c; k++)
            ref_f32(dx)[row * c + k] = dy[row / plane * c + k] / (float)plane;
    return true;
}
