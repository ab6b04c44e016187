/* signal.c - see signal.h */
#include "data/signal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <fftw3.h>

#include "data/fft_lock.h"

bool signal_init(struct signal *signal, size_t count, double rate, struct err *err)
{
    signal->count = count;
    signal->rate = rate;
    signal->samples = calloc(count, sizeof *signal->samples);
    return signal->samples || err_set(err, ERR_MEMORY, "no memory for %zu samples", count);
}

void signal_release(struct signal *signal)
{
    free(signal->samples);
    *signal = (struct signal){0};
}

void signal_clear(struct signal *signal)
{
    memset(signal->samples, 0, signal->count * sizeof *signal->samples);
}

/* The samples [first, end) that a burst covers; `skipped` of its own lie before the signal's beginning. */
static void burst_range(const struct signal *signal, const struct burst *burst, size_t *first, size_t *end,
                        size_t *skipped)
{
    double from = floor(burst->start * signal->rate), to = from + floor(burst->length * signal->rate);
    double count = (double)signal->count;

    *first = (size_t)fmin(fmax(from, 0), count);
    *end = (size_t)fmin(fmax(to, (double)*first), count);
    *skipped = from < 0 ? (size_t)-from : 0;
}

/* Smooth edges of a burst: 0 to 1 within `ramp` samples. */
static float edge(size_t i, size_t count, size_t ramp)
{
    size_t near = i < count - 1 - i ? i : count - 1 - i;

    return near >= ramp ? 1 : (float)(0.5 - 0.5 * cos(M_PI * ((double)near + 1) / ((double)ramp + 1)));
}

/* Phase in turns back to [0, 1); a step is at most half a turn. */
static double wrap(double turns)
{
    return turns >= 1 ? turns - 1 : turns < 0 ? turns + 1 : turns;
}

void signal_add_gfsk(struct signal *signal, const struct burst *burst, struct random *random)
{
    double bit_rate = burst->bandwidth / 1.3, deviation = bit_rate / 4, step = bit_rate / signal->rate;
    double turns = random_uniform(random), at = 0; /* phase in turns; position within a bit */
    float amplitude = (float)sqrt(burst->power), bit = 1, next = -1;
    size_t first, end, skipped, ramp = (size_t)(signal->rate * 2e-6);

    burst_range(signal, burst, &first, &end, &skipped);
    for (size_t i = first; i < end; i++) {
        double u = at < 0.5 ? 0 : 2 * at - 1, between = u * u * (3 - 2 * u); /* a smooth, Gaussian-like crossing */
        double frequency = burst->center + deviation * (bit + (next - bit) * between);
        float s, c, a = amplitude * edge(i - first, end - first, ramp);

        turns = wrap(turns + frequency / signal->rate);
        sincosf((float)(2 * M_PI * turns), &s, &c);
        signal->samples[i] += a * c + a * s * I;
        at += step;
        if (at >= 1) {
            at -= 1;
            bit = next;
            next = random_u32(random) & 1 ? 1 : -1;
        }
    }
}

void signal_add_tone(struct signal *signal, double frequency, double power)
{
    float amplitude = (float)sqrt(power);
    double turns = 0;

    for (size_t i = 0; i < signal->count; i++) {
        float s, c;

        sincosf((float)(2 * M_PI * turns), &s, &c);
        signal->samples[i] += amplitude * c + amplitude * s * I;
        turns = wrap(turns + frequency / signal->rate);
    }
}

struct ofdm {
    size_t size, prefix;
    fftwf_complex *carriers, *symbol;
    fftwf_plan plan;
};

bool ofdm_open(size_t fft_size, size_t prefix, struct ofdm **ret, struct err *err)
{
    struct ofdm *ofdm = calloc(1, sizeof *ofdm);

    if (!ofdm)
        return err_set(err, ERR_MEMORY, "no memory for an OFDM modulator");
    *ofdm = (struct ofdm){.size = fft_size, .prefix = prefix};
    ofdm->carriers = fftwf_alloc_complex(fft_size);
    ofdm->symbol = fftwf_alloc_complex(fft_size);
    if (ofdm->carriers && ofdm->symbol) {
        fft_lock();
        ofdm->plan = fftwf_plan_dft_1d((int)fft_size, ofdm->carriers, ofdm->symbol, FFTW_BACKWARD, FFTW_ESTIMATE);
        fft_unlock();
    }
    if (!ofdm->plan) {
        ofdm_free(ofdm);
        return err_set(err, ERR_MEMORY, "no memory for an OFDM modulator of %zu subcarriers", fft_size);
    }
    *ret = ofdm;
    return true;
}

