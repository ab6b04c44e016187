/* iq.c - see iq.h. The picture's columns are made in blocks, which threads take: read the block's samples, transform
 * them, gather the logarithms into the block's columns. So no thread has more than a block's samples, and nothing as
 * large as the whole transform (1024 x 19533 values) is ever there. */
#include "data/iq.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fftw3.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "data/colormap.h"
#include "data/fft_lock.h"

enum { BLOCK = 48, SAMPLE = 2 * sizeof(float) };

/* |sample|² of what is taken for a number of a receiver: beyond it, sums of squares would leave float's range. */
static const float USABLE = 1e30f;

struct iq {
    const char *path;
    int fd;
    uint64_t samples;
    unsigned spare;
    struct iq_config config;
    size_t transforms; /* of a frame */
    double shrink;     /* transforms per column of the picture */
    fftwf_plan plan;
    float *window;                      /* (IQ_WINDOW), over its sum */
    float *plane;                       /* (IQ_WINDOW, width): frequency ascending, time; NaN: nothing there */
    uint8_t colors[COLORMAP_COLORS][3]; /* jet */
};

struct extent {
    float least, greatest;
};

/* What one thread works with. */
struct scratch {
    float *samples;          /* (capacity, 2) */
    size_t capacity;         /* what a block reads */
    uint64_t first;          /* the frame's sample that samples[0] is */
    size_t count;            /* how many are there */
    fftwf_complex *in, *out; /* (IQ_WINDOW) */
    float *levels, *present; /* (IQ_WINDOW) log2 |Z|² of one transform, and 1 where Z is not 0 */
    float *sums, *weights;   /* (BLOCK, IQ_WINDOW) of the block's columns */
    struct extent extent;
    size_t unusable;
};

/* --- opening --------------------------------------------------------------------------------------------------------
 */

static bool measure(struct iq *iq, struct err *err)
{
    struct stat st;

    iq->fd = open(iq->path, O_RDONLY | O_CLOEXEC);
    if (iq->fd < 0 || fstat(iq->fd, &st) < 0)
        return err_set(err, ERR_IO, "%s: %s", iq->path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_IO, "%s is no file", iq->path);
    iq->samples = (uint64_t)st.st_size / SAMPLE;
    iq->spare = (unsigned)((uint64_t)st.st_size % SAMPLE);
    return true;
}

static bool prepare(struct iq *iq, struct err *err)
{
    fftwf_complex *in = fftwf_alloc_complex(IQ_WINDOW), *out = fftwf_alloc_complex(IQ_WINDOW);
    double sum = 0;

    iq->window = calloc(IQ_WINDOW, sizeof *iq->window);
    iq->plane = calloc((size_t)IQ_WINDOW * (size_t)iq->config.width, sizeof *iq->plane);
    if (in && out && iq->window && iq->plane) {
        fft_lock();
        iq->plan = fftwf_plan_dft_1d(IQ_WINDOW, in, out, FFTW_FORWARD, FFTW_ESTIMATE);
        fft_unlock();
    }
    fftwf_free(in);
    fftwf_free(out);
    if (!iq->plan)
        return err_set(err, ERR_MEMORY, "no memory for the spectrogram of %s", iq->path);
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < IQ_WINDOW; i++) {
            double hamming = 0.54 - 0.46 * cos(2 * M_PI * (double)i / (IQ_WINDOW - 1));

            if (pass == 0)
                sum += hamming;
            else
                iq->window[i] = (float)(hamming / sum);
        }
    colormap_jet(iq->colors);
    return true;
}

bool iq_open(const char *path, const struct iq_config *config, struct iq **ret, struct err *err)
{
    struct iq *iq = calloc(1, sizeof *iq);

    if (!iq)
        return err_set(err, ERR_MEMORY, "out of memory");
    iq->path = path;
    iq->fd = -1;
    if (config)
        iq->config = *config;
    iq->config.frame = iq->config.frame ? iq->config.frame : IQ_FRAME;
    iq->config.width = iq->config.width ? iq->config.width : IQ_WIDTH;
    iq->config.height = iq->config.height ? iq->config.height : IQ_HEIGHT;
    /* scipy: half a window of zeros at both ends, then zeros up to a whole number of hops */
    iq->transforms = (iq->config.frame + IQ_HOP - 1) / IQ_HOP + 1;
    iq->shrink = (double)iq->transforms / iq->config.width;
    if (!measure(iq, err) || !prepare(iq, err)) {
        iq_free(iq);
        return false;
    }
    *ret = iq;
    return true;
}

