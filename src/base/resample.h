/* resample.h - the weights of a bilinear resize with antialias in one direction, as Pillow has them.
 *
 * Source: python-pillow, src/libImaging/Resample.c. A triangle filter whose support grows with the shrink factor gives
 * each output position a run of weights; they are normalised in double and rounded to fixed point. The result of a
 * resize is horizontal first: output i of a row is
 *     (HALF + sum over t < count[i] of weight[i taps + t] input[first[i] + t]) >> RESAMPLE_BITS,
 * at most 255; then the same down the columns of what that gave. All sums fit 32 bits. */
#ifndef RFUAV_BASE_RESAMPLE_H
#define RFUAV_BASE_RESAMPLE_H

#include <stdbool.h>
#include <stdint.h>

enum { RESAMPLE_BITS = 32 - 8 - 2, RESAMPLE_HALF = 1 << (RESAMPLE_BITS - 1) };

struct resample {
    int in_size, out_size;
    int taps; /* a multiple of 4 */
    int32_t *first, *count;
    int32_t *weight; /* (out_size, taps), 0 past the count */
};

/* False without memory; resample_release() either way. Sizes are at least 1. */
bool resample_init(struct resample *resample, int in_size, int out_size);
void resample_release(struct resample *resample);

#endif
