/* synth.h - simulated recordings of drone radios: per "drone type" (class) a frequency hopping control link and mostly
 * an OFDM video link, in a band with Wi-Fi, short hops of other devices, a spurious carrier, and noise.
 *
 * The parameters of a type follow from its index alone; picture i of a class in a split follows from (seed, split,
 * class, i) alone. Signal-to-noise ratio: with s the sum of the drone's own signals and w the noise,
 *
 *     SNR = 10 log10( mean of |s|² over the samples where s is on  /  mean of |w|² over the whole band ).
 *
 * Interference does not count on either side. */
#ifndef RFUAV_DATA_SYNTH_H
#define RFUAV_DATA_SYNTH_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "data/image.h"
#include "data/signal.h"

enum { SYNTH_MAX_CLASSES = 1000 };

enum hop_pattern { HOP_RANDOM, HOP_UP, HOP_TWO_BANDS, HOP_DOWN, HOP_PATTERNS };

struct drone_type {
    double hop_bandwidth, hop_duration, hop_period, hop_span; /* Hz, s, s, Hz from the lowest to the highest channel */
    int hop_channels;
    enum hop_pattern hop_pattern;
    double video_bandwidth, video_length, video_period; /* Hz, s, s; bandwidth 0: no video link */
};

struct synth_config {
    double rate, duration; /* samples a second, s */
    double snr;            /* dB */
    int window, size;      /* of the transform in samples; of the picture in pixels */
    uint64_t seed;
};

/* The type of class `index` in a band `rate` wide. */
struct drone_type synth_drone_type(size_t index, double rate);
const char *synth_pattern_name(enum hop_pattern pattern);

/* A simulator for one thread. */
struct synth;
bool synth_open(const struct synth_config *config, struct synth **ret, struct err *err);
struct synth *synth_free(struct synth *synth);

/* Simulates recording `i` of class `index` in split `split`; the signal is valid until the next call. */
const struct signal *synth_record(struct synth *synth, size_t index, int split, size_t i);

/* Its spectrogram, (size, size); the image is the simulator's own. */
const struct image *synth_picture(struct synth *synth);

#endif
