/* norm_forward.c - batch normalisation, with residual sum and activation in the same pass. */
#include <math.h>
#include <string.h>

#include "engine/activation.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/norm.h"
#include "engine/cpu/parallel.h"
#include "engine/ref/ref.h"

enum { OPERAND_X, OPERAND_RESIDUAL };

/* What a run works on. */
struct forward {
    const struct stream *stream;
    const struct op *op;
    const struct norm_state *state;
    const float *x, *residual, *weight, *bias;
    float *running_mean, *running_var, *y, *save_mean, *save_invstd;
    bool saved; /* BATCH_NORM_APPLY: save_* are given */
    uint8_t *mask;
    struct moments *moments; /* of each item of a round; NULL: means and variances are given */
};

bool cpu_batch_norm_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, BN_X), *residual = op_input(graph, op, BN_RESIDUAL);
    struct tensor *mask = op_output(graph, op, BN_MASK);
    const struct norm_state *state;
    dnnl_memory_desc_t md;

    if (!norm_prepare(stream, graph, op, x, sizeof(struct moments), err))
        return false;
    state = op->state;
    if (!state->blocked)
        return !ref_kernels[op->type].prepare || ref_kernels[op->type].prepare(stream, graph, op, err);
    if (mask && op->attrs.activation == ACTIVATION_RELU)
        mask->bytes = norm_mask_bytes(stream->simd, x);
    return norm_operand(stream, op, OPERAND_X, x, err) && norm_operand(stream, op, OPERAND_RESIDUAL, residual, err) &&
           activation_output_md(stream, op_output(graph, op, BN_Y), &md, err);
}

static void item_moments(const struct forward *f, const struct norm_item *item, struct moments *ret)
{
    const struct simd *simd = f->stream->simd;

    memset(ret, 0, sizeof *ret);
    for (int64_t image = item->first; image < item->last; image++)
        simd->plane_moments(f->x + norm_plane(f->state, simd->block, image, item->block), f->state->pixels, ret);
}

/* Moments of a whole block from those of its parts (Chan, Golub, LeVeque 1983). */
static void block_moments(const struct moments *parts, int count, int channels, struct moments *ret)
{
    *ret = parts[0];
    for (int p = 1; p < count; p++) {
        double total = ret->count + parts[p].count;

        for (int c = 0; c < channels; c++) {
            double delta = parts[p].mean[c] - ret->mean[c];

            ret->mean[c] += delta * parts[p].count / total;
            ret->m2[c] += parts[p].m2[c] + delta * delta * ret->count * parts[p].count / total;
        }
        ret->count = total;
    }
}

/* Running and saved statistics of a block's channels, updated by the thread that has its first part. */
static void store_statistics(const struct forward *f, int64_t block, const struct moments *m, const float *invstd)
{
    int channels = norm_channels(f->state, f->stream->simd->block, block);
    float momentum = f->op->attrs.momentum;

    for (int c = 0; c < channels; c++) {
        int64_t at = block * f->stream->simd->block + c;
        double unbiased = m->count > 1 ? m->m2[c] / (m->count - 1) : 0;

        f->running_mean[at] = (1 - momentum) * f->running_mean[at] + momentum * (float)m->mean[c];
        f->running_var[at] = (1 - momentum) * f->running_var[at] + momentum * (float)unbiased;
        if (f->save_mean)
            f->save_mean[at] = (float)m->mean[c];
        if (f->save_invstd)
            f->save_invstd[at] = invstd[c];
    }
}

/* The planes of an item as x * scale + shift, from mean and 1 / standard deviation of their channels. Writing y past
 * the caches saves reading what is there before, a quarter of all that a batch norm moves: y of a whole batch would not
 * stay in the cache anyway. (Measured: 88 to 62 ms of a training step of resnet50 at batch 8 in one thread, and the
 * convolutions after it no slower. The backward writes over an input, where it does not pay.) */
static void apply_item(const struct forward *f, const struct norm_item *item, const double *mean, const double *invstd)
{
    const struct simd *simd = f->stream->simd;
    float scale[SIMD_MAX_BLOCK] = {0}, shift[SIMD_MAX_BLOCK] = {0}; /* 0 for padding */
    int channels = norm_channels(f->state, simd->block, item->block);

    for (int c = 0; c < channels; c++) {
        int64_t at = item->block * simd->block + c;

        scale[c] = (float)(f->weight[at] * invstd[c]);
        shift[c] = (float)(f->bias[at] - mean[c] * invstd[c] * f->weight[at]);
    }
    for (int64_t image = item->first; image < item->last; image++) {
        int64_t at = norm_plane(f->state, simd->block, image, item->block);
        const struct plane_apply args = {
            .x = f->x + at,
            .residual = f->residual ? f->residual + at : NULL,
            .scale = scale,
            .shift = shift,
            .y = f->y + at,
            .mask = f->mask ? f->mask + at / 8 : NULL,
            .activation = f->op->attrs.activation,
            .past = f->y != f->x && f->y != f->residual,
        };

        simd->plane_apply(&args, f->state->pixels);
    }
}

