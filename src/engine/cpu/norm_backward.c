/* norm_backward.c - the gradient of batch normalisation, of the activation after it and of the residual sum in the same
 * passes.
 *
 * With m values a channel, x' = (x - mean) invstd and g = (dy + dy2) where y > 0:
 *   dbias = sum g, dweight = sum g x', dx = weight invstd (g - dbias / m - x' dweight / m)   (Ioffe, Szegedy 2015) */
#include <string.h>

#include "engine/cpu/kernels.h"
#include "engine/cpu/norm.h"
#include "engine/cpu/parallel.h"
#include "engine/ref/ref.h"

enum { OPERAND_DY, OPERAND_X, OPERAND_Y, OPERAND_DY2 };

/* Of one item: sums of g and of g (x - mean). */
struct sums {
    double g[SIMD_MAX_BLOCK], gx[SIMD_MAX_BLOCK];
};

/* What a run works on. */
struct backward {
    const struct stream *stream;
    const struct norm_state *state;
    enum activation activation;
    bool relu;
    const float *dy, *dy2, *x, *y, *weight, *bias, *mean, *invstd; /* bias: for an activation other than ReLU */
    const uint8_t *mask;
    float *dx, *dweight, *dbias, *dresidual;
    struct sums *sums; /* of each slot */
};

bool cpu_batch_norm_backward_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, BNB_X), *mask = op_input(graph, op, BNB_MASK);
    struct tensor *dresidual = op_output(graph, op, BNB_DRESIDUAL);
    const struct norm_state *state;
    dnnl_memory_desc_t md;
    bool by_y = op->attrs.activation == ACTIVATION_RELU && !(mask && mask->bytes);

    if (!norm_prepare(stream, graph, op, x, sizeof(struct sums), err))
        return false;
    state = op->state;
    if (!state->blocked)
        return !ref_kernels[op->type].prepare || ref_kernels[op->type].prepare(stream, graph, op, err);
    return norm_operand(stream, op, OPERAND_DY, op_input(graph, op, BNB_DY), err) &&
           norm_operand(stream, op, OPERAND_X, x, err) &&
           norm_operand(stream, op, OPERAND_Y, by_y ? op_input(graph, op, BNB_Y) : NULL, err) &&
           norm_operand(stream, op, OPERAND_DY2, op_input(graph, op, BNB_DY2), err) &&
           activation_output_md(stream, op_output(graph, op, BNB_DX), &md, err) &&
           (!dresidual || activation_output_md(stream, dresidual, &md, err));
}

/* Of the channels of a block, 0 for padding: the mean, and what goes into the activation as x * scale + shift. */
struct block_values {
    float mean[SIMD_MAX_BLOCK], scale[SIMD_MAX_BLOCK], shift[SIMD_MAX_BLOCK];
};

static void find_values(const struct backward *b, int64_t block, struct block_values *ret)
{
    int size = b->stream->simd->block, channels = norm_channels(b->state, size, block);

    memset(ret, 0, sizeof *ret);
    for (int c = 0; c < channels; c++) {
        int64_t at = block * size + c;

        ret->mean[c] = b->mean[at];
        ret->scale[c] = b->weight[at] * b->invstd[at];
        ret->shift[c] = (b->bias ? b->bias[at] : 0) - b->mean[at] * ret->scale[c];
    }
}

/* The gradient of a plane at `at`: from dy, dy2 and the activation, or as the first pass has left it in dresidual. */
static struct plane_gradient gradient_at(const struct backward *b, int64_t at, const struct block_values *values,
                                         bool stored)
{
    if (stored)
        return (struct plane_gradient){.dy = b->dresidual + at};
    return (struct plane_gradient){
        .dy = b->dy + at,
        .dy2 = b->dy2 ? b->dy2 + at : NULL,
        .mask = b->mask ? b->mask + at / 8 : NULL,
        .y = b->relu && !b->mask ? b->y + at : NULL,
        .activation = b->bias ? b->activation : ACTIVATION_NONE,
        .x = b->x + at,
        .scale = values->scale,
        .shift = values->shift,
    };
}

static void item_sums(const struct backward *b, const struct norm_item *item, struct sums *ret)
{
    const struct simd *simd = b->stream->simd;
    struct block_values values;

    memset(ret, 0, sizeof *ret);
    find_values(b, item->block, &values);
    for (int64_t image = item->first; image < item->last; image++) {
        int64_t at = norm_plane(b->state, simd->block, image, item->block);
        const struct plane_gradient gradient = gradient_at(b, at, &values, false);

        simd->plane_gradient_sums(&gradient, b->x + at, values.mean, b->dresidual ? b->dresidual + at : NULL,
                                  b->state->pixels, ret->g, ret->gx);
    }
}

