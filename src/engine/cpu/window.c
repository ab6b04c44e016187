/* window.c - attention in windows and its gradient. Threads share the windows of all images, head by head; everything
 * of one window of one head is gathered into the first-level cache and stays there. The backward makes the softmax
 * anew. */
#include "engine/window.h"

#include <math.h>
#include <string.h>

#include "engine/cpu/kernels.h"
#include "engine/cpu/parallel.h"
#include "engine/cpu/primitive.h"

static const float shortest = 1e-12f, masked = -100, largest_scale = 100;

/* One window of one head, in a thread's scratch: matrices of (tokens, dim), (dim, tokens) where turned, and (tokens,
 * tokens). */
struct attention {
    const struct simd *simd;
    struct window_grid grid;
    int64_t heads, tokens, dim, channels, places;
    int64_t head, windows; /* of all images */
    float scale;
    const float *qkv_bias, *logit_scale, *table;

    float *parts[3], *turned[3]; /* q, k, v; q and k of length 1 */
    float *lengths[2];
    float *bias; /* of the head, for every pair of tokens */
    float *p;
    float *dy, *dp, *dparts[3];
    float *dbias; /* sums over the thread's windows of the head */
    float *sums;  /* of all heads, see sums_count() */
    int *regions; /* of the window's tokens */
    int *pixels;  /* of the window's tokens; -1: padding */
};

/* A thread's sums: gradients of the table, of the bias of q and of v, of the scales. */
static int64_t sums_count(const struct attention *a)
{
    return a->heads * a->places + 2 * a->channels + a->heads;
}

static float *dtable_sums(const struct attention *a)
{
    return a->sums;
}

static float *dqkv_bias_sums(const struct attention *a)
{
    return a->sums + a->heads * a->places;
}

static float *dscale_sums(const struct attention *a)
{
    return a->sums + a->heads * a->places + 2 * a->channels;
}

/* Gives pieces of scratch and counts them; with none it counts alone. */
static float *take(float *scratch, int64_t *used, int64_t count)
{
    float *at = scratch ? scratch + *used : NULL;

    *used += (count + 15) / 16 * 16;
    return at;
}

/* Lays the thread's matrices out and returns the floats that they take. */
static int64_t lay_out(struct attention *a, float *scratch, bool backward)
{
    int64_t matrix = a->tokens * a->dim, square = a->tokens * a->tokens, used = 0;

    for (int i = 0; i < 3; i++) {
        a->parts[i] = take(scratch, &used, matrix);
        a->turned[i] = i ? take(scratch, &used, matrix) : NULL;
    }
    a->lengths[0] = take(scratch, &used, a->tokens);
    a->lengths[1] = take(scratch, &used, a->tokens);
    a->bias = take(scratch, &used, square);
    a->p = take(scratch, &used, square);
    a->pixels = (int *)(void *)take(scratch, &used, a->tokens);
    a->regions = (int *)(void *)take(scratch, &used, a->tokens);
    if (backward) {
        a->dy = take(scratch, &used, matrix);
        a->dp = take(scratch, &used, square);
        for (int i = 0; i < 3; i++)
            a->dparts[i] = take(scratch, &used, matrix);
        a->dbias = take(scratch, &used, square);
        a->sums = take(scratch, &used, sums_count(a));
    }
    return used;
}

static struct attention attention_of(const struct stream *stream, const struct op *op, const struct tensor *qkv)
{
    struct attention a = {.simd = stream->simd, .grid = window_grid_of(&op->attrs, qkv), .heads = op->attrs.heads};

    a.tokens = a.grid.tokens;
    a.channels = tensor_channels(qkv) / 3;
    a.dim = a.channels / a.heads;
    a.places = (2 * a.grid.size[0] - 1) * (2 * a.grid.size[1] - 1);
    a.windows = qkv->shape[0] * a.grid.rows * a.grid.columns;
    a.head = -1;
    return a;
}