struct iq *iq_free(struct iq *iq)
{
    if (!iq)
        return NULL;
    if (iq->plan) {
        fft_lock();
        fftwf_destroy_plan(iq->plan);
        fft_unlock();
    }
    if (iq->fd >= 0)
        close(iq->fd);
    free(iq->window);
    free(iq->plane);
    free(iq);
    return NULL;
}

uint64_t iq_samples(const struct iq *iq)
{
    return iq->samples;
}

unsigned iq_spare(const struct iq *iq)
{
    return iq->spare;
}

size_t iq_frames(const struct iq *iq)
{
    size_t frame = iq->config.frame;

    return iq->samples < frame ? 0 : (size_t)((iq->samples - frame) / (frame / 2)) + 1;
}

/* --- resampling -----------------------------------------------------------------------------------------------------
 */

/* The values that an element of the picture is made of: [first, end), those nearer than `radius` to `center`. */
struct taps {
    double center, radius;
    size_t first, end;
};

/* Element i of n values' picture, of which each covers `shrink` values. */
static struct taps taps_of(size_t i, double shrink, size_t n)
{
    struct taps taps = {.center = ((double)i + 0.5) * shrink - 0.5, .radius = shrink > 1 ? shrink : 1};
    double first = floor(taps.center - taps.radius) + 1, end = ceil(taps.center + taps.radius);

    taps.first = first < 0 ? 0 : (size_t)first;
    taps.end = end > (double)n ? n : (size_t)end;
    return taps;
}

static float weight_of(const struct taps *taps, size_t i)
{
    return (float)(0.5 + 0.5 * cos(M_PI * ((double)i - taps->center) / taps->radius));
}

/* --- a block of columns ---------------------------------------------------------------------------------------------
 */

static void scratch_release(struct scratch *s)
{
    free(s->samples);
    fftwf_free(s->in);
    fftwf_free(s->out);
    free(s->levels);
    free(s->present);
    free(s->sums);
    free(s->weights);
}

/* To be released in any case. */
static bool scratch_init(struct scratch *s, const struct iq *iq, struct err *err)
{
    double radius = iq->shrink > 1 ? iq->shrink : 1;
    size_t block = (size_t)BLOCK * IQ_WINDOW;

    *s = (struct scratch){.extent = {INFINITY, -INFINITY}};
    s->capacity = ((size_t)(BLOCK * iq->shrink + 2 * radius) + 3) * IQ_HOP + IQ_WINDOW;
    s->samples = malloc(s->capacity * SAMPLE);
    s->in = fftwf_alloc_complex(IQ_WINDOW);
    s->out = fftwf_alloc_complex(IQ_WINDOW);
    s->levels = malloc(IQ_WINDOW * sizeof *s->levels);
    s->present = malloc(IQ_WINDOW * sizeof *s->present);
    s->sums = malloc(block * sizeof *s->sums);
    s->weights = malloc(block * sizeof *s->weights);
    if (s->samples && s->in && s->out && s->levels && s->present && s->sums && s->weights)
        return true;
    return err_set(err, ERR_MEMORY, "no memory for the spectrogram of %s", iq->path);
}

/* Reads samples [first, end) of the frame that begins at sample `start` of the file. */
static bool read_samples(const struct iq *iq, uint64_t start, uint64_t first, uint64_t end, struct scratch *s,
                         struct err *err)
{
    char *to = (char *)s->samples;
    size_t size = (size_t)(end - first) * SAMPLE;

