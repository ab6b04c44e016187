/* norm.c - see norm.h */
#include "engine/cpu/norm.h"

#include "engine/cpu/kernels.h"

static int64_t gcd(int64_t a, int64_t b)
{
    return b ? gcd(b, a % b) : a;
}

/* As many parts as make the items of all blocks a multiple of the threads, unless the imbalance is small anyway. */
static void cut(const struct stream *stream, struct norm_state *state)
{
    int64_t threads = stream->threads, parts = 1;

    if (state->blocks < 4 * threads)
        parts = threads / gcd(state->blocks, threads);
    if (parts > state->images)
        parts = state->images;
    state->parts = parts > 1 ? (int)parts : 1;
    state->round = (int)threads / state->parts * state->parts;
}

bool norm_prepare(struct stream *stream, struct graph *graph, struct op *op, const struct tensor *x, size_t sums_bytes,
                  struct err *err)
{
    struct norm_state *state = graph_alloc(graph, sizeof *state);

    if (!state)
        return err_set(err, ERR_MEMORY, "no memory for a batch norm");
    op->state = state;
    state->blocks = activation_planes(stream->simd, x);
    state->channels = tensor_channels(x);
    state->blocked = state->blocks;
    if (!state->blocked)
        return !x->layout || err_set(err, ERR_BUG, "batch norm of images in planes");
    state->images = x->shape[0];
    state->pixels = x->shape[1] * x->shape[2];
    cut(stream, state);
    state->sums = scratch_book(op, (size_t)state->round * sums_bytes);
    return true;
}

void cpu_batch_norm_release(struct op *op)
{
    struct norm_state *state = op->state;

    for (int i = 0; state && i < NORM_MAX_OPERANDS; i++)
        operand_release(&state->operands[i]);
}

bool norm_operand(struct stream *stream, struct op *op, int i, const struct tensor *tensor, struct err *err)
{
    struct norm_state *state = op->state;
    dnnl_memory_desc_t found, wanted;

    if (!tensor)
        return true;
    activation_md(tensor, &found);
    activation_wanted_md(stream, tensor, &wanted);
    return operand_make(stream, op, true, &found, &wanted, &state->operands[i], err);
}

bool norm_load(struct stream *stream, const struct op *op, int i, const struct tensor *tensor, const float **ret,
               struct err *err)
{
    struct norm_state *state = op->state;

    *ret = NULL;
    if (tensor)
        *ret = operand_load(stream, op, &state->operands[i], tensor->data, err);
    return !tensor || *ret;
}

bool norm_item(const struct norm_state *state, int64_t begin, int slot, struct norm_item *ret)
{
    int64_t item = begin + slot;

    if (item >= state->blocks * state->parts)
        return false;
    ret->block = item / state->parts;
    ret->part = (int)(item % state->parts);
    ret->first = state->images * ret->part / state->parts;
    ret->last = state->images * (ret->part + 1) / state->parts;
    return true;
}

int64_t norm_plane(const struct norm_state *state, int block_size, int64_t image, int64_t block)
{
    return (image * state->blocks + block) * state->pixels * block_size;
}

int norm_channels(const struct norm_state *state, int block_size, int64_t block)
{
    int64_t left = state->channels - block * block_size;

    return left < block_size ? (int)left : block_size;
}

size_t norm_mask_bytes(const struct simd *simd, const struct tensor *x)
{
    return activation_wanted_bytes(simd, x) / sizeof(float) / 8;
}