bool cpu_window_attention_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    bool backward = op->type == OP_WINDOW_ATTENTION_BACKWARD;
    struct attention a = attention_of(stream, op, op_input(graph, op, backward ? WINDOWB_QKV : WINDOW_QKV));

    if (a.tokens % stream->simd->block || a.dim % stream->simd->block)
        return err_set(err, ERR_INVALID,
                       "windows of %d pixels, heads of %d channels; both must be multiples of %d on this processor",
                       (int)a.tokens, (int)a.dim, stream->simd->block);
    scratch_book(op, (size_t)(stream->threads * lay_out(&a, NULL, backward)) * sizeof(float));
    return true;
}

/* Begins another head. */
static void set_head(struct attention *a, int64_t head)
{
    a->head = head;
    a->scale = expf(fminf(a->logit_scale[head], logf(largest_scale)));
    for (int i = 0; i < a->tokens * a->tokens; i++)
        a->bias[i] = a->table[head * a->places + window_distance(&a->grid, i / (int)a->tokens, i % (int)a->tokens)];
}

/* from (rows, columns) to (columns, rows) */
static void turn(const float *from, int64_t rows, int64_t columns, float *to)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++)
            to[c * rows + r] = from[r * columns + c];
}

static int64_t part_at(const struct attention *a, int part)
{
    return part * a->channels + a->head * a->dim;
}

/* Gathers q, k, v of a window, each with its bias, q and k brought to length 1. qkv: of the image. */
static void load_window(struct attention *a, int window, const float *qkv)
{
    for (int t = 0; t < a->tokens; t++)
        a->pixels[t] = window_pixel(&a->grid, window, t);
    for (int part = 0; part < 3; part++) {
        const float *bias = a->qkv_bias + part_at(a, part);

        for (int64_t t = 0; t < a->tokens; t++) {
            const float *from = a->pixels[t] < 0 ? bias : qkv + a->pixels[t] * 3 * a->channels + part_at(a, part);
            float *to = a->parts[part] + t * a->dim;

            if (part == 1 && a->pixels[t] < 0)
                memset(to, 0, (size_t)a->dim * sizeof *to);
            else if (part == 1 || a->pixels[t] < 0)
                memcpy(to, from, (size_t)a->dim * sizeof *to);
            else
                a->simd->add(ACTIVATION_NONE, from, bias, to, a->dim);
            if (part < 2) {
                float length = fmaxf(sqrtf(a->simd->dot(to, to, a->dim)), shortest);

                a->lengths[part][t] = length;
                a->simd->scale(to, 1 / length, to, a->dim);
            }
        }
    }
}

static void multiply(const struct attention *a, int64_t m, int64_t n, int64_t k, float alpha, const float *left,
                     bool turned, const float *right, bool add, float *to)
{
    const struct product product = {.m = m,
                                    .n = n,
                                    .k = k,
                                    .a = left,
                                    .a_row = turned ? 1 : k,
                                    .a_column = turned ? m : 1,
                                    .b = right,
                                    .b_row = n,
                                    .c = to,
                                    .c_row = n,
                                    .alpha = alpha,
                                    .add = add};

    a->simd->small_product(&product);
}

/* Adds the mask to the logits where the window has more than one region. */
static void mask_logits(const struct attention *a, int window)
{
    int tokens = (int)a->tokens, *regions = a->regions;
    bool one = true;

    for (int i = 0; i < tokens; i++) {
        regions[i] = window_region(&a->grid, window, i);
        one = one && regions[i] == regions[0];
    }
    for (int i = 0; i < tokens && !one; i++)
        for (int j = 0; j < tokens; j++)
            a->p[i * tokens + j] += regions[i] == regions[j] ? 0 : masked;
}

/* p: the softmax of the window's logits. */
static void attend(struct attention *a, int window, const float *qkv)
{
    int tokens = (int)a->tokens;

    load_window(a, window, qkv);
    turn(a->parts[1], tokens, a->dim, a->turned[1]);
    memcpy(a->p, a->bias, (size_t)(tokens * tokens) * sizeof *a->p);
    multiply(a, tokens, tokens, a->dim, a->scale, a->parts[0], false, a->turned[1], true, a->p);
    mask_logits(a, window);
    for (int i = 0; i < tokens; i++)
        a->simd->softmax_row(a->p + i * tokens, 1, tokens);
}