    s->first = first;
    s->count = (size_t)(end - first);
    for (size_t done = 0; done < size;) {
        uint64_t at = (start + first) * SAMPLE + done;
        ssize_t n = pread(iq->fd, to + done, size - done, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, ERR_IO, "%s: %s", iq->path, strerror(errno));
        if (n == 0)
            return err_set(err, ERR_IO, "%s ends at byte %llu, where it had %llu samples before", iq->path,
                           (unsigned long long)at, (unsigned long long)iq->samples);
        done += (size_t)n;
    }
    return true;
}

/* Brings the samples into the machine's own form and puts 0 for those that are no numbers, counting them within
 * [own, own_end): blocks overlap. */
static void clean_samples(struct scratch *s, uint64_t own, uint64_t own_end)
{
    for (size_t i = 0; i < s->count; i++) {
        float *pair = s->samples + 2 * i;
        uint32_t bits[2];

        memcpy(bits, pair, sizeof bits);
        bits[0] = le32toh(bits[0]);
        bits[1] = le32toh(bits[1]);
        memcpy(pair, bits, sizeof bits);
        if (pair[0] * pair[0] + pair[1] * pair[1] <= USABLE) /* not so for NaN */
            continue;
        pair[0] = pair[1] = 0;
        s->unusable += s->first + i >= own && s->first + i < own_end;
    }
}

/* Puts log2 |Z|² of the transform centred on sample t * IQ_HOP into s->levels, the lowest frequency first. */
static void transform(const struct iq *iq, struct scratch *s, size_t t)
{
    int64_t begin = (int64_t)t * IQ_HOP - IQ_WINDOW / 2 - (int64_t)s->first;
    int64_t low = begin < 0 ? -begin : 0, high = (int64_t)s->count - begin;
    float *in = (float *)s->in;
    const float *from = s->samples + 2 * begin, *out = (const float *)s->out;

    high = high > IQ_WINDOW ? IQ_WINDOW : high;
    memset(in, 0, IQ_WINDOW * SAMPLE);
    for (int64_t i = low; i < high; i++) {
        in[2 * i] = iq->window[i] * from[2 * i];
        in[2 * i + 1] = iq->window[i] * from[2 * i + 1];
    }
    fftwf_execute_dft(iq->plan, s->in, s->out);
    for (size_t i = 0; i < IQ_WINDOW; i++) {
        size_t bin = (i + IQ_WINDOW / 2) % IQ_WINDOW;
        float power = out[2 * bin] * out[2 * bin] + out[2 * bin + 1] * out[2 * bin + 1];

        s->present[i] = power > 0;
        s->levels[i] = power > 0 ? log2f(power) : 0;
        if (power > 0) {
            s->extent.least = fminf(s->extent.least, s->levels[i]);
            s->extent.greatest = fmaxf(s->extent.greatest, s->levels[i]);
        }
    }
}

static void gather(struct scratch *s, size_t column, float weight)
{
    float *sums = s->sums + column * IQ_WINDOW, *weights = s->weights + column * IQ_WINDOW;

    for (size_t i = 0; i < IQ_WINDOW; i++) {
        sums[i] += weight * s->levels[i];
        weights[i] += weight * s->present[i];
    }
}

/* Columns [x0, x1) of the plane, of the frame that begins at sample `start` of the file. */
static bool make_block(struct iq *iq, uint64_t start, size_t x0, size_t x1, struct scratch *s, struct err *err)
{
    size_t width = (size_t)iq->config.width, frame = iq->config.frame, next = x0;
    size_t first = taps_of(x0, iq->shrink, iq->transforms).first, end = taps_of(x1 - 1, iq->shrink, iq->transforms).end;
    uint64_t low = (uint64_t)first * IQ_HOP, high = (uint64_t)(end - 1) * IQ_HOP + IQ_WINDOW / 2;

    low = low > IQ_WINDOW / 2 ? low - IQ_WINDOW / 2 : 0;
    if (!read_samples(iq, start, low, high > frame ? frame : high, s, err))
        return false;
    clean_samples(s, (uint64_t)x0 * frame / width, (uint64_t)x1 * frame / width);
    memset(s->sums, 0, (size_t)BLOCK * IQ_WINDOW * sizeof *s->sums);
    memset(s->weights, 0, (size_t)BLOCK * IQ_WINDOW * sizeof *s->weights);
    for (size_t t = first; t < end; t++) {
        transform(iq, s, t);
        for (size_t x = next; x < x1; x++) {
            struct taps taps = taps_of(x, iq->shrink, iq->transforms);

            if (t >= taps.end)
                next = x + 1; /* complete */
            else if (t >= taps.first)
                gather(s, x - x0, weight_of(&taps, t));
            else
                break;
        }
    }
    for (size_t i = 0; i < IQ_WINDOW; i++)
        for (size_t x = x0; x < x1; x++) {
            float sum = s->sums[(x - x0) * IQ_WINDOW + i], weight = s->weights[(x - x0) * IQ_WINDOW + i];

            iq->plane[i * width + x] = weight > 0 ? sum / weight : NAN;
        }
    return true;
}

