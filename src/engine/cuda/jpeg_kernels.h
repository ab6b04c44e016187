/* jpeg_kernels.h - a batch of pictures from a JPEG's planes to resized RGB (jpeg.cu). */
#ifndef RFUAV_ENGINE_CUDA_JPEG_KERNELS_H
#define RFUAV_ENGINE_CUDA_JPEG_KERNELS_H

#include <cuda_runtime.h>
#include <stdint.h>

#include "engine/jpeg.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A struct resample on the device. */
struct device_resample {
    const int32_t *first, *count, *weight;
    int taps;
};

struct planes {
    const uint8_t *plane[3]; /* Y, Cb, Cr, each dense */
    int width, height, colour_width, colour_height;
    struct device_resample horizontal, vertical;
    uint8_t *between; /* (height, image_size, 3) */
    uint8_t *out;     /* (image_size, image_size, 3) */
};

struct jpeg_launch {
    struct planes pictures[JPEG_BATCH];
    int count, image_size, most_rows; /* most_rows: the largest height */
    int most_columns;                 /* the largest width, at most JPEG_MOST_COLUMNS */
};
enum { JPEG_MOST_COLUMNS = 16000 };

cudaError_t jpeg_resize(cudaStream_t stream, const struct jpeg_launch *launch);

#ifdef __cplusplus
}
#endif

#endif