bool cpu_window_attention(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *qkv = op_input(graph, op, WINDOW_QKV);
    int64_t pixels = qkv->shape[1] * qkv->shape[2];
    float *y = op_output(graph, op, 0)->data;

    (void)err;
    PARALLEL(stream->threads)
    {
        struct attention a = attention_of(stream, op, qkv);
        int64_t first, last, each = lay_out(&a, NULL, false), of_image = a.grid.rows * a.grid.columns;
        unsigned before = parallel_flush_tiny(); /* as are probabilities behind a mask */

        a.qkv_bias = op_input(graph, op, WINDOW_QKV_BIAS)->data;
        a.logit_scale = op_input(graph, op, WINDOW_LOGIT_SCALE)->data;
        a.table = op_input(graph, op, WINDOW_TABLE)->data;
        lay_out(&a, (float *)op->scratch + parallel_thread() * each, false);
        parallel_share(a.windows * a.heads, 1, &first, &last);
        for (int64_t i = first; i < last; i++) {
            int64_t window = i % a.windows, image = window / of_image;

            if (i / a.windows != a.head)
                set_head(&a, i / a.windows);
            attend(&a, (int)(window % of_image), (const float *)qkv->data + image * pixels * 3 * a.channels);
            multiply(&a, a.tokens, a.dim, a.tokens, 1, a.p, false, a.parts[2], false, a.parts[0]);
            for (int64_t t = 0; t < a.tokens; t++)
                if (a.pixels[t] >= 0)
                    memcpy(y + (image * pixels + a.pixels[t]) * a.channels + a.head * a.dim, a.parts[0] + t * a.dim,
                           (size_t)a.dim * sizeof *y);
        }
        parallel_restore(before);
    }
    return true;
}

/* The head's sum of gradients of pairs of tokens, by their distances, to the thread's; it begins anew. */
static void flush_head(struct attention *a)
{
    for (int i = 0; i < a->tokens * a->tokens; i++) {
        int place = window_distance(&a->grid, i / (int)a->tokens, i % (int)a->tokens);

        dtable_sums(a)[a->head * a->places + place] += a->dbias[i];
        a->dbias[i] = 0;
    }
}

/* Gradients of q and k of length 1 to those before; the sum of q times its gradient is that of the scale. */
static void lengthen(struct attention *a)
{
    for (int part = 0; part < 2; part++)
        for (int64_t t = 0; t < a->tokens; t++) {
            float *d = a->dparts[part] + t * a->dim, *unit = a->parts[part] + t * a->dim;
            float length = a->lengths[part][t], along = a->simd->dot(d, unit, a->dim);

            if (part == 0)
                dscale_sums(a)[a->head] += along;
            if (length > shortest) {
                a->simd->scale(unit, -along, unit, a->dim);
                a->simd->add(ACTIVATION_NONE, d, unit, d, a->dim);
            }
            a->simd->scale(d, 1 / length, d, a->dim);
        }
}

/* The gradients of one window, from dy, to dqkv, both of the image. */
static void window_backward(struct attention *a, int window, const float *qkv, const float *dy, float *dqkv)
{
    int64_t tokens = a->tokens, dim = a->dim;

    attend(a, window, qkv);
    for (int64_t t = 0; t < tokens; t++) {
        if (a->pixels[t] < 0)
            memset(a->dy + t * dim, 0, (size_t)dim * sizeof *dy);
        else
            memcpy(a->dy + t * dim, dy + a->pixels[t] * a->channels + a->head * dim, (size_t)dim * sizeof *dy);
    }
    turn(a->parts[2], tokens, dim, a->turned[2]);
    multiply(a, tokens, tokens, dim, 1, a->dy, false, a->turned[2], false, a->dp);
    multiply(a, tokens, dim, tokens, 1, a->p, true, a->dy, false, a->dparts[2]);
    for (int64_t i = 0; i < tokens; i++) {
        float *p = a->p + i * tokens, *dp = a->dp + i * tokens;

        a->simd->softmax_row_backward(p, a->simd->dot(p, dp, tokens), 1, dp, tokens);
    }
    a->simd->add(ACTIVATION_NONE, a->dbias, a->dp, a->dbias, tokens * tokens);
    multiply(a, tokens, dim, tokens, a->scale, a->dp, false, a->parts[1], false, a->dparts[0]);
    multiply(a, tokens, dim, tokens, a->scale, a->dp, true, a->parts[0], false, a->dparts[1]);
    lengthen(a);
    for (int part = 0; part < 3; part++) {
        float *sum = dqkv_bias_sums(a) + (part ? a->channels : 0) + a->head * dim;

        for (int64_t t = 0; t < tokens; t++) {
            const float *d = a->dparts[part] + t * dim;

            if (part != 1)
                a->simd->add(ACTIVATION_NONE, sum, d, sum, dim);
            if (a->pixels[t] >= 0)
                memcpy(dqkv + a->pixels[t] * 3 * a->channels + part_at(a, part), d, (size_t)dim * sizeof *d);
        }
    }
}

