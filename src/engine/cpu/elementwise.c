/* elementwise.c - ops that treat every number alike, over raw memory in whatever layout: images to floats, sums,
 * activations, Adam; and the change of layout. */
#include <math.h>

#include "engine/activation.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/parallel.h"
#include "engine/cpu/primitive.h"

/* Threads share arrays in pieces of this many numbers, a page, and leave small ones to one. */
enum { GRAIN = 1024, SMALL = 16 * GRAIN };

enum { CHANNELS = 3 }; /* of images */

static int threads_for(const struct stream *stream, int64_t count)
{
    return count < SMALL ? 1 : stream->threads;
}

/* Numbers in memory, padding of the layout included. */
static int64_t numbers(const struct tensor *tensor)
{
    return (int64_t)(tensor->bytes / sizeof(float));
}

bool cpu_image_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    struct tensor *y = op_output(graph, op, 0);
    dnnl_memory_desc_t planar, plain;

    if (y->shape[3] != CHANNELS)
        return err_set(err, ERR_BUG, "images have %d channels, not %d", (int)y->shape[3], CHANNELS);
    activation_planar_md(y, &planar);
    activation_plain_md(y, &plain);
    return y->fixed || stream_set_layout(stream, y, &planar, &plain, NULL, err);
}

/* x (N, H, W, 3) bytes to y (N, 3, H, W), row after row. */
bool cpu_image(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *tensor = op_input(graph, op, 0);
    const uint8_t *x = tensor->data;
    float *y = op_output(graph, op, 0)->data;
    int64_t rows = tensor->shape[1], width = tensor->shape[2];

    (void)err;
    PARALLEL(stream->threads)
    {
        int64_t first, last;

        parallel_share(tensor->shape[0] * rows, 1, &first, &last);
        for (int64_t i = first; i < last; i++)
            for (int c = 0; c < CHANNELS; c++)
                stream->simd->rgb_plane(x + i * width * CHANNELS + c,
                                        y + ((i / rows * CHANNELS + c) * rows + i % rows) * width, width);
    }
    return true;
}

/* Two inputs must lie alike: the second is brought into the layout of the first, which is the output's too. */
struct pair_state {
    struct operand second;
};

bool cpu_pair_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    struct pair_state *state = graph_alloc(graph, sizeof *state);
    const struct tensor *a = op_input(graph, op, 0), *b = op_input(graph, op, 1);
    dnnl_memory_desc_t found, wanted;

    if (!state)
        return err_set(err, ERR_MEMORY, "no memory for an op");
    op->state = state;
    activation_like(op_output(graph, op, 0), a);
    activation_md(b, &found);
    activation_md(a, &wanted);
    return operand_make(stream, op, true, &found, &wanted, &state->second, err);
}

void cpu_pair_release(struct op *op)
{
    struct pair_state *state = op->state;

    if (state)
        operand_release(&state->second);
}

bool cpu_add(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    struct pair_state *state = op->state;
    const struct tensor *x = op_input(graph, op, 0);
    const float *a = x->data, *b = operand_load(stream, op, &state->second, op_input(graph, op, 1)->data, err);
    float *y = op_output(graph, op, 0)->data;

    if (!b)
        return false;
    PARALLEL(threads_for(stream, numbers(x)))
    {
        int64_t first, last;

        parallel_share(numbers(x), GRAIN, &first, &last);
        stream->simd->add(op->attrs.activation, a + first, b + first, y + first, last - first);
    }
    if (activation_info(op->attrs.activation)->value(0) != 0)
        activation_clear_padding(stream, op_output(graph, op, 0));
    return true;
}

bool cpu_activation_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    struct pair_state *state = op->state;
    const struct tensor *x = op_input(graph, op, 0);
    const float *dy = x->data, *at = operand_load(stream, op, &state->second, op_input(graph, op, 1)->data, err);
    float *dx = op_output(graph, op, 0)->data;

    if (!at)
        return false;
    PARALLEL(threads_for(stream, numbers(x)))
    {
        int64_t first, last;

        parallel_share(numbers(x), GRAIN, &first, &last);
        stream->simd->activation_backward(op->attrs.activation, dy + first, at + first, dx + first, last - first);
    }
    return true;
}

bool cpu_activation_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    (void)stream, (void)err;
    activation_like(op_output(graph, op, 0), op_input(graph, op, 0));
    return true;
}

bool cpu_activation(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *tensor = op_input(graph, op, 0);
    const float *x = tensor->data;
    float *y = op_output(graph, op, 0)->data;

    (void)err;
    PARALLEL(threads_for(stream, numbers(tensor)))
    {
        int64_t first, last;

        parallel_share(numbers(tensor), GRAIN, &first, &last);
        stream->simd->activate(op->attrs.activation, x + first, y + first, last - first);
    }
    if (activation_info(op->attrs.activation)->value(0) != 0)
        activation_clear_padding(stream, op_output(graph, op, 0));
    return true;
}

bool cpu_adam(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    int64_t *step = op_input(graph, op, ADAM_STEP)->data;
    const struct op_attrs *a = &op->attrs;
    double correction1 = 1 - pow(a->beta1, (double)(*step + 1)), correction2 = 1 - pow(a->beta2, (double)(*step + 1));
    const struct adam_step constants = {
        .one_minus_beta1 = (float)(1 - a->beta1),
        .beta2 = (float)a->beta2,
        .one_minus_beta2 = (float)(1 - a->beta2),
        .step_size = (float)(a->learning_rate / correction1),
        .inv_sqrt_correction2 = (float)(1 / sqrt(correction2)),
        .eps = a->eps,
    };

    (void)err;
    PARALLEL(stream->threads)
    for (int i = ADAM_FIRST; i + ADAM_GROUP <= op->input_count; i += ADAM_GROUP) {
        const struct tensor *param = op_input(graph, op, i + ADAM_PARAM);
        float *grad = op_input(graph, op, i + ADAM_GRAD)->data;
        float *exp_avg = op_input(graph, op, i + ADAM_EXP_AVG)->data;
        float *exp_avg_sq = op_input(graph, op, i + ADAM_EXP_AVG_SQ)->data;
        int64_t first, last;

        parallel_share(numbers(param), GRAIN, &first, &last);
        stream->simd->adam(&constants, (float *)param->data + first, grad + first, exp_avg + first, exp_avg_sq + first,
                           last - first);
    }
    *step += a->counts_step;
    return true;
}

bool cpu_reorder_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    struct primitive *state = graph_alloc(graph, sizeof *state);
    dnnl_memory_desc_t from, to;

    if (!state)
        return err_set(err, ERR_MEMORY, "no memory for a reorder");
    op->state = state;
    activation_md(op_input(graph, op, 0), &from);
    activation_md(op_output(graph, op, 0), &to);
    return reorder_create(stream, &from, &to, state, err);
}

bool cpu_reorder(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    void *const args[PRIMITIVE_MAX_ARGS] = {op_input(graph, op, 0)->data, op_output(graph, op, 0)->data};

    return primitive_run(stream, op->state, args, err);
}

void cpu_reorder_release(struct op *op)
{
    if (op->state)
        primitive_release(op->state);
}
