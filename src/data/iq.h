/* iq.h - raw recordings: interleaved little-endian float32 I, Q at 100 Ms/s, cut into frames that overlap by half, each
 * of which becomes a spectrogram picture. Of the file only some megabytes are in memory at a time. */
#ifndef RFUAV_DATA_IQ_H
#define RFUAV_DATA_IQ_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "data/image.h"

enum {
    IQ_RATE = 100000000,     /* samples a second */
    IQ_FRAME = IQ_RATE / 10, /* samples */
    IQ_WINDOW = 1024,        /* samples of a transform, hence frequencies of a spectrogram */
    IQ_HOP = IQ_WINDOW / 2,  /* from one transform to the next */
    IQ_WIDTH = 1920,         /* of a picture */
    IQ_HEIGHT = 1440,
};

struct iq;

struct iq_config {
    size_t frame;      /* samples, 2 at least; 0: IQ_FRAME */
    int width, height; /* 0: IQ_WIDTH, IQ_HEIGHT */
    int threads;       /* 0: one per core */
};

/* config: NULL for all as the contract says. `path` must outlive the iq. The error names the file. */
bool iq_open(const char *path, const struct iq_config *config, struct iq **ret, struct err *err);
struct iq *iq_free(struct iq *iq);

uint64_t iq_samples(const struct iq *iq); /* whole ones */
unsigned iq_spare(const struct iq *iq);   /* bytes after the last whole sample */
size_t iq_frames(const struct iq *iq);    /* as many as fit whole, each half a frame after the one before */

/* Makes the picture of a frame: (height, width, 3), time left to right, lowest frequency at the bottom, 10 log10(|Z|)
 * in jet between the frame's least and greatest. Z is the transform under a symmetric Hamming window over its sum, the
 * first centred on the first sample, zeros before and after the frame, as scipy.signal.stft() has it. Where Z is
 * exactly 0 there is no logarithm: such places have the lowest colour and do not count for the least.
 *
 * The values come to the picture's size as matplotlib's imshow() brings them: averaged as logarithms, along either axis
 * with weights 0.5 + 0.5 cos(pi d / r), d the distance to the picture element's centre and r the size of a picture
 * element or of a value, whichever is greater; then they are coloured.
 *
 * *unusable (may be NULL) is how many samples are no numbers that a receiver gives (NaN, infinite, beyond 1e15); they
 * count as 0. Fails without memory, and when the file cannot be read or has become shorter. */
bool iq_picture(struct iq *iq, size_t frame, struct image *ret, size_t *unusable, struct err *err);

#endif
