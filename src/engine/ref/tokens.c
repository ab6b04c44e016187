/* tokens.c - from an image to tokens and back: patches, class token and position embedding, the first token. See ref.h,
 * op.h */
#include "engine/ref/ref.h"

#include <string.h>

/* Where pixel (h, w), channel c of image n of x (N, H, W, C) goes in y (N, L, C K K). */
static int64_t patch_index(const struct tensor *x, int size, int64_t n, int64_t h, int64_t w, int64_t c)
{
    int64_t across = x->shape[2] / size, patches = x->shape[1] / size * across, channels = x->shape[3];
    int64_t patch = h / size * across + w / size;

    return ((n * patches + patch) * channels + c) * size * size + h % size * size + w % size;
}

/* Calls body for each number of x: `at` in x, `to` in the patches. */
#define EACH_PIXEL(x, size, body)                                                                                      \
    for (int64_t n = 0, at = 0; n < (x)->shape[0]; n++)                                                                \
        for (int64_t h = 0; h < (x)->shape[1]; h++)                                                                    \
            for (int64_t w = 0; w < (x)->shape[2]; w++)                                                                \
                for (int64_t c = 0; c < (x)->shape[3]; c++, at++) {                                                    \
                    int64_t to = patch_index(x, size, n, h, w, c);                                                     \
                                                                                                                       \
                    body;                                                                                              \
                }

bool ref_patches(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, 0);
    float *y = ref_f32(op_output(graph, op, 0));

    (void)stream, (void)err;
    if (x->dtype == DTYPE_U8)
        EACH_PIXEL(x, op->attrs.kernel[0], y[to] = (float)((const uint8_t *)x->data)[at] / 255)
    else
        EACH_PIXEL(x, op->attrs.kernel[0], y[to] = ref_f32(x)[at])
    return true;
}

bool ref_patches_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *dx = op_output(graph, op, 0);
    const float *dy = ref_f32(op_input(graph, op, 0));

    (void)stream, (void)err;
    EACH_PIXEL(dx, op->attrs.kernel[0], ref_f32(dx)[at] = dy[to])
    return true;
}

bool ref_tokens(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *y = op_output(graph, op, 0);
    const float *x = ref_f32(op_input(graph, op, TOKENS_X)), *class = ref_f32(op_input(graph, op, TOKENS_CLASS));
    const float *pos = ref_f32(op_input(graph, op, TOKENS_POS));
    int64_t tokens = y->shape[1], channels = y->shape[2];

    (void)stream, (void)err;
    for (int64_t n = 0; n < y->shape[0]; n++)
        for (int64_t i = 0; i < tokens; i++) {
            const float *from = i ? x + (n * (tokens - 1) + i - 1) * channels : class;

            for (int64_t c = 0; c < channels; c++)
                ref_f32(y)[(n * tokens + i) * channels + c] = from[c] + pos[i * channels + c];
        }
    return true;
}

bool ref_tokens_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *tensor = op_input(graph, op, 0);
    const float *dy = ref_f32(tensor);
    float *dx = ref_f32(op_output(graph, op, TOKENS_X)), *dclass = ref_f32(op_output(graph, op, TOKENS_CLASS));
    float *dpos = ref_f32(op_output(graph, op, TOKENS_POS));
    int64_t images = tensor->shape[0], tokens = tensor->shape[1], channels = tensor->shape[2];

    (void)stream, (void)err;
    for (int64_t n = 0; n < images; n++)
        memcpy(dx + n * (tokens - 1) * channels, dy + (n * tokens + 1) * channels,
               (size_t)((tokens - 1) * channels) * sizeof *dx);
    for (int64_t i = 0; i < tokens * channels; i++) {
        double sum = 0;

        for (int64_t n = 0; n < images; n++)
            sum += dy[n * tokens * channels + i];
        dpos[i] = (float)sum;
    }
    memcpy(dclass, dpos, (size_t)channels * sizeof *dclass);
    return true;
}

bool ref_first_token(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, 0);
    int64_t tokens = x->shape[1], channels = x->shape[2];

    (void)stream, (void)err;
    for (int64_t n = 0; n < x->shape[0]; n++)
        memcpy(ref_f32(op_output(graph, op, 0)) + n * channels, ref_f32(x) + n * tokens * channels,
               (size_t)channels * sizeof(float));
    return true;
}

bool ref_first_token_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *dx = op_output(graph, op, 0);
    int64_t tokens = dx->shape[1], channels = dx->shape[2];

    (void)stream, (void)err;
    memset(dx->data, 0, tensor_plain_bytes(dx));
    for (int64_t n = 0; n < dx->shape[0]; n++)
        memcpy(ref_f32(dx) + n * tokens * channels, ref_f32(op_input(graph, op, 0)) + n * channels,
               (size_t)channels * sizeof(float));
    return true;
}
