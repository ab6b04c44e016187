/* attention.c - multi-head self attention (Vaswani et al. 2017) and its gradient, head by head. See ref.h, op.h
 * stats: for each row of each head's matrix of scores, log(sum(exp(scores))), from which the backward computes the
 * softmax anew. */
#include "engine/ref/attention.h"
#include "engine/ref/ref.h"

#include <math.h>

static double dot(const float *a, const float *b, int64_t count)
{
    double sum = 0;

    for (int64_t i = 0; i < count; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* to += factor from */
static void add(float *to, double factor, const float *from, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        to[i] += (float)factor * from[i];
}

static void clear(float *to, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        to[i] = 0;
}

/* Scratch: one row of scores for each head of each image, so that heads run side by side. */
static bool book_rows(struct op *op, const struct tensor *qkv)
{
    op->scratch_bytes = (size_t)(qkv->shape[0] * op->attrs.heads * qkv->shape[1]) * sizeof(double);
    return true;
}

bool ref_attention_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    const struct tensor *qkv = op_input(graph, op, ATTENTION_QKV);
    struct tensor *stats = op_output(graph, op, ATTENTION_STATS);

    (void)stream, (void)err;
    if (stats)
        stats->bytes = (size_t)(qkv->shape[0] * op->attrs.heads * qkv->shape[1]) * sizeof(float);
    return book_rows(op, qkv);
}

bool ref_attention(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *qkv = op_input(graph, op, ATTENTION_QKV);
    float *stats = ref_f32(op_output(graph, op, ATTENTION_STATS));

    (void)stream, (void)err;
#pragma omp parallel for
    for (int64_t index = 0; index < qkv->shape[0] * op->attrs.heads; index++) {
        const struct head h = head_of(op, qkv, index);
        const float *q = ref_f32(qkv) + h.qkv, *k = q + h.channels, *v = k + h.channels;
        float *y = ref_f32(op_output(graph, op, ATTENTION_Y)) + h.y;
        double *scores = (double *)op->scratch + h.stats;

        for (int64_t i = 0; i < h.tokens; i++) {
            double most = -INFINITY, sum = 0;

            for (int64_t j = 0; j < h.tokens; j++) {
                scores[j] = (double)op->attrs.scale * dot(q + i * h.stride, k + j * h.stride, h.dim);
                most = fmax(most, scores[j]);
            }
            for (int64_t j = 0; j < h.tokens; j++)
                sum += exp(scores[j] - most);
            clear(y + i * h.channels, h.dim);
            for (int64_t j = 0; j < h.tokens; j++)
                add(y + i * h.channels, exp(scores[j] - most) / sum, v + j * h.stride, h.dim);
            if (stats)
                stats[h.stats + i] = (float)(most + log(sum));
        }
    }
    return true;
}

/* With P = softmax(S), S = scale Q K^T, y = P V:
 *   dV = P^T dy, dP = dy V^T, dS = P (dP - rowsum(dy y)), dQ = scale dS K, dK = scale dS^T Q */
bool ref_attention_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *qkv = op_input(graph, op, ATTNB_QKV);
    const float *stats = ref_f32(op_input(graph, op, ATTNB_STATS));
    double scale = (double)op->attrs.scale;

    (void)stream, (void)err;
#pragma omp parallel for
    for (int64_t index = 0; index < qkv->shape[0] * op->attrs.heads; index++) {
        const struct head h = head_of(op, qkv, index);
        const float *q = ref_f32(qkv) + h.qkv, *k = q + h.channels, *v = k + h.channels;
        const float *y = ref_f32(op_input(graph, op, ATTNB_Y)) + h.y,
                    *dy = ref_f32(op_input(graph, op, ATTNB_DY)) + h.y;
        float *dq = ref_f32(op_output(graph, op, 0)) + h.qkv, *dk = dq + h.channels, *dv = dk + h.channels;

        for (int64_t i = 0; i < h.tokens; i++) {
            clear(dq + i * h.stride, h.dim);
            clear(dk + i * h.stride, h.dim);
            clear(dv + i * h.stride, h.dim);
        }
        for (int64_t i = 0; i < h.tokens; i++) {
            const float *dy_i = dy + i * h.channels, *q_i = q + i * h.stride;
            double product = dot(dy_i, y + i * h.channels, h.dim);

            for (int64_t j = 0; j < h.tokens; j++) {
                int64_t at = j * h.stride;
                double p = exp(scale * dot(q_i, k + at, h.dim) - (double)stats[h.stats + i]);
                double ds = p * (dot(dy_i, v + at, h.dim) - product) * scale;

                add(dv + at, p, dy_i, h.dim);
                add(dk + at, ds, q_i, h.dim);
                add(dq + i * h.stride, ds, k + at, h.dim);
            }
        }
    }
    return true;
}
