/* tokens.c - patches of images, and tokens with their position embedding. */
#include <string.h>

#include "engine/cpu/kernels.h"
#include "engine/cpu/parallel.h"
#include "engine/cpu/stream.h"
#include "engine/ref/ref.h"

enum { RGB = 3 };

/* A row of patches at a time: line after line of each of its squares, channel by channel. */
bool cpu_patches(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *tensor = op_input(graph, op, 0);
    int64_t size = op->attrs.kernel[0], width = tensor->shape[2], across = width / size;
    int64_t down = tensor->shape[1] / size;

    if (tensor->dtype != DTYPE_U8 || tensor->shape[3] != RGB)
        return ref_patches(stream, graph, op, err);
    PARALLEL(stream->threads)
    {
        int64_t first, last;

        parallel_share(tensor->shape[0] * down, 1, &first, &last);
        for (int64_t i = first * across; i < last * across; i++) { /* patches of all images */
            const uint8_t *x = (const uint8_t *)tensor->data + (i / across * size * width + i % across * size) * RGB;
            float *y = (float *)op_output(graph, op, 0)->data + i * RGB * size * size;

            for (int64_t c = 0; c < RGB; c++)
                for (int64_t line = 0; line < size; line++)
                    stream->simd->rgb_plane(x + line * width * RGB + c, y + (c * size + line) * size, size);
        }
    }
    return true;
}

bool cpu_tokens(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *tensor = op_output(graph, op, 0);
    const float *x = op_input(graph, op, TOKENS_X)->data, *class = op_input(graph, op, TOKENS_CLASS)->data;
    const float *pos = op_input(graph, op, TOKENS_POS)->data;
    int64_t tokens = tensor->shape[1], channels = tensor->shape[2];

    (void)err;
    PARALLEL(stream->threads)
    {
        int64_t first, last;

        parallel_share(tensor->shape[0], 1, &first, &last);
        for (int64_t n = first; n < last; n++) {
            float *y = (float *)tensor->data + n * tokens * channels;

            stream->simd->add(ACTIVATION_NONE, class, pos, y, channels);
            stream->simd->add(ACTIVATION_NONE, x + n * (tokens - 1) * channels, pos + channels, y + channels,
                              (tokens - 1) * channels);
        }
    }
    return true;
}

bool cpu_tokens_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *tensor = op_input(graph, op, 0);
    const float *dy = tensor->data;
    float *dx = op_output(graph, op, TOKENS_X)->data, *dpos = op_output(graph, op, TOKENS_POS)->data;
    int64_t images = tensor->shape[0], channels = tensor->shape[2], image = tensor->shape[1] * channels;

    (void)err;
    PARALLEL(stream->threads)
    {
        int64_t first, last;

        parallel_share(images, 1, &first, &last);
        for (int64_t n = first; n < last; n++)
            memcpy(dx + n * (image - channels), dy + n * image + channels, (size_t)(image - channels) * sizeof *dx);
        parallel_share(image, channels, &first, &last);
        if (last > first)
            memcpy(dpos + first, dy + first, (size_t)(last - first) * sizeof *dpos);
        for (int64_t n = 1; n < images; n++)
            stream->simd->add(ACTIVATION_NONE, dpos + first, dy + n * image + first, dpos + first, last - first);
    }
    memcpy(op_output(graph, op, TOKENS_CLASS)->data, dpos, (size_t)channels * sizeof *dpos);
    return true;
}
