/* sizes.h - numbers that the forecast in the program (cuda_estimate.c) and the kernels in the object must agree on. */
#ifndef RFUAV_ENGINE_CUDA_SIZES_H
#define RFUAV_ENGINE_CUDA_SIZES_H

enum {
    OLDEST_CAPABILITY = 8, /* major compute capability that the kernels are built for */
    BLOCKED_CHANNELS = 16, /* of an image in blocks of four pixels, see stream.h */
    BLOCKED_KERNEL = 4,
    BLOCKED_BORDER = 3,
    WEIGHT_COPY_ALIGNMENT = 256,  /* of the copy in BF16 behind a weight */
    NORM_VECTOR = 8,              /* channels that batch norm takes at once; only then it keeps a mask */
    INPUT_BUFFERS = 2,            /* on the device, which inputs pass through */
    MOST_WORKSPACE = 64 << 20,    /* of a convolution */
    LAYER_NORM_MOST_BLOCKS = 264, /* of the backward, each with sums of its own */
    LAYER_NORM_BLOCK_ROWS = 32,   /* at least */
    LIKELY_WORKSPACE = 16 << 20,
    RECOMPUTE_BYTES = 8 << 20, /* smaller tensors save little, and a launch for each costs as much as reading them */
    WINDOW_SIDE = 8,           /* of the windows of window attention, and channels of its heads: Swin v2's only ones */
    WINDOW_DIM = 32,
    WINDOW_SUMS = 1 << 20, /* at least what its backward leaves of sums */
};

#endif
