/* spectrogram.h - a signal's short-time Fourier transform as a picture. */
#ifndef RFUAV_DATA_SPECTROGRAM_H
#define RFUAV_DATA_SPECTROGRAM_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "data/signal.h"

struct spectrogram;

/* Transforms of `window` samples under a symmetric Hamming window, `hop` samples apart, the first centred on the first
 * sample (zeros before and after the signal). */
bool spectrogram_open(size_t window, size_t hop, struct spectrogram **ret, struct err *err);
struct spectrogram *spectrogram_free(struct spectrogram *spectrogram);

/* power: (height, width), mean of |Z|² / sum(window)² over the transforms and bins of each picture element; time runs
 * left to right, the highest frequency is the first row. Accepts any size; elements finer than the transform repeat. */
void spectrogram_power(struct spectrogram *spectrogram, const struct signal *signal, int width, int height,
                       float *power);

/* rgb: (n, 3), 10 log10(power) through the jet colour map between the least and the greatest. */
void spectrogram_colors(const float *power, size_t n, uint8_t *rgb);

#endif