/* Adds the threads' sums, of which each lies `each` floats after the one before, to the gradients. */
static void add_sums(const struct attention *first, int64_t each, int threads, const struct graph *graph,
                     const struct op *op)
{
    float *dtable = op_output(graph, op, WINDOWB_DTABLE)->data, *dbias = op_output(graph, op, WINDOWB_DQKV_BIAS)->data;
    float *dscale = op_output(graph, op, WINDOWB_DLOGIT_SCALE)->data;
    size_t channels = (size_t)first->channels * sizeof(float);
    struct attention a = *first;

    for (int thread = 1; thread < threads; thread++)
        a.simd->add(ACTIVATION_NONE, a.sums, first->sums + thread * each, a.sums, sums_count(&a));
    memcpy(dtable, dtable_sums(&a), (size_t)(a.heads * a.places) * sizeof(float));
    memcpy(dbias, dqkv_bias_sums(&a), channels);
    memset(dbias + a.channels, 0, channels);
    memcpy(dbias + 2 * a.channels, dqkv_bias_sums(&a) + a.channels, channels);
    for (int64_t head = 0; head < a.heads; head++)
        dscale[head] = a.logit_scale[head] <= logf(largest_scale) ? dscale_sums(&a)[head] : 0;
}

bool cpu_window_attention_backward(struct stream *stream, const struct graph *graph, const struct op *op,
                                   struct err *err)
{
    const struct tensor *qkv = op_input(graph, op, WINDOWB_QKV);
    const float *dy = op_input(graph, op, WINDOWB_DY)->data;
    float *dqkv = op_output(graph, op, WINDOWB_DQKV)->data;
    int64_t pixels = qkv->shape[1] * qkv->shape[2];
    struct attention shared = attention_of(stream, op, qkv);
    int64_t each = lay_out(&shared, NULL, true);
    int threads = 1;

    (void)err;
    shared.qkv_bias = op_input(graph, op, WINDOWB_QKV_BIAS)->data;
    shared.logit_scale = op_input(graph, op, WINDOWB_LOGIT_SCALE)->data;
    shared.table = op_input(graph, op, WINDOWB_TABLE)->data;
    PARALLEL(stream->threads)
    {
        struct attention a = shared;
        int64_t first, last, of_image = a.grid.rows * a.grid.columns;
        unsigned before = parallel_flush_tiny();

        lay_out(&a, (float *)op->scratch + parallel_thread() * each, true);
        memset(a.sums, 0, (size_t)sums_count(&a) * sizeof(float));
        memset(a.dbias, 0, (size_t)(a.tokens * a.tokens) * sizeof(float));
        if (parallel_thread() == 0)
            threads = parallel_threads();
        parallel_share(a.windows * a.heads, 1, &first, &last);
        for (int64_t i = first; i < last; i++) {
            int64_t window = i % a.windows, image = window / of_image;

            if (i / a.windows != a.head) {
                if (a.head >= 0)
                    flush_head(&a);
                set_head(&a, i / a.windows);
            }
            window_backward(&a, (int)(window % of_image), (const float *)qkv->data + image * pixels * 3 * a.channels,
                            dy + image * pixels * a.channels, dqkv + image * pixels * 3 * a.channels);
        }
        if (a.head >= 0)
            flush_head(&a);
        parallel_restore(before);
    }
    lay_out(&shared, op->scratch, true);
    add_sums(&shared, each, threads, graph, op);
    return true;
}
