/* sizes.h - numbers that the forecast in the program (cuda_estimate.c) and the kernels in the object must agree on. */
#ifndef RFUAV_ENGINE_CUDA_SIZES_H
#define RFUAV_ENGINE_CUDA_SIZES_H

#include <stddef.h>
#include <stdint.h>

enum {
    OLDEST_CAPABILITY = 8, /* major compute capability that the kernels are built for */
    BLOCKED_CHANNELS = 16, /* of an image in blocks of four pixels, see stream.h */
    BLOCKED_KERNEL = 4,
    BLOCKED_BORDER = 3,
    WEIGHT_COPY_ALIGNMENT = 256,  /* of the copy in BF16 behind a weight */
    NORM_VECTOR = 8,              /* channels that batch norm takes at once; only then it keeps a mask */
    INPUT_BUFFERS = 2,            /* on the device, which inputs pass through */
    MOST_WORKSPACE = 64 << 20,    /* of a convolution */
    LAYER_NORM_MOST_BLOCKS = 132, /* of the backward, each with sums of its own */
    LAYER_NORM_BLOCK_ROWS = 8,    /* at least */
    LIKELY_WORKSPACE = 16 << 20,
    RECOMPUTE_BYTES = 4 << 20, /* smaller tensors save little, and a launch for each costs as much as reading them */
    WINDOW_SIDE = 8,           /* of the windows of window attention, and channels of its heads: Swin v2's only ones */
    WINDOW_DIM = 32,
    WINDOW_SUMS = 1 << 20, /* at least what its backward leaves of sums */
};

/* How the gradient of a depthwise convolution's weight is cut among blocks of DEPTHWISE_THREADS: `lanes` threads, of
 * two channels each, beside each other; the others share the tiles of DEPTHWISE_TILE outputs of a row. */
enum { DEPTHWISE_THREADS = 256, DEPTHWISE_TILE = 4, DEPTHWISE_BLOCKS = 8 * 132, DEPTHWISE_MOST_LANES = 32 };

struct depthwise_cut {
    int lanes, blocks, parts; /* grid: (blocks, parts) */
};

static inline struct depthwise_cut depthwise_cut_of(int n, int oh, int ow, int channels)
{
    struct depthwise_cut c = {8, 0, 0};
    int64_t tiles = (int64_t)n * oh * ((ow + DEPTHWISE_TILE - 1) / DEPTHWISE_TILE), wanted, most;

    while (c.lanes < DEPTHWISE_MOST_LANES && 2 * c.lanes < channels)
        c.lanes *= 2;
    c.blocks = (channels / 2 + c.lanes - 1) / c.lanes;
    wanted = (tiles + DEPTHWISE_THREADS / c.lanes - 1) / (DEPTHWISE_THREADS / c.lanes);
    most = (DEPTHWISE_BLOCKS + c.blocks - 1) / c.blocks;
    c.parts = (int)(wanted < most ? wanted : most);
    return c;
}

/* Of that gradient: a float for each number of each part. */
static inline size_t depthwise_scratch_bytes(int n, int oh, int ow, int channels, int area)
{
    return (size_t)depthwise_cut_of(n, oh, ow, channels).parts * (size_t)channels * (size_t)area * sizeof(float);
}

#endif
