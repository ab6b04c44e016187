/* fold.c - a batch norm folded into the convolution before it, into the weight layout that the convolution chose. */
#include <math.h>

#include "engine/cpu/kernels.h"
#include "engine/cpu/parallel.h"
#include "engine/cpu/primitive.h"

struct fold_state {
    struct primitive load, store; /* to and from plain; absent where that is how it lies */
    struct primitive ready;       /* from plain to Winograd's form, where the layout has that */
    size_t loaded, folded;        /* offsets in scratch of the plain copies that these need */
};

/* Layouts remember their plain form, so that grouped weights need no number of groups here. */
static bool fold_copy(struct stream *stream, struct op *op, const struct tensor *tensor, bool load, size_t *offset,
                      struct primitive *ret, struct err *err)
{
    const struct layout *layout = tensor->layout;

    if (!layout)
        return true;
    *offset = scratch_book(op, tensor_plain_bytes(tensor));
    return reorder_create(stream, load ? &layout->md : &layout->plain, load ? &layout->plain : &layout->md, ret, err);
}

bool cpu_fold_batch_norm_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    struct fold_state *state = graph_alloc(graph, sizeof *state);
    const struct tensor *folded = op_output(graph, op, 0);
    const struct layout *layout = folded->layout;

    if (!state)
        return err_set(err, ERR_MEMORY, "no memory for a folded batch norm");
    op->state = state;
    return fold_copy(stream, op, op_input(graph, op, FOLD_WEIGHT), true, &state->loaded, &state->load, err) &&
           fold_copy(stream, op, folded, false, &state->folded, &state->store, err) &&
           (!layout || !layout->ready_offset ||
            reorder_create(stream, &layout->plain, &layout->ready, &state->ready, err));
}

void cpu_fold_batch_norm_release(struct op *op)
{
    struct fold_state *state = op->state;

    if (!state)
        return;
    primitive_release(&state->load);
    primitive_release(&state->store);
    primitive_release(&state->ready);
}

bool cpu_fold_batch_norm(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    struct fold_state *state = op->state;
    const struct tensor *weight = op_input(graph, op, FOLD_WEIGHT), *bias = op_input(graph, op, FOLD_BIAS);
    const float *bn_weight = op_input(graph, op, FOLD_BN_WEIGHT)->data;
    const float *bn_bias = op_input(graph, op, FOLD_BN_BIAS)->data;
    const float *mean = op_input(graph, op, FOLD_RUNNING_MEAN)->data;
    const float *var = op_input(graph, op, FOLD_RUNNING_VAR)->data;
    const float *old_bias = bias ? bias->data : NULL;
    float *new_bias = op_output(graph, op, 1)->data;
    const float *from = state->load.primitive ? scratch_at(op, state->loaded) : weight->data;
    float *to = state->store.primitive ? scratch_at(op, state->folded) : op_output(graph, op, 0)->data;
    int64_t row = tensor_elements(weight) / weight->shape[0];
    void *const load[PRIMITIVE_MAX_ARGS] = {weight->data, scratch_at(op, state->loaded)};
    const struct layout *layout = op_output(graph, op, 0)->layout;
    char *result = op_output(graph, op, 0)->data;
    void *const store[PRIMITIVE_MAX_ARGS] = {to, result}, *const ready[PRIMITIVE_MAX_ARGS] = {
                                                              to, result + (layout ? layout->ready_offset : 0)};

    if (state->load.primitive && !primitive_run(stream, &state->load, load, err))
        return false;
    PARALLEL(stream->threads)
    {
        int64_t first, last;

        parallel_share(weight->shape[0], 1, &first, &last);
        for (int64_t o = first; o < last; o++) {
            double s = bn_weight[o] / sqrt((double)var[o] + (double)op->attrs.eps);

            stream->simd->scale(from + o * row, (float)s, to + o * row, row);
            new_bias[o] = (float)(bn_bias[o] + s * ((old_bias ? (double)old_bias[o] : 0) - (double)mean[o]));
        }
    }
    return (!state->store.primitive || primitive_run(stream, &state->store, store, err)) &&
           (!state->ready.primitive || primitive_run(stream, &state->ready, ready, err));
}