static void train_item(const struct forward *f, const struct norm_item *item, const struct moments *parts)
{
    int channels = f->stream->simd->block;
    double invstd[SIMD_MAX_BLOCK] = {0};
    float invstd_saved[SIMD_MAX_BLOCK] = {0};
    struct moments m;

    block_moments(parts, f->state->parts, channels, &m);
    for (int c = 0; c < channels; c++) {
        invstd[c] = 1 / sqrt(m.m2[c] / m.count + (double)f->op->attrs.eps);
        invstd_saved[c] = (float)invstd[c];
    }
    if (item->part == 0)
        store_statistics(f, item->block, &m, invstd_saved);
    apply_item(f, item, m.mean, invstd);
}

static void evaluate_item(const struct forward *f, const struct norm_item *item)
{
    int channels = norm_channels(f->state, f->stream->simd->block, item->block);
    double mean[SIMD_MAX_BLOCK] = {0}, invstd[SIMD_MAX_BLOCK] = {0};

    for (int c = 0; c < channels; c++) {
        int64_t at = item->block * f->stream->simd->block + c;

        mean[c] = f->saved ? f->save_mean[at] : f->running_mean[at];
        invstd[c] = f->saved ? f->save_invstd[at] : 1 / sqrt((double)f->running_var[at] + (double)f->op->attrs.eps);
    }
    apply_item(f, item, mean, invstd);
}

/* One thread's share: slots thread, thread + threads, ... of each round. */
static void work(const struct forward *f)
{
    const struct norm_state *state = f->state;
    struct norm_item item;

    for (int64_t begin = 0; begin < state->blocks * state->parts; begin += state->round) {
        for (int slot = parallel_thread(); slot < state->round; slot += parallel_threads())
            if (f->moments && norm_item(state, begin, slot, &item))
                item_moments(f, &item, &f->moments[slot]);
        if (state->parts > 1)
            parallel_barrier();
        for (int slot = parallel_thread(); slot < state->round; slot += parallel_threads())
            if (norm_item(state, begin, slot, &item)) {
                if (f->moments)
                    train_item(f, &item, &f->moments[slot - item.part]);
                else
                    evaluate_item(f, &item);
            }
        if (state->parts > 1)
            parallel_barrier(); /* the next round overwrites the sums */
    }
}

static float *data_of(const struct tensor *tensor)
{
    return tensor ? tensor->data : NULL;
}

bool cpu_batch_norm(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct norm_state *state = op->state;
    struct tensor *batches = op_input(graph, op, BN_BATCHES), *mask = op_output(graph, op, BN_MASK);
    struct forward f = {
        .stream = stream,
        .op = op,
        .state = state,
        .weight = data_of(op_input(graph, op, BN_WEIGHT)),
        .bias = data_of(op_input(graph, op, BN_BIAS)),
        .running_mean = data_of(op_input(graph, op, BN_RUNNING_MEAN)),
        .running_var = data_of(op_input(graph, op, BN_RUNNING_VAR)),
        .y = data_of(op_output(graph, op, BN_Y)),
        .save_mean = data_of(op_output(graph, op, BN_SAVE_MEAN)),
        .save_invstd = data_of(op_output(graph, op, BN_SAVE_INVSTD)),
        .mask = mask && mask->bytes ? mask->data : NULL,
    };

    if (!state->blocked)
        return ref_kernels[op->type].run(stream, graph, op, err);
    f.moments = op->attrs.training ? scratch_at(op, state->sums) : NULL;
    if (!norm_load(stream, op, OPERAND_X, op_input(graph, op, BN_X), &f.x, err) ||
        !norm_load(stream, op, OPERAND_RESIDUAL, op_input(graph, op, BN_RESIDUAL), &f.residual, err))
        return false;
    if (op->attrs.training && batches)
        ++*(int64_t *)batches->data;
    PARALLEL(stream->threads)
    work(&f);
    if (activation_info(op->attrs.activation)->value(0) != 0)
        activation_clear_padding(stream, op_output(graph, op, 0));
    return true;
}

bool cpu_batch_norm_apply_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, BNA_X), *residual = op_input(graph, op, BNA_RESIDUAL);
    dnnl_memory_desc_t md;

    if (!norm_prepare(stream, graph, op, x, 0, err))
        return false;
    return !((const struct norm_state *)op->state)->blocked ||
           (norm_operand(stream, op, OPERAND_X, x, err) && norm_operand(stream, op, OPERAND_RESIDUAL, residual, err) &&
            activation_output_md(stream, op_output(graph, op, 0), &md, err));
}

bool cpu_batch_norm_apply(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct norm_state *state = op->state;
    struct forward f = {
        .stream = stream,
        .op = op,
        .state = state,
        .weight = data_of(op_input(graph, op, BNA_WEIGHT)),
        .bias = data_of(op_input(graph, op, BNA_BIAS)),
        .y = data_of(op_output(graph, op, 0)),
        .save_mean = data_of(op_input(graph, op, BNA_SAVE_MEAN)),
        .save_invstd = data_of(op_input(graph, op, BNA_SAVE_INVSTD)),
        .saved = true,
    };

    if (!state->blocked)
        return ref_kernels[op->type].run(stream, graph, op, err);
    if (!norm_load(stream, op, OPERAND_X, op_input(graph, op, BNA_X), &f.x, err) ||
        !norm_load(stream, op, OPERAND_RESIDUAL, op_input(graph, op, BNA_RESIDUAL), &f.residual, err))
        return false;
    PARALLEL(stream->threads)
    work(&f);
    if (activation_info(op->attrs.activation)->value(0) != 0)
        activation_clear_padding(stream, op_output(graph, op, 0));
    return true;
}
