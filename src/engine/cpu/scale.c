/* scale.c - every channel of every image times a factor, and the gradients of both, plane by plane. */
#include <string.h>

#include "engine/cpu/kernels.h"
#include "engine/cpu/parallel.h"
#include "engine/cpu/primitive.h"
#include "engine/ref/ref.h"

/* The images, which are wanted in planes: dy and x, or x alone. */
struct scale_state {
    struct operand images[2];
};

static bool prepare(struct stream *stream, struct graph *graph, struct op *op, int images, struct err *err)
{
    struct scale_state *state = graph_alloc(graph, sizeof *state);
    dnnl_memory_desc_t found, wanted, md;
    bool ok = true;

    if (!state)
        return err_set(err, ERR_MEMORY, "no memory for a scale");
    op->state = state;
    for (int i = 0; ok && i < images; i++) {
        activation_md(op_input(graph, op, i), &found);
        activation_wanted_md(stream, op_input(graph, op, i), &wanted);
        ok = operand_make(stream, op, true, &found, &wanted, &state->images[i], err);
    }
    return ok && activation_output_md(stream, op_output(graph, op, 0), &md, err);
}

bool cpu_scale_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    return prepare(stream, graph, op, 1, err);
}

bool cpu_scale_backward_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    return prepare(stream, graph, op, 2, err);
}

void cpu_scale_release(struct op *op)
{
    struct scale_state *state = op->state;

    for (int i = 0; state && i < 2; i++)
        operand_release(&state->images[i]);
}

/* A plane of a tensor: where it begins, which factors it has, filled up with zeros. */
struct plane {
    int64_t at, factor;
    int channels;
    float factors[SIMD_MAX_BLOCK];
};

static void find_plane(const struct simd *simd, const struct tensor *x, const float *s, int64_t plane,
                       struct plane *ret)
{
    int64_t planes = activation_planes(simd, x);

    ret->at = plane * x->shape[1] * x->shape[2] * simd->block;
    ret->factor = plane / planes * x->shape[3] + plane % planes * simd->block;
    ret->channels = activation_plane_channels(simd, x, plane % planes);
    memset(ret->factors, 0, sizeof ret->factors);
    memcpy(ret->factors, s + ret->factor, (size_t)ret->channels * sizeof *s);
}

bool cpu_scale(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    struct scale_state *state = op->state;
    const struct simd *simd = stream->simd;
    const struct tensor *tensor = op_input(graph, op, 0);
    int64_t planes = activation_planes(simd, tensor), pixels = tensor->shape[1] * tensor->shape[2];
    const float *x = operand_load(stream, op, &state->images[0], tensor->data, err);
    const float *s = op_input(graph, op, 1)->data;
    float *y = op_output(graph, op, 0)->data;

    if (!x)
        return false;
    if (!planes)
        return ref_scale(stream, graph, op, err);
    PARALLEL(stream->threads)
    {
        int64_t first, last;
        struct plane p;

        parallel_share(tensor->shape[0] * planes, 1, &first, &last);
        for (int64_t plane = first; plane < last; plane++) {
            find_plane(simd, tensor, s, plane, &p);
            simd->plane_scale(x + p.at, p.factors, y + p.at, pixels);
        }
    }
    return true;
}

bool cpu_scale_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    struct scale_state *state = op->state;
    const struct simd *simd = stream->simd;
    const struct tensor *tensor = op_input(graph, op, 1);
    int64_t planes = activation_planes(simd, tensor), pixels = tensor->shape[1] * tensor->shape[2];
    const float *dy = operand_load(stream, op, &state->images[0], op_input(graph, op, 0)->data, err);
    const float *x = operand_load(stream, op, &state->images[1], tensor->data, err);
    const float *s = op_input(graph, op, 2)->data;
    float *dx = op_output(graph, op, 0)->data, *ds = op_output(graph, op, 1)->data;

    if (!dy || !x)
        return false;
    if (!planes)
        return ref_scale_backward(stream, graph, op, err);
    PARALLEL(stream->threads)
    {
        float sum[SIMD_MAX_BLOCK];
        int64_t first, last;
        struct plane p;

        parallel_share(tensor->shape[0] * planes, 1, &first, &last);
        for (int64_t plane = first; plane < last; plane++) {
            find_plane(simd, tensor, s, plane, &p);
            simd->plane_scale_backward(dy + p.at, x + p.at, p.factors, dx + p.at, pixels, sum);
            memcpy(ds + p.factor, sum, (size_t)p.channels * sizeof *ds);
        }
    }
    return true;
}
