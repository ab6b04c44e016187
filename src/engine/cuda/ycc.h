/* ycc.h - from a JPEG's planes to RGB, as libjpeg does it by default: "fancy" upsampling of colours at half the width
 * and height, and the conversion in fixed point. Sources: libjpeg-turbo, jdsample.c (h2v2_fancy_upsample) and
 * jdcolor.c. C and CUDA C++, so that a test on any machine can hold it against libjpeg. */
#ifndef RFUAV_ENGINE_CUDA_YCC_H
#define RFUAV_ENGINE_CUDA_YCC_H

#include <stdint.h>

#ifdef __CUDACC__
#define YCC_INLINE static inline __host__ __device__
#else
#define YCC_INLINE static inline
#endif

/* The row of a colour plane beside row y / 2 that has a share in row y of the picture; rows: of the plane. */
YCC_INLINE int ycc_far_row(int y, int rows)
{
    int row = y / 2 + (y % 2 ? 1 : -1);

    return row < 0 ? 0 : row >= rows ? rows - 1 : row;
}

/* Sample x of a row of the picture, from the near and the far row of a plane of `columns` (more than 2): 3/4 near and
 * 1/4 far, across as down; at both ends there is no far column. */
YCC_INLINE int ycc_upsample(const uint8_t *near_row, const uint8_t *far_row, int columns, int x)
{
    int column = x / 2, other = column + (x % 2 ? 1 : -1);
    int near_sum = 3 * near_row[column] + far_row[column], far_sum;

    if (other < 0)
        return (4 * near_sum + 8) >> 4;
    if (other >= columns)
        return (4 * near_sum + 7) >> 4;
    far_sum = 3 * near_row[other] + far_row[other];
    return (3 * near_sum + far_sum + (x % 2 ? 7 : 8)) >> 4;
}

YCC_INLINE uint8_t ycc_clip(int value)
{
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

YCC_INLINE void ycc_to_rgb(int y, int cb, int cr, uint8_t *rgb)
{
    cb -= 128;
    cr -= 128;
    rgb[0] = ycc_clip(y + ((91881 * cr + 32768) >> 16));               /* 1.40200 */
    rgb[1] = ycc_clip(y + ((-22554 * cb - 46802 * cr + 32768) >> 16)); /* 0.34414, 0.71414 */
    rgb[2] = ycc_clip(y + ((116130 * cb + 32768) >> 16));              /* 1.77200 */
}

#endif
