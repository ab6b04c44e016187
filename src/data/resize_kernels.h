/* resize_kernels.h - the inner loops of resize.c, in plain C there and with AVX2 in resize_avx2.c; not for use outside
 * them. Both give the same bytes: all sums are exact in 32 bits. */
#ifndef RFUAV_DATA_RESIZE_KERNELS_H
#define RFUAV_DATA_RESIZE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "base/resample.h"
#include "data/image.h"

/* ROWS: the horizontal loop's rows at a time; READ_PAST: bytes that it may read past a row's end. */
enum { ROWS = 4, READ_PAST = 13 };

/* split: for every four weights eight words, their upper halves (weight >> SPLIT_BITS) and their lower ones. */
enum { SPLIT_BITS = 11 };
struct weights {
    struct resample resample;
    int16_t *split;
};

struct resize_kernels {
    /* ROWS rows of RGB to n pixels each; rows may be the same */
    void (*horizontal)(const struct weights *weights, int n, const uint8_t *const in[ROWS], uint8_t *const out[ROWS]);
    /* out[j] = sum over t < count of weight[t] * in[t * bytes + j], for j < bytes */
    void (*vertical)(const int32_t *weight, int count, const uint8_t *in, size_t bytes, uint8_t *out);
};

extern const struct resize_kernels resize_kernels_plain;
#ifdef __x86_64__
extern const struct resize_kernels resize_kernels_avx2;
#endif

/* image_resize() with these loops. */
bool image_resize_with(const struct resize_kernels *kernels, const struct image *image, int width, int height,
                       uint8_t *out, struct err *err);

/* A sum of weighted bytes with RESAMPLE_HALF added; never negative, since the triangle has no negative lobes. */
static inline uint8_t resize_to_byte(int32_t sum)
{
    sum >>= RESAMPLE_BITS;
    return (uint8_t)(sum > 255 ? 255 : sum);
}

#endif