#ifdef _OPENMP
static int thread_count(const struct iq *iq)
{
    return iq->config.threads > 0 ? iq->config.threads : omp_get_max_threads();
}
#endif

/* Fills the plane; *extent is over the values as transformed. The error is that of any of the threads. */
static bool make_plane(struct iq *iq, uint64_t start, struct extent *extent, size_t *unusable, struct err *err)
{
    size_t width = (size_t)iq->config.width;
    bool failed = false;

#pragma omp parallel num_threads(thread_count(iq))
    {
        struct scratch s;
        struct err why;
        bool ok = scratch_init(&s, iq, &why);

#pragma omp for schedule(dynamic)
        for (size_t x = 0; x < width; x += BLOCK)
            ok = ok && make_block(iq, start, x, x + BLOCK < width ? x + BLOCK : width, &s, &why);
#pragma omp critical
        {
            if (!ok && !failed && err)
                *err = why;
            failed = failed || !ok;
            extent->least = fminf(extent->least, s.extent.least);
            extent->greatest = fmaxf(extent->greatest, s.extent.greatest);
            *unusable += s.unusable;
        }
        scratch_release(&s);
    }
    return !failed;
}

/* --- the picture ----------------------------------------------------------------------------------------------------
 */

static void paint_row(const struct iq *iq, const struct extent *extent, size_t y, uint8_t *rgb)
{
    size_t width = (size_t)iq->config.width, height = (size_t)iq->config.height;
    struct taps taps = taps_of(height - 1 - y, (double)IQ_WINDOW / (double)height, IQ_WINDOW);
    float weights[2 * IQ_WINDOW + 1] = {0}, all = 0, span = extent->greatest - extent->least;

    for (size_t i = taps.first; i < taps.end; i++)
        all += weights[i - taps.first] = weight_of(&taps, i);
    for (size_t x = 0; x < width; x++) {
        float sum = 0;
        int color = 0;

        for (size_t i = taps.first; i < taps.end; i++) {
            float level = iq->plane[i * width + x];

            sum += weights[i - taps.first] * (isnan(level) ? 0 : level - extent->least);
        }
        if (span > 0)
            color = (int)(sum / all / span * COLORMAP_COLORS);
        color = color < 0 ? 0 : color < COLORMAP_COLORS ? color : COLORMAP_COLORS - 1;
        memcpy(rgb + 3 * x, iq->colors[color], 3);
    }
}

bool iq_picture(struct iq *iq, size_t frame, struct image *ret, size_t *unusable, struct err *err)
{
    size_t width = (size_t)iq->config.width, height = (size_t)iq->config.height, bad = 0;
    struct extent extent = {INFINITY, -INFINITY};
    uint8_t *rgb;

    if (frame >= iq_frames(iq))
        return err_set(err, ERR_BUG, "%s has no frame %zu", iq->path, frame);
    if (!make_plane(iq, (uint64_t)frame * (iq->config.frame / 2), &extent, &bad, err))
        return false;
    if (!(rgb = malloc(height * width * 3)))
        return err_set(err, ERR_MEMORY, "no memory for a picture of %zu x %zu", width, height);
#pragma omp parallel for num_threads(thread_count(iq))
    for (size_t y = 0; y < height; y++)
        paint_row(iq, &extent, y, rgb + 3 * y * width);
    *ret = (struct image){(int)width, (int)height, rgb};
    if (unusable)
        *unusable = bad;
    return true;
}