struct ofdm *ofdm_free(struct ofdm *ofdm)
{
    if (!ofdm)
        return NULL;
    if (ofdm->plan) {
        fft_lock();
        fftwf_destroy_plan(ofdm->plan);
        fft_unlock();
    }
    fftwf_free(ofdm->carriers);
    fftwf_free(ofdm->symbol);
    free(ofdm);
    return NULL;
}

/* One symbol: `half` subcarriers at each side of bin `center`. */
static void make_symbol(struct ofdm *ofdm, long center, long half, float amplitude, struct random *random)
{
    long size = (long)ofdm->size;

    memset(ofdm->carriers, 0, ofdm->size * sizeof *ofdm->carriers);
    for (long k = -half; k <= half; k++) {
        long bin = ((center + k) % size + size) % size;
        uint32_t bits = random_u32(random);

        if (k != 0)
            ofdm->carriers[bin] = (bits & 1 ? amplitude : -amplitude) + (bits & 2 ? amplitude : -amplitude) * I;
    }
    fftwf_execute(ofdm->plan);
}

void signal_add_ofdm(struct signal *signal, struct ofdm *ofdm, const struct burst *burst, struct random *random)
{
    double spacing = signal->rate / (double)ofdm->size;
    long center = lround(burst->center / spacing), half = lround(burst->bandwidth / spacing / 2);
    size_t first, end, skipped, length = ofdm->size + ofdm->prefix;

    if (half < 1)
        half = 1;
    burst_range(signal, burst, &first, &end, &skipped);
    for (size_t i = first; i < end;) {
        /* |QPSK|² is 2 amplitude², and 2 half carriers add up */
        make_symbol(ofdm, center, half, (float)sqrt(burst->power / (double)(4 * half)), random);
        for (size_t n = i == first ? skipped % length : 0; n < length && i < end; n++, i++)
            signal->samples[i] += ofdm->symbol[(n + ofdm->size - ofdm->prefix) % ofdm->size];
    }
}

void signal_add_echo(struct signal *signal, size_t delay, float complex gain)
{
    if (delay == 0)
        return;
    for (size_t i = signal->count; i-- > delay;) /* from the end, so that the echo has no echo */
        signal->samples[i] += gain * signal->samples[i - delay];
}

void signal_add(struct signal *a, const struct signal *b, float gain)
{
    for (size_t i = 0; i < a->count; i++)
        a->samples[i] += gain * b->samples[i];
}

void signal_add_noise(struct signal *signal, double power, struct random *random)
{
    float sigma = (float)sqrt(power);

    for (size_t i = 0; i < signal->count; i++) { /* Box-Muller; |w|² is exponential with mean `power` */
        float radius = sigma * sqrtf(-logf(((float)random_u32(random) + 1.0f) * 0x1p-32f)), s, c;

        sincosf((float)random_u32(random) * (float)(2 * M_PI * 0x1p-32), &s, &c);
        signal->samples[i] += radius * c + radius * s * I;
    }
}

double signal_active_power(const struct signal *signal)
{
    double sum = 0;
    size_t active = 0;

    for (size_t i = 0; i < signal->count; i++) {
        float re = crealf(signal->samples[i]), im = cimagf(signal->samples[i]);

        if (re != 0 || im != 0) {
            sum += (double)re * re + (double)im * im;
            active++;
        }
    }
    return active ? sum / (double)active : 0;
}

bool signal_write_iq(const struct signal *signal, const char *path, struct err *err)
{
    FILE *file = fopen(path, "wbe");
    bool ok;

    if (!file)
        return err_set(err, ERR_IO, "cannot write %s: %s", path, strerror(errno));
    ok = fwrite(signal->samples, sizeof *signal->samples, signal->count, file) == signal->count;
    if (fclose(file) != 0 || !ok) {
        err_set(err, ERR_IO, "cannot write %s: %s", path, strerror(errno));
        unlink(path);
        return false;
    }
    return true;
}
