/* jpeg_picture.h - a JPEG file in memory, as something that decodes and resizes it in one go wants to have it: what its
 * headers say, and the weights of the resize. */
#ifndef RFUAV_BASE_JPEG_PICTURE_H
#define RFUAV_BASE_JPEG_PICTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/resample.h"

/* Baseline, 8 bits, one scan of Y, Cb and Cr without restarts. */
struct jpeg_picture {
    const uint8_t *data;
    size_t size;
    int width, height;
    bool subsampled; /* colours at half the width and height (4:2:0); else at the full (4:4:4) */
    const struct resample *horizontal, *vertical;
};

#endif
