/* attention.h - where a head's matrices lie in the tensors of ATTENTION (op.h), for the backends on the host. */
#ifndef RFUAV_ENGINE_REF_ATTENTION_H
#define RFUAV_ENGINE_REF_ATTENTION_H

#include "engine/graph.h"

/* One head of one image: rows of Q, K, V and of their gradients are `stride` numbers apart, those of y `channels`. */
struct head {
    int64_t tokens, dim, channels, stride;
    int64_t qkv, y, stats; /* where it begins in those tensors */
};

/* Head number `index`, of image index / heads. */
static inline struct head head_of(const struct op *op, const struct tensor *qkv, int64_t index)
{
    int64_t heads = op->attrs.heads, n = index / heads, h = index % heads;
    struct head head = {.tokens = qkv->shape[1], .stride = qkv->shape[2], .channels = qkv->shape[2] / 3};

    head.dim = head.channels / heads;
    head.qkv = n * head.tokens * head.stride + h * head.dim;
    head.y = n * head.tokens * head.channels + h * head.dim;
    head.stats = index * head.tokens;
    return head;
}

#endif
