/* spectrogram.c - see spectrogram.h */
#include "data/spectrogram.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <fftw3.h>

#include "data/colormap.h"
#include "data/fft_lock.h"

struct spectrogram {
    size_t window, hop;
    float *weights, *bins;       /* (window): Hamming over its sum; |Z|² of the frames of one column */
    fftwf_complex *frame, *line; /* (window) before and after the transform */
    fftwf_plan plan;
};

static pthread_mutex_t planner = PTHREAD_MUTEX_INITIALIZER;

void fft_lock(void)
{
    pthread_mutex_lock(&planner);
}

void fft_unlock(void)
{
    pthread_mutex_unlock(&planner);
}

bool spectrogram_open(size_t window, size_t hop, struct spectrogram **ret, struct err *err)
{
    struct spectrogram *s = calloc(1, sizeof *s);
    double sum = 0;

    if (!s)
        return err_set(err, ERR_MEMORY, "no memory for a spectrogram");
    if (window < 2 || hop < 1) {
        free(s);
        return err_set(err, ERR_INVALID, "a window of %zu samples every %zu", window, hop);
    }
    *s = (struct spectrogram){.window = window, .hop = hop};
    s->weights = calloc(window, sizeof *s->weights);
    s->bins = calloc(window, sizeof *s->bins);
    s->frame = fftwf_alloc_complex(window);
    s->line = fftwf_alloc_complex(window);
    if (s->weights && s->bins && s->frame && s->line) {
        fft_lock();
        s->plan = fftwf_plan_dft_1d((int)window, s->frame, s->line, FFTW_FORWARD, FFTW_ESTIMATE);
        fft_unlock();
    }
    if (!s->plan) {
        spectrogram_free(s);
        return err_set(err, ERR_MEMORY, "no memory for transforms of %zu samples", window);
    }
    for (size_t i = 0; i < window; i++)
        sum += 0.54 - 0.46 * cos(2 * M_PI * (double)i / (double)(window - 1));
    for (size_t i = 0; i < window; i++)
        s->weights[i] = (float)((0.54 - 0.46 * cos(2 * M_PI * (double)i / (double)(window - 1))) / sum);
    *ret = s;
    return true;
}

struct spectrogram *spectrogram_free(struct spectrogram *spectrogram)
{
    if (!spectrogram)
        return NULL;
    if (spectrogram->plan) {
        fft_lock();
        fftwf_destroy_plan(spectrogram->plan);
        fft_unlock();
    }
    free(spectrogram->weights);
    free(spectrogram->bins);
    fftwf_free(spectrogram->frame);
    fftwf_free(spectrogram->line);
    free(spectrogram);
    return NULL;
}

/* Adds |Z|² of the transform centred on sample `center` to s->bins. */
static void add_frame(struct spectrogram *s, const struct signal *signal, size_t center)
{
    size_t half = s->window / 2;

    for (size_t i = 0; i < s->window; i++) {
        size_t at = center + i; /* of sample `at - half` */
        bool inside = at >= half && at - half < signal->count;

        s->frame[i] = inside ? s->weights[i] * signal->samples[at - half] : 0;
    }
    fftwf_execute(s->plan);
    for (size_t i = 0; i < s->window; i++) {
        float re = crealf(s->line[i]), im = cimagf(s->line[i]);

        s->bins[i] += re * re + im * im;
    }
}

/* The part [*from, *to) of n that element i of m covers, never empty. */
static void part(size_t n, size_t m, size_t i, size_t *from, size_t *to)
{
    *from = i * n / m;
    *to = (i + 1) * n / m;
    if (*to == *from)
        *to = *from + 1;
}

void spectrogram_power(struct spectrogram *spectrogram, const struct signal *signal, int width, int height,
                       float *power)
{
    size_t window = spectrogram->window, frames = (signal->count + spectrogram->hop - 1) / spectrogram->hop;

    for (size_t x = 0; x < (size_t)width; x++) {
        size_t first, end, low, high;

        memset(spectrogram->bins, 0, window * sizeof *spectrogram->bins);
        part(frames, (size_t)width, x, &first, &end);
        for (size_t f = first; f < end; f++)
            add_frame(spectrogram, signal, f * spectrogram->hop);
        for (size_t y = 0; y < (size_t)height; y++) {
            float sum = 0;

            part(window, (size_t)height, (size_t)height - 1 - y, &low, &high);
            for (size_t b = low; b < high; b++) /* frequency 0 to the middle */
                sum += spectrogram->bins[b < window / 2 ? b + (window + 1) / 2 : b - window / 2];
            power[y * (size_t)width + x] = sum / (float)((end - first) * (high - low));
        }
    }
}

void spectrogram_colors(const float *power, size_t n, uint8_t *rgb)
{
    float low = INFINITY, high = 0;
    uint8_t colors[COLORMAP_COLORS][3];

    colormap_jet(colors);
    for (size_t i = 0; i < n; i++) {
        if (power[i] > high)
            high = power[i];
        if (power[i] > 0 && power[i] < low)
            low = power[i];
    }
    for (size_t i = 0; i < n; i++) {
        float v = high > low && power[i] > low ? log10f(power[i] / low) / log10f(high / low) : 0;
        int color = (int)(v * COLORMAP_COLORS);

        memcpy(rgb + 3 * i, colors[color < COLORMAP_COLORS ? color : COLORMAP_COLORS - 1], 3);
    }
}
