/* layer_norm.c - layer normalisation (Ba, Kiros, Hinton 2016) over the last dimension, and its gradient. Sums are in
 * double. See ref.h, op.h */
#include "engine/ref/ref.h"

#include <math.h>

bool ref_layer_norm(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *tensor = op_input(graph, op, LN_X);
    int64_t rows = tensor_rows(tensor), channels = tensor_channels(tensor);
    const float *weight = ref_f32(op_input(graph, op, LN_WEIGHT)), *bias = ref_f32(op_input(graph, op, LN_BIAS));
    const float *residual = ref_f32(op_input(graph, op, LN_RESIDUAL));
    float *save_mean = ref_f32(op_output(graph, op, LN_SAVE_MEAN));
    float *save_invstd = ref_f32(op_output(graph, op, LN_SAVE_INVSTD));

    (void)stream, (void)err;
#pragma omp parallel for
    for (int64_t row = 0; row < rows; row++) {
        const float *x = ref_f32(tensor) + row * channels;
        float *y = ref_f32(op_output(graph, op, LN_Y)) + row * channels;
        double mean = 0, var = 0;
        float invstd;

        for (int64_t c = 0; c < channels; c++)
            mean += x[c];
        mean /= (double)channels;
        for (int64_t c = 0; c < channels; c++)
            var += ((double)x[c] - mean) * ((double)x[c] - mean);
        invstd = (float)(1 / sqrt(var / (double)channels + (double)op->attrs.eps));
        for (int64_t c = 0; c < channels; c++)
            y[c] = (x[c] - (float)mean) * invstd * weight[c] + bias[c] + (residual ? residual[row * channels + c] : 0);
        if (save_mean)
            save_mean[row] = (float)mean;
        if (save_invstd)
            save_invstd[row] = invstd;
    }
    return true;
}

bool ref_layer_norm_backward_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    (void)stream, (void)err;
    op->scratch_bytes = 2 * (size_t)tensor_channels(op_input(graph, op, LNB_X)) * sizeof(double);
    return true;
}

/* With xhat = (x - mean) invstd, g = dy weight, and means over the channels of a row:
 *   dbias = sum dy, dweight = sum dy xhat over the rows, dx = invstd (g - mean(g) - xhat mean(g xhat)) + add */
bool ref_layer_norm_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *tensor = op_input(graph, op, LNB_X);
    int64_t rows = tensor_rows(tensor), channels = tensor_channels(tensor);
    const float *weight = ref_f32(op_input(graph, op, LNB_WEIGHT)), *add = ref_f32(op_input(graph, op, LNB_ADD));
    const float *save_mean = ref_f32(op_input(graph, op, LNB_SAVE_MEAN));
    const float *save_invstd = ref_f32(op_input(graph, op, LNB_SAVE_INVSTD));
    float *dweight = ref_f32(op_output(graph, op, LNB_DWEIGHT)), *dbias = ref_f32(op_output(graph, op, LNB_DBIAS));
    double *sum = op->scratch, *sum_xhat = sum + channels;

    (void)stream, (void)err;
    for (int64_t c = 0; c < channels; c++)
        sum[c] = sum_xhat[c] = 0;
    for (int64_t row = 0; row < rows; row++) {
        const float *x = ref_f32(tensor) + row * channels, *dy = ref_f32(op_input(graph, op, LNB_DY)) + row * channels;
        float *dx = ref_f32(op_output(graph, op, LNB_DX)) + row * channels;
        float mean = save_mean[row], invstd = save_invstd[row];
        double mean_g = 0, mean_g_xhat = 0;

        for (int64_t c = 0; c < channels; c++) {
            double xhat = (x[c] - mean) * invstd, g = (double)dy[c] * (double)weight[c];

            sum[c] += dy[c];
            sum_xhat[c] += (double)dy[c] * xhat;
            mean_g += g / (double)channels;
            mean_g_xhat += g * xhat / (double)channels;
        }
        for (int64_t c = 0; c < channels; c++) { /* reads before it writes: dx may be dy, x or add */
            double xhat = (x[c] - mean) * invstd, g = (double)dy[c] * (double)weight[c];

            dx[c] = (float)(invstd * (g - mean_g - xhat * mean_g_xhat)) + (add ? add[row * channels + c] : 0);
        }
    }
    for (int64_t c = 0; c < channels; c++) {
        dbias[c] = (float)sum[c];
        dweight[c] = (float)sum_xhat[c];
    }
    return true;
}
