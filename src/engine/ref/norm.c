/* norm.c - batch normalisation (Ioffe and Szegedy 2015), its gradient, and its folding into weights. See ref.h, op.h
 * Sums are in double, in the op's scratch: two numbers for each channel. */
#include "engine/ref/ref.h"

#include <math.h>

static bool book_sums(struct op *op, const struct tensor *x)
{
    op->scratch_bytes = 2 * (size_t)tensor_channels(x) * sizeof(double);
    return true;
}

bool ref_batch_norm_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    (void)stream, (void)err;
    return !op->attrs.training || book_sums(op, op_input(graph, op, BN_X));
}

bool ref_batch_norm_backward_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    (void)stream, (void)err;
    return book_sums(op, op_input(graph, op, BNB_X));
}

/* mean[c] and var[c] (biased) of x (rows, channels), in two passes. */
static void moments(const float *x, int64_t rows, int64_t channels, double *mean, double *var)
{
    for (int64_t c = 0; c < channels; c++)
        mean[c] = var[c] = 0;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < channels; c++)
            mean[c] += x[i * channels + c];
    for (int64_t c = 0; c < channels; c++)
        mean[c] /= (double)rows;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < channels; c++) {
            double d = x[i * channels + c] - mean[c];

            var[c] += d * d;
        }
    for (int64_t c = 0; c < channels; c++)
        var[c] /= (double)rows;
}

/* The batch's moments go into save_* and the running ones. */
static void update_statistics(const struct graph *graph, const struct op *op, int64_t rows, int64_t channels)
{
    double *mean = op->scratch, *var = mean + channels;
    float *save_mean = ref_f32(op_output(graph, op, BN_SAVE_MEAN));
    float *save_invstd = ref_f32(op_output(graph, op, BN_SAVE_INVSTD));
    float *running_mean = ref_f32(op_input(graph, op, BN_RUNNING_MEAN));
    float *running_var = ref_f32(op_input(graph, op, BN_RUNNING_VAR));
    float momentum = op->attrs.momentum;

    moments(ref_f32(op_input(graph, op, BN_X)), rows, channels, mean, var);
    for (int64_t c = 0; c < channels; c++) {
        double unbiased = rows > 1 ? var[c] * (double)rows / (double)(rows - 1) : 0;

        save_mean[c] = (float)mean[c];
        save_invstd[c] = (float)(1 / sqrt(var[c] + (double)op->attrs.eps));
        running_mean[c] = (1 - momentum) * running_mean[c] + momentum * (float)mean[c];
        running_var[c] = (1 - momentum) * running_var[c] + momentum * (float)unbiased;
    }
    *(int64_t *)op_input(graph, op, BN_BATCHES)->data += 1;
}

bool ref_batch_norm(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, BN_X);
    int64_t rows = tensor_rows(x), channels = tensor_channels(x);
    const float *weight = ref_f32(op_input(graph, op, BN_WEIGHT)), *bias = ref_f32(op_input(graph, op, BN_BIAS));
    const float *residual = ref_f32(op_input(graph, op, BN_RESIDUAL));
    bool training = op->attrs.training;
    const float *mean = ref_f32(training ? op_output(graph, op, BN_SAVE_MEAN) : op_input(graph, op, BN_RUNNING_MEAN));
    const float *var = ref_f32(op_input(graph, op, BN_RUNNING_VAR));
    const float *save_invstd = ref_f32(op_output(graph, op, BN_SAVE_INVSTD));
    float *y = ref_f32(op_output(graph, op, BN_Y));

    (void)stream, (void)err;
    if (training)
        update_statistics(graph, op, rows, channels);
#pragma omp parallel for
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < channels; c++) {
            int64_t at = i * channels + c;
            float invstd = training ? save_invstd[c] : 1 / sqrtf(var[c] + op->attrs.eps);
            float value = (ref_f32(x)[at] - mean[c]) * invstd * weight[c] + bias[c];

            y[at] = ref_activate(op->attrs.activation, value + (residual ? residual[at] : 0));
        }
    return true;
}

bool ref_batch_norm_apply(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, BNA_X);
    int64_t rows = tensor_rows(x), channels = tensor_channels(x);
    const float *weight = ref_f32(op_input(graph, op, BNA_WEIGHT)), *bias = ref_f32(op_input(graph, op, BNA_BIAS));
    const float *mean = ref_f32(op_input(graph, op, BNA_SAVE_MEAN));
    const float *invstd = ref_f32(op_input(graph, op, BNA_SAVE_INVSTD));
    const float *residual = ref_f32(op_input(graph, op, BNA_RESIDUAL));
    float *y = ref_f32(op_output(graph, op, 0));

    (void)stream, (void)err;
