/* signal.h - complex baseband signals in time: the pieces that a simulated radio recording is put together from.
 * Frequencies are in Hz relative to the middle of the band, times in seconds from the first sample, powers are means
 * of |s|² while a burst is on. Bursts are added to what is there; what lies outside the signal's time is cut off. */
#ifndef RFUAV_DATA_SIGNAL_H
#define RFUAV_DATA_SIGNAL_H

#include <complex.h>
#include <stddef.h>

#include "base/err.h"
#include "base/random.h"

struct signal {
    size_t count;
    double rate; /* samples a second; the band reaches from -rate/2 to rate/2 */
    float complex *samples;
};

bool signal_init(struct signal *signal, size_t count, double rate, struct err *err); /* silence */
void signal_release(struct signal *signal);
void signal_clear(struct signal *signal);

struct burst {
    double start, length;     /* s */
    double center, bandwidth; /* Hz */
    double power;
};

/* Gaussian frequency shift keying (BT about 0.5, modulation index 0.5) of random bits, about `bandwidth` wide. */
void signal_add_gfsk(struct signal *signal, const struct burst *burst, struct random *random);

/* An unmodulated carrier. */
void signal_add_tone(struct signal *signal, double frequency, double power);

/* OFDM: random QPSK on the subcarriers of the band, the one in the middle left out, inverse FFT, cyclic prefix. */
struct ofdm;
bool ofdm_open(size_t fft_size, size_t prefix, struct ofdm **ret, struct err *err);
struct ofdm *ofdm_free(struct ofdm *ofdm);
void signal_add_ofdm(struct signal *signal, struct ofdm *ofdm, const struct burst *burst, struct random *random);

/* A second path: s[n] += gain * s[n - delay]. */
void signal_add_echo(struct signal *signal, size_t delay, float complex gain);

/* a += gain * b; both of the same length. */
void signal_add(struct signal *a, const struct signal *b, float gain);

/* White Gaussian noise: E|w|² = power, over the whole band. */
void signal_add_noise(struct signal *signal, double power, struct random *random);

/* Mean of |s|² over the samples at which the signal is on (not exactly 0); 0 when it never is. */
double signal_active_power(const struct signal *signal);

/* Writes interleaved little-endian float32 I, Q. */
bool signal_write_iq(const struct signal *signal, const char *path, struct err *err);

#endif
