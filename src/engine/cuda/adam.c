/* adam.c - the table of parameters that a kernel of Adam goes over: on the device, written anew only when
 * memory has moved, so that a recorded step needs no copy. */
#include <stdlib.h>
#include <string.h>

#include "engine/cuda/kernels.h"

struct adam_state {
    struct adam_tensor *tensors, *known; /* as they are; as the device has them */
    struct adam_chunk *chunks;
    int tensor_count, chunk_count;
    void *device; /* tensors, then chunks */
};

static size_t tensors_bytes(const struct adam_state *state)
{
    return (size_t)state->tensor_count * sizeof *state->tensors;
}

static void fill_table(const struct graph *graph, const struct op *op, struct adam_state *state)
{
    int n = 0;

    for (int k = ADAM_FIRST; k < op->input_count; k += ADAM_GROUP) {
        const struct tensor *param = op_input(graph, op, k + ADAM_PARAM), *grad = op_input(graph, op, k + ADAM_GRAD);

        state->tensors[n++] = (struct adam_tensor){
            .param = param->data,
            .grad = grad->data,
            .exp_avg = op_input(graph, op, k + ADAM_EXP_AVG)->data,
            .exp_avg_sq = op_input(graph, op, k + ADAM_EXP_AVG_SQ)->data,
            .copy = param->extra ? (void *)(uintptr_t)layout_weight_data(param, NUMBER_BF16) : NULL,
            .count = layout_numbers(param),
            .grad_number = number_of(grad),
        };
    }
}

bool cuda_adam_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    struct adam_state *state = graph_alloc(graph, sizeof *state);
    int count = (op->input_count - ADAM_FIRST + ADAM_GROUP - 1) / ADAM_GROUP, n = 0;

    (void)stream;
    if (!state)
        return err_set(err, ERR_MEMORY, "no memory for Adam");
    state->tensor_count = count;
    state->tensors = graph_alloc(graph, (size_t)count * sizeof *state->tensors);
    state->known = graph_alloc(graph, (size_t)count * sizeof *state->known);
    if (!state->tensors || !state->known)
        return err_set(err, ERR_MEMORY, "no memory for Adam");
    fill_table(graph, op, state);
    for (int i = 0; i < count; i++)
        state->chunk_count += (int)((state->tensors[i].count + ADAM_CHUNK - 1) / ADAM_CHUNK);
    state->chunks = graph_alloc(graph, (size_t)state->chunk_count * sizeof *state->chunks);
    if (!state->chunks)
        return err_set(err, ERR_MEMORY, "no memory for Adam");
    for (int i = 0; i < count; i++)
        for (int64_t first = 0; first < state->tensors[i].count; first += ADAM_CHUNK)
            state->chunks[n++] = (struct adam_chunk){i, first};
    op->state = state;
    return true;
}

void cuda_adam_release(struct op *op)
{
    struct adam_state *state = op->state;

    cudaFree(state->device);
}

/* The tables on the device, up to date. */
static bool upload(struct adam_state *state, struct err *err)
{
    size_t chunks_bytes = (size_t)state->chunk_count * sizeof *state->chunks;

    if (!state->device) {
        if (!cuda_ok(cudaMalloc(&state->device, tensors_bytes(state) + chunks_bytes), "Adam's table", err) ||
            !cuda_ok(cudaMemcpy((char *)state->device + tensors_bytes(state), state->chunks, chunks_bytes,
                                cudaMemcpyHostToDevice),
                     "Adam's table", err))
            return false;
    } else if (memcmp(state->known, state->tensors, tensors_bytes(state)) == 0) {
        return true;
    }
    memcpy(state->known, state->tensors, tensors_bytes(state));
    return cuda_ok(cudaMemcpy(state->device, state->tensors, tensors_bytes(state), cudaMemcpyHostToDevice),
                   "Adam's table", err);
}

bool cuda_adam(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    struct adam_state *state = op->state;
    struct adam_launch launch = {
        .chunk_count = state->chunk_count,
        .step = op_input(graph, op, ADAM_STEP)->data,
        .counts_step = op->attrs.counts_step,
        .ticket = stream->ticket,
        .learning_rate = op->attrs.learning_rate,
        .beta1 = op->attrs.beta1,
        .beta2 = op->attrs.beta2,
        .eps = op->attrs.eps,
    };

    memset(state->tensors, 0, tensors_bytes(state)); /* its padding too, for the comparison */
    fill_table(graph, op, state);
    if (!upload(state, err))
        return false;
    launch.tensors = state->device;
    launch.chunks = (void *)((char *)state->device + tensors_bytes(state));
    return cuda_ok(adam_update(stream->queue, &launch), "Adam", err);
}