#pragma omp parallel for
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < channels; c++) {
            int64_t at = i * channels + c;
            float value = (ref_f32(x)[at] - mean[c]) * invstd[c] * weight[c] + bias[c];

            y[at] = ref_activate(op->attrs.activation, value + (residual ? residual[at] : 0));
        }
    return true;
}

/* Of the activation, from its output y (NULL: none) at `at`, or from what goes into it. */
static float slope(const struct op *op, const float *y, int64_t at, float into)
{
    const struct activation_info *activation = activation_info(op->attrs.activation);

    if (op->attrs.activation == ACTIVATION_NONE)
        return 1;
    return activation->slope(activation->from_y ? y[at] : into);
}

/* With xhat = (x - mean) invstd, n rows, and sums over the rows of a channel:
 *   dbias = sum g, dweight = sum g xhat, dx = weight invstd (g - dbias / n - xhat dweight / n) */
bool ref_batch_norm_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, BNB_X);
    int64_t rows = tensor_rows(x), channels = tensor_channels(x);
    const float *dy = ref_f32(op_input(graph, op, BNB_DY)), *dy2 = ref_f32(op_input(graph, op, BNB_DY2));
    const float *y = ref_f32(op_input(graph, op, BNB_Y)), *weight = ref_f32(op_input(graph, op, BNB_WEIGHT));
    const float *bias = ref_f32(op_input(graph, op, BNB_BIAS));
    const float *mean = ref_f32(op_input(graph, op, BNB_SAVE_MEAN));
    const float *invstd = ref_f32(op_input(graph, op, BNB_SAVE_INVSTD));
    float *dx = ref_f32(op_output(graph, op, BNB_DX)), *dweight = ref_f32(op_output(graph, op, BNB_DWEIGHT));
    float *dbias = ref_f32(op_output(graph, op, BNB_DBIAS)), *dresidual = ref_f32(op_output(graph, op, BNB_DRESIDUAL));
    double *sum = op->scratch, *sum_xhat = sum + channels;

    (void)stream, (void)err;
    for (int64_t c = 0; c < channels; c++)
        sum[c] = sum_xhat[c] = 0;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < channels; c++) {
            int64_t at = i * channels + c;
            float xhat = (ref_f32(x)[at] - mean[c]) * invstd[c];
            float g = (dy[at] + (dy2 ? dy2[at] : 0)) * slope(op, y, at, bias ? xhat * weight[c] + bias[c] : 0);

            sum[c] += g;
            sum_xhat[c] += (double)g * xhat;
        }
#pragma omp parallel for
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < channels; c++) {
            int64_t at = i * channels + c;
            float xhat = (ref_f32(x)[at] - mean[c]) * invstd[c]; /* read before writing: dx may be dy */
            float g = (dy[at] + (dy2 ? dy2[at] : 0)) * slope(op, y, at, bias ? xhat * weight[c] + bias[c] : 0);

            if (dresidual)
                dresidual[at] = g;
            dx[at] = weight[c] * invstd[c] *
                     (g - (float)(sum[c] / (double)rows) - xhat * (float)(sum_xhat[c] / (double)rows));
        }
    for (int64_t c = 0; c < channels; c++) {
        dbias[c] = (float)sum[c];
        dweight[c] = (float)sum_xhat[c];
    }
    return true;
}

bool ref_fold_batch_norm_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    struct tensor *weight = op_input(graph, op, FOLD_WEIGHT);

    (void)stream, (void)err;
    if (!weight->fixed)
        weight->layout = op_output(graph, op, 0)->layout;
    return true;
}

bool ref_fold_batch_norm(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *weight = op_input(graph, op, FOLD_WEIGHT);
    const float *from = ref_f32(weight), *bias = ref_f32(op_input(graph, op, FOLD_BIAS));
    const float *bn_weight = ref_f32(op_input(graph, op, FOLD_BN_WEIGHT));
    const float *bn_bias = ref_f32(op_input(graph, op, FOLD_BN_BIAS));
    const float *mean = ref_f32(op_input(graph, op, FOLD_RUNNING_MEAN));
    const float *var = ref_f32(op_input(graph, op, FOLD_RUNNING_VAR));
    float *to = ref_f32(op_output(graph, op, 0)), *to_bias = ref_f32(op_output(graph, op, 1));
    int64_t channels = weight->shape[0], rows = tensor_elements(weight) / channels; /* memory: (rows, channels) */

    (void)stream, (void)err;
    for (int64_t o = 0; o < channels; o++) {
        float scale = bn_weight[o] / sqrtf(var[o] + op->attrs.eps);

        for (int64_t i = 0; i < rows; i++)
            to[i * channels + o] = scale * from[i * channels + o];
        to_bias[o] = bn_bias[o] + scale * ((bias ? bias[o] : 0) - mean[o]);
    }
    return true;
}
