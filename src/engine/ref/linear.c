/* linear.c - y = x weight^T + bias + residual over the last dimension, and its gradients. weight (O, I). See ref.h,
 * op.h */
#include "engine/ref/ref.h"

bool ref_linear(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, 0), *y = op_output(graph, op, 0);
    const float *weight = ref_f32(op_input(graph, op, LINEAR_WEIGHT)),
                *bias = ref_f32(op_input(graph, op, LINEAR_BIAS));
    const float *residual = ref_f32(op_input(graph, op, LINEAR_RESIDUAL));
    int64_t rows = tensor_rows(x), in = tensor_channels(x), out = tensor_channels(y);

    (void)stream, (void)err;
#pragma omp parallel for
    for (int64_t row = 0; row < rows; row++)
        for (int64_t o = 0; o < out; o++) {
            const float *a = ref_f32(x) + row * in, *b = weight + o * in;
            float sum = 0;

#pragma omp simd reduction(+ : sum)
            for (int64_t i = 0; i < in; i++)
                sum += a[i] * b[i];
            sum += (bias ? bias[o] : 0) + (residual ? residual[row * out + o] : 0);
            ref_f32(y)[row * out + o] = ref_activate(op->attrs.activation, sum);
        }
    return true;
}

bool ref_linear_backward_data(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *dy = op_input(graph, op, 0), *dx = op_output(graph, op, 0);
    const float *weight = ref_f32(op_input(graph, op, 1));
    int64_t rows = tensor_rows(dx), in = tensor_channels(dx), out = tensor_channels(dy);

    (void)stream, (void)err;
#pragma omp parallel for
    for (int64_t row = 0; row < rows; row++) {
        float *to = ref_f32(dx) + row * in;

        for (int64_t i = 0; i < in; i++)
            to[i] = 0;
        for (int64_t o = 0; o < out; o++) {
            float value = ref_f32(dy)[row * out + o];

#pragma omp simd
            for (int64_t i = 0; i < in; i++)
                to[i] += value * weight[o * in + i];
        }
    }
    return true;
}

bool ref_linear_backward_weight(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *dy = op_input(graph, op, 0), *x = op_input(graph, op, 1);
    float *dweight = ref_f32(op_output(graph, op, 0)), *dbias = ref_f32(op_output(graph, op, 1));
    int64_t rows = tensor_rows(x), in = tensor_channels(x), out = tensor_channels(dy);

    (void)stream, (void)err;
#pragma omp parallel for
    for (int64_t o = 0; o < out; o++) {
        float *to = dweight + o * in;
        double sum = 0;

        for (int64_t i = 0; i < in; i++)
            to[i] = 0;
        for (int64_t row = 0; row < rows; row++) {
            float value = ref_f32(dy)[row * out + o];

            sum += value;
#pragma omp simd
            for (int64_t i = 0; i < in; i++)
                to[i] += value * ref_f32(x)[row * in + i];
        }
        if (dbias)
            dbias[o] = (float)sum;
    }
    return true;
}
