/* attention.c - multi-head attention: threads share the heads of all images; a head goes block by block of rows of its
 * scores, small enough to stay in the second-level cache, through oneDNN's matrix product. The softmax is computed anew
 * in the backward: keeping it would cost more memory traffic than the product does time. */
#include "engine/ref/attention.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/parallel.h"
#include "engine/cpu/primitive.h"

enum { BLOCK_NUMBERS = 1 << 16 }; /* scores of a block */

/* Rows of scores in a block. */
static int64_t block_rows(int64_t tokens)
{
    int64_t rows = BLOCK_NUMBERS / tokens;

    return rows < 16 ? (tokens < 16 ? tokens : 16) : rows > tokens ? tokens : rows;
}

/* Scratch: `count` blocks for each thread. */
static void book_blocks(struct stream *stream, struct op *op, const struct tensor *qkv, int count)
{
    int64_t tokens = qkv->shape[1];

    scratch_book(op, (size_t)(stream->threads * count * block_rows(tokens) * tokens) * sizeof(float));
}

bool cpu_attention_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    const struct tensor *qkv = op_input(graph, op, ATTENTION_QKV);
    struct tensor *stats = op_output(graph, op, ATTENTION_STATS);

    (void)err;
    if (stats)
        stats->bytes = (size_t)(qkv->shape[0] * op->attrs.heads * qkv->shape[1]) * sizeof(float);
    book_blocks(stream, op, qkv, 1);
    return true;
}

bool cpu_attention_backward_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    (void)err;
    book_blocks(stream, op, op_input(graph, op, ATTNB_QKV), 2);
    return true;
}

static void attend(const struct stream *stream, const struct op *op, const struct head *h, const float *qkv,
                   float *scores, float *y, float *stats)
{
    const float *q = qkv + h->qkv, *k = q + h->channels, *v = k + h->channels;
    int64_t tokens = h->tokens, dim = h->dim, block = block_rows(tokens);

    for (int64_t row = 0; row < tokens; row += block) {
        int64_t rows = tokens - row < block ? tokens - row : block;

        dnnl_sgemm('N', 'T', rows, tokens, dim, 1, q + row * h->stride, h->stride, k, h->stride, 0, scores, tokens);
        for (int64_t i = 0; i < rows; i++) {
            float log_sum = stream->simd->softmax_row(scores + i * tokens, op->attrs.scale, tokens);

            if (stats)
                stats[h->stats + row + i] = log_sum;
        }
        dnnl_sgemm('N', 'N', rows, dim, tokens, 1, scores, tokens, v, h->stride, 0, y + h->y + row * h->channels,
                   h->channels);
    }
}

bool cpu_attention(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *qkv = op_input(graph, op, ATTENTION_QKV), *stats = op_output(graph, op, ATTENTION_STATS);
    int64_t tokens = qkv->shape[1], block = block_rows(tokens) * tokens;

    (void)err;
    PARALLEL(stream->threads)
    {
        int64_t first, last;

        parallel_share(qkv->shape[0] * op->attrs.heads, 1, &first, &last);
        for (int64_t index = first; index < last; index++) {
            const struct head head = head_of(op, qkv, index);

            attend(stream, op, &head, qkv->data, (float *)op->scratch + parallel_thread() * block,
                   op_output(graph, op, ATTENTION_Y)->data, stats ? stats->data : NULL);
        }
    }
    return true;
}

struct backward {
    const struct stream *stream;
    const float *qkv, *y, *dy, *stats;
    float scale, *dqkv, *scores;
};

/* dV += P^T dy, dP = dy V^T, dS = P (dP - rowsum(dy y)), dQ = scale dS K, dK += scale dS^T Q over blocks of rows. */
static void attend_backward(const struct backward *b, const struct head *h)
{
    const float *q = b->qkv + h->qkv, *k = q + h->channels, *v = k + h->channels;
    float *dq = b->dqkv + h->qkv, *dk = dq + h->channels, *dv = dk + h->channels;
    int64_t tokens = h->tokens, dim = h->dim, stride = h->stride, block = block_rows(tokens);
    float *p = b->scores, *dp = p + block * tokens;

    for (int64_t row = 0; row < tokens; row += block) {
        int64_t rows = tokens - row < block ? tokens - row : block;
        const float *dy = b->dy + h->y + row * h->channels, *y = b->y + h->y + row * h->channels;
        float beta = row ? 1 : 0;

        dnnl_sgemm('N', 'T', rows, tokens, dim, 1, q + row * stride, stride, k, stride, 0, p, tokens);
        dnnl_sgemm('N', 'T', rows, tokens, dim, 1, dy, h->channels, v, stride, 0, dp, tokens);
        for (int64_t i = 0; i < rows; i++) {
            float product = b->stream->simd->dot(dy + i * h->channels, y + i * h->channels, dim);

            b->stream->simd->softmax_row_again(p + i * tokens, b->scale, b->stats[h->stats + row + i], tokens);
            b->stream->simd->softmax_row_backward(p + i * tokens, product, b->scale, dp + i * tokens, tokens);
        }
        dnnl_sgemm('T', 'N', tokens, dim, rows, 1, p, tokens, dy, h->channels, beta, dv, stride);
        dnnl_sgemm('T', 'N', tokens, dim, rows, 1, dp, tokens, q + row * stride, stride, beta, dk, stride);
        dnnl_sgemm('N', 'N', rows, dim, tokens, 1, dp, tokens, k, stride, 0, dq + row * stride, stride);
    }
}

bool cpu_attention_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *qkv = op_input(graph, op, ATTNB_QKV);
    int64_t tokens = qkv->shape[1], block = 2 * block_rows(tokens) * tokens;

    (void)err;
    PARALLEL(stream->threads)
    {
        const struct backward backward = {
            .stream = stream,
            .qkv = qkv->data,
            .y = op_input(graph, op, ATTNB_Y)->data,
            .dy = op_input(graph, op, ATTNB_DY)->data,
            .stats = op_input(graph, op, ATTNB_STATS)->data,
            .scale = op->attrs.scale,
            .dqkv = op_output(graph, op, 0)->data,
            .scores = (float *)op->scratch + parallel_thread() * block,
        };
        int64_t first, last;

        parallel_share(qkv->shape[0] * op->attrs.heads, 1, &first, &last);
        for (int64_t index = first; index < last; index++) {
            const struct head head = head_of(op, qkv, index);

            attend_backward(&backward, &head);
        }
    }
    return true;
}
