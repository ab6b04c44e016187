/* norm.h - what the forward and the backward of batch normalisation share: how the work is cut.
 *
 * Channels are independent, so the work is cut into items: the planes of one block of channels, of all images or, when
 * there are too few blocks for the threads, of a part of them. A thread goes over its item twice, once for sums, once
 * for results; the second time it mostly lies in the cache still. Parts of a block are in the same round, so that a
 * barrier makes their sums known to each other. Sums are added in a fixed order. */
#ifndef RFUAV_ENGINE_CPU_NORM_H
#define RFUAV_ENGINE_CPU_NORM_H

#include "engine/cpu/primitive.h"

enum { NORM_MAX_OPERANDS = 4 };

struct norm_state {
    bool blocked;                   /* else the op is `ref`'s */
    int64_t images, blocks, pixels; /* blocks: planes of an image; pixels of a plane */
    int64_t channels;
    int parts, round; /* items of a block; items at once */
    size_t sums;      /* offset in scratch: sums of each item of a round */
    struct operand operands[NORM_MAX_OPERANDS];
};

/* An item: the planes of images [first, last), of one block; which part of the block that is. */
struct norm_item {
    int64_t block, first, last;
    int part;
};

/* Makes op->state; x: an activation that tells shape. sums_bytes: of one item. */
bool norm_prepare(struct stream *stream, struct graph *graph, struct op *op, const struct tensor *x, size_t sums_bytes,
                  struct err *err);

/* Operand i of the state: an activation input, wanted in blocks. NULL tensors are fine. */
bool norm_operand(struct stream *stream, struct op *op, int i, const struct tensor *tensor, struct err *err);

/* Its address, reordered now if necessary. */
bool norm_load(struct stream *stream, const struct op *op, int i, const struct tensor *tensor, const float **ret,
               struct err *err);

/* The item in `slot` (below state->round) of the round that begins at item `begin`; false: none. */
bool norm_item(const struct norm_state *state, int64_t begin, int slot, struct norm_item *ret);

/* Number of the first float of a plane. */
int64_t norm_plane(const struct norm_state *state, int block_size, int64_t image, int64_t block);

/* Channels that block `block` really has; the rest of it is padding. */
int norm_channels(const struct norm_state *state, int block_size, int64_t block);

/* Bytes of the bits of y > 0: one for each number of x in its planes. */
size_t norm_mask_bytes(const struct simd *simd, const struct tensor *x);

#endif
