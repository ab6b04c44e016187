/* elementwise.c - ops that treat every number alone. See ref.h, op.h */
#include "engine/ref/ref.h"

#include <string.h>

#include "base/philox.h"

bool ref_image(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, 0);
    const uint8_t *bytes = x->data;
    float *y = ref_f32(op_output(graph, op, 0));
    int64_t count = tensor_elements(x);

    (void)stream, (void)err;
    for (int64_t i = 0; i < count; i++)
        y[i] = (float)bytes[i] / 255;
    return true;
}

bool ref_activation(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const float *x = ref_f32(op_input(graph, op, 0));
    float *y = ref_f32(op_output(graph, op, 0));
    int64_t count = tensor_elements(op_input(graph, op, 0));

    (void)stream, (void)err;
    for (int64_t i = 0; i < count; i++)
        y[i] = ref_activate(op->attrs.activation, x[i]);
    return true;
}

bool ref_activation_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const float *dy = ref_f32(op_input(graph, op, 0)), *at = ref_f32(op_input(graph, op, 1)); /* y or x */
    const struct activation_info *activation = activation_info(op->attrs.activation);
    float *dx = ref_f32(op_output(graph, op, 0));
    int64_t count = tensor_elements(op_input(graph, op, 0));

    (void)stream, (void)err;
    for (int64_t i = 0; i < count; i++)
        dx[i] = dy[i] * activation->slope(at[i]);
    return true;
}

bool ref_add(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const float *a = ref_f32(op_input(graph, op, 0)), *b = ref_f32(op_input(graph, op, 1));
    float *y = ref_f32(op_output(graph, op, 0));
    int64_t count = tensor_elements(op_input(graph, op, 0));

    (void)stream, (void)err;
    for (int64_t i = 0; i < count; i++)
        y[i] = ref_activate(op->attrs.activation, a[i] + b[i]);
    return true;
}

bool ref_scale(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, 0);
    const float *s = ref_f32(op_input(graph, op, 1));
    float *y = ref_f32(op_output(graph, op, 0));
    int64_t c = x->shape[3], plane = x->shape[1] * x->shape[2];

    (void)stream, (void)err;
    for (int64_t i = 0; i < tensor_elements(x); i++)
        y[i] = ref_f32(x)[i] * s[i / c / plane * c + i % c];
    return true;
}

bool ref_scale_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, 1);
    const float *dy = ref_f32(op_input(graph, op, 0)), *s = ref_f32(op_input(graph, op, 2));
    float *dx = ref_f32(op_output(graph, op, 0)), *ds = ref_f32(op_output(graph, op, 1));
    int64_t c = x->shape[3], plane = x->shape[1] * x->shape[2];

    (void)stream, (void)err;
    for (int64_t n = 0; n < x->shape[0]; n++)
        for (int64_t k = 0; k < c; k++) {
            double sum = 0;

            for (int64_t i = 0; i < plane; i++) {
                int64_t at = (n * plane + i) * c + k;
                float d = dy[at]; /* dx may be dy */

                sum += (double)d * ref_f32(x)[at];
                dx[at] = d * s[n * c + k];
            }
            ds[n * c + k] = (float)sum;
        }
    return true;
}

/* y = x m / (1 - p) + residual */
static void drop(const struct graph *graph, const struct op *op, const float *residual)
{
    const struct tensor *x = op_input(graph, op, DROPOUT_X);
    int64_t step = *(const int64_t *)op_input(graph, op, DROPOUT_STEP)->data;
    int64_t count = tensor_elements(x), row = count / x->shape[0];
    uint32_t threshold = philox_threshold(op->attrs.p), words[4] = {0};
    uint64_t block = UINT64_MAX; /* whose words these are */
    float *y = ref_f32(op_output(graph, op, 0)), scale = 1 / (1 - op->attrs.p);

    for (int64_t i = 0; i < count; i++) {
        uint64_t element = (uint64_t)(op->attrs.rows ? i / row : i);

        if (block != element / 4) {
            block = element / 4;
            philox_dropout(op->attrs.seed, op->attrs.number, step, block, words);
        }
        y[i] = (words[element % 4] < threshold ? 0 : ref_f32(x)[i] * scale) + (residual ? residual[i] : 0);
    }
}

bool ref_dropout(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    (void)stream, (void)err;
    drop(graph, op, ref_f32(op_input(graph, op, DROPOUT_RESIDUAL)));
    return true;
}

bool ref_dropout_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    (void)stream, (void)err;
    drop(graph, op, NULL);
    return true;
}

/* Activations have one layout here. */
bool ref_reorder(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, 0);

    (void)stream, (void)err;
    memcpy(op_output(graph, op, 0)->data, x->data, x->bytes);
    return true;
}