/* parts: the sums of the parts of the item's block. */
static void apply_item(const struct backward *b, const struct norm_item *item, const struct sums *parts)
{
    const struct simd *simd = b->stream->simd;
    const int64_t first_channel = item->block * simd->block;
    double count = (double)(b->state->images * b->state->pixels);
    int channels = norm_channels(b->state, simd->block, item->block);
    float g_scale[SIMD_MAX_BLOCK] = {0}, x_scale[SIMD_MAX_BLOCK] = {0}, shift[SIMD_MAX_BLOCK] = {0};
    struct sums total = parts[0];
    struct block_values values;

    find_values(b, item->block, &values);
    for (int p = 1; p < b->state->parts; p++)
        for (int c = 0; c < simd->block; c++) {
            total.g[c] += parts[p].g[c];
            total.gx[c] += parts[p].gx[c];
        }
    for (int c = 0; c < channels; c++) {
        int64_t channel = first_channel + c;
        double invstd = b->invstd[channel], scale = b->weight[channel] * invstd;

        g_scale[c] = (float)scale;
        x_scale[c] = (float)(-scale * invstd * invstd * total.gx[c] / count);
        shift[c] = (float)(-scale * total.g[c] / count);
        if (item->part == 0) {
            b->dweight[channel] = (float)(total.gx[c] * invstd);
            b->dbias[channel] = (float)total.g[c];
        }
    }
    for (int64_t image = item->first; image < item->last; image++) {
        int64_t at = norm_plane(b->state, simd->block, image, item->block);
        const struct plane_gradient gradient = gradient_at(b, at, &values, b->dresidual);

        simd->plane_gradient_apply(&gradient, b->x + at, values.mean, g_scale, x_scale, shift, b->dx + at,
                                   b->state->pixels);
    }
}

/* One thread's share: slots thread, thread + threads, ... of each round. */
static void work(const struct backward *b)
{
    const struct norm_state *state = b->state;
    struct norm_item item;

    for (int64_t begin = 0; begin < state->blocks * state->parts; begin += state->round) {
        for (int slot = parallel_thread(); slot < state->round; slot += parallel_threads())
            if (norm_item(state, begin, slot, &item))
                item_sums(b, &item, &b->sums[slot]);
        if (state->parts > 1)
            parallel_barrier();
        for (int slot = parallel_thread(); slot < state->round; slot += parallel_threads())
            if (norm_item(state, begin, slot, &item))
                apply_item(b, &item, &b->sums[slot - item.part]);
        if (state->parts > 1)
            parallel_barrier(); /* the next round overwrites the sums */
    }
}

static void *data_of(const struct tensor *tensor)
{
    return tensor ? tensor->data : NULL;
}

bool cpu_batch_norm_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct norm_state *state = op->state;
    const struct tensor *mask = op_input(graph, op, BNB_MASK), *y = op_input(graph, op, BNB_Y);
    struct backward b = {
        .stream = stream,
        .state = state,
        .activation = op->attrs.activation,
        .relu = op->attrs.activation == ACTIVATION_RELU,
        .bias = data_of(op_input(graph, op, BNB_BIAS)),
        .weight = data_of(op_input(graph, op, BNB_WEIGHT)),
        .mean = data_of(op_input(graph, op, BNB_SAVE_MEAN)),
        .invstd = data_of(op_input(graph, op, BNB_SAVE_INVSTD)),
        .mask = mask && mask->bytes ? mask->data : NULL,
        .dx = data_of(op_output(graph, op, BNB_DX)),
        .dweight = data_of(op_output(graph, op, BNB_DWEIGHT)),
        .dbias = data_of(op_output(graph, op, BNB_DBIAS)),
        .dresidual = data_of(op_output(graph, op, BNB_DRESIDUAL)),
    };

    if (!state->blocked)
        return ref_kernels[op->type].run(stream, graph, op, err);
    b.sums = scratch_at(op, state->sums);
    if (!norm_load(stream, op, OPERAND_DY, op_input(graph, op, BNB_DY), &b.dy, err) ||
        !norm_load(stream, op, OPERAND_X, op_input(graph, op, BNB_X), &b.x, err) ||
        !norm_load(stream, op, OPERAND_Y, b.relu && !b.mask ? y : NULL, &b.y, err) ||
        !norm_load(stream, op, OPERAND_DY2, op_input(graph, op, BNB_DY2), &b.dy2, err))
        return false;
    PARALLEL(stream->threads)
    work(&b);
    return true;
}
