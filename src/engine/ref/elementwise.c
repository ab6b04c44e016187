/* elementwise.c - ops that treat every number alone. See ref.h, op.h */
#include "engine/ref/ref.h"

#include <string.h>

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
    const float *dy = ref_f32(op_input(graph, op, 0)), *y = ref_f32(op_input(graph, op, 1));
    float *dx = ref_f32(op_output(graph, op, 0));
    int64_t count = tensor_elements(op_input(graph, op, 0));

    (void)stream, (void)err;
    for (int64_t i = 0; i < count; i++)
        dx[i] = y[i] > 0 ? dy[i] : 0;
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

/* Activations have one layout here. */
bool ref_reorder(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, 0);

    (void)stream, (void)err;
    memcpy(op_output(graph, op, 0)->data, x->data, x->bytes);
    return true;
}
