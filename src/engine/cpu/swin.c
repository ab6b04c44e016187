/* swin.c - Swin v2's position bias, as matrix products, and patch merging. */
#include <math.h>
#include <string.h>

#include "engine/cpu/kernels.h"
#include "engine/cpu/parallel.h"
#include "engine/cpu/primitive.h"

enum { LARGEST = 16, COORDS = 3 /* a place's two coordinates and 1, for the bias */ };

/* Scratch: places (places, COORDS), weights (COORDS, middle), hidden (places, middle); for the backward dhidden like
 * hidden, dz (heads, places) and the gradients of weights (COORDS, middle). */
struct position {
    int64_t places, middle, heads;
    float *coords, *weights, *hidden, *dhidden, *dz, *dweights;
};

static struct position position_of(const struct op *op, const struct tensor *coords, const struct tensor *weight2)
{
    struct position p = {
        .places = coords->shape[1] * coords->shape[2], .middle = weight2->shape[1], .heads = weight2->shape[0]};

    p.coords = op->scratch;
    p.weights = p.coords + p.places * COORDS;
    p.hidden = p.weights + p.middle * COORDS;
    p.dhidden = p.hidden + p.places * p.middle;
    p.dz = p.dhidden + p.places * p.middle;
    p.dweights = p.dz + p.heads * p.places;
    return p;
}

bool cpu_position_bias_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    bool backward = op->type == OP_POSITION_BIAS_BACKWARD;
    const struct tensor *coords = op_input(graph, op, backward ? POSITIONB_COORDS : POSITION_COORDS);
    const struct tensor *weight2 = op_input(graph, op, backward ? POSITIONB_WEIGHT2 : POSITION_WEIGHT2);
    int64_t places = coords->shape[1] * coords->shape[2], middle = weight2->shape[1], heads = weight2->shape[0];
    int64_t count = (places + middle) * COORDS + places * middle;

    (void)stream, (void)err;
    if (backward)
        count += places * middle + heads * places + middle * COORDS;
    scratch_book(op, (size_t)count * sizeof(float));
    return true;
}

/* hidden = relu(coords weight1^T + bias1) */
static void make_hidden(const struct stream *stream, struct position *p, const float *coords, const float *weight1,
                        const float *bias1)
{
    for (int64_t i = 0; i < p->places; i++) {
        memcpy(p->coords + i * COORDS, coords + 2 * i, 2 * sizeof *coords);
        p->coords[i * COORDS + 2] = 1;
    }
    for (int64_t m = 0; m < p->middle; m++) {
        p->weights[m] = weight1[2 * m];
        p->weights[p->middle + m] = weight1[2 * m + 1];
        p->weights[2 * p->middle + m] = bias1[m];
    }
    dnnl_sgemm('N', 'N', p->places, p->middle, COORDS, 1, p->coords, COORDS, p->weights, p->middle, 0, p->hidden,
               p->middle);
    stream->simd->activate(ACTIVATION_RELU, p->hidden, p->hidden, p->places * p->middle);
}

bool cpu_position_bias(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *coords = op_input(graph, op, POSITION_COORDS),
                        *weight2 = op_input(graph, op, POSITION_WEIGHT2);
    struct position p = position_of(op, coords, weight2);
    float *table = op_output(graph, op, 0)->data;

    (void)err;
    make_hidden(stream, &p, coords->data, op_input(graph, op, POSITION_WEIGHT1)->data,
                op_input(graph, op, POSITION_BIAS1)->data);
    dnnl_sgemm('N', 'T', p.heads, p.places, p.middle, 1, weight2->data, p.middle, p.hidden, p.middle, 0, table,
               p.places);
    for (int64_t i = 0; i < p.heads * p.places; i++)
        table[i] = LARGEST / (1 + expf(-table[i]));
    return true;
}

bool cpu_position_bias_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *coords = op_input(graph, op, POSITIONB_COORDS);
    const struct tensor *weight2 = op_input(graph, op, POSITIONB_WEIGHT2);
    const float *dtable = op_input(graph, op, POSITIONB_DTABLE)->data,
                *table = op_input(graph, op, POSITIONB_TABLE)->data;
    float *dweight1 = op_output(graph, op, POSITIONB_DWEIGHT1)->data;
    float *dbias1 = op_output(graph, op, POSITIONB_DBIAS1)->data;
    struct position p = position_of(op, coords, weight2);

    (void)err;
    make_hidden(stream, &p, coords->data, op_input(graph, op, POSITIONB_WEIGHT1)->data,
                op_input(graph, op, POSITIONB_BIAS1)->data);
    for (int64_t i = 0; i < p.heads * p.places; i++)
        p.dz[i] = dtable[i] * table[i] * (1 - table[i] / LARGEST);
    dnnl_sgemm('N', 'N', p.heads, p.middle, p.places, 1, p.dz, p.places, p.hidden, p.middle, 0,
               op_output(graph, op, POSITIONB_DWEIGHT2)->data, p.middle);
    dnnl_sgemm('T', 'N', p.places, p.middle, p.heads, 1, p.dz, p.places, weight2->data, p.middle, 0, p.dhidden,
               p.middle);
    stream->simd->activation_backward(ACTIVATION_RELU, p.dhidden, p.hidden, p.dhidden, p.places * p.middle);
    dnnl_sgemm('T', 'N', COORDS, p.middle, p.places, 1, p.coords, COORDS, p.dhidden, p.middle, 0, p.dweights, p.middle);
    for (int64_t m = 0; m < p.middle; m++) {
        dweight1[2 * m] = p.dweights[m];
        dweight1[2 * m + 1] = p.dweights[p.middle + m];
        dbias1[m] = p.dweights[2 * p.middle + m];
    }
    return true;
}

/* Rows of merged pixels, shared by the threads; to_merged: from the image, else to it. */
static void merge(const struct stream *stream, const struct tensor *image, const struct tensor *merged, bool to_merged)
{
    int64_t h = image->shape[1], w = image->shape[2], channels = image->shape[3];
    int64_t rows = merged->shape[1], columns = merged->shape[2];
    size_t bytes = (size_t)channels * sizeof(float);

    PARALLEL(stream->threads)
    {
        int64_t first, last;

        parallel_share(image->shape[0] * rows, 1, &first, &last);
        for (int64_t i = first * columns * 4; i < last * columns * 4; i++) {
            int64_t row = i / 4 / columns, y = row % rows * 2 + i % 2, x = i / 4 % columns * 2 + i / 2 % 2;
            float *pixel = (float *)image->data + ((row / rows * h + y) * w + x) * channels;
            float *place = (float *)merged->data + i * channels;

            if (y >= h || x >= w) {
                if (to_merged)
                    memset(place, 0, bytes);
            } else {
                memcpy(to_merged ? place : pixel, to_merged ? pixel : place, bytes);
            }
        }
    }
}

bool cpu_patch_merge(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    (void)err;
    merge(stream, op_input(graph, op, 0), op_output(graph, op, 0), true);
    return true;
}

bool cpu_patch_merge_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    (void)err;
    merge(stream, op_output(graph, op, 0), op_input(graph, op, 0), false);
    return true;
}
