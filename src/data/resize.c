/* resize.c - bilinear resize with antialias, bit for bit as Pillow's ImagingResample on 8-bit RGB.
 *
 * Source: python-pillow, src/libImaging/Resample.c. A triangle filter whose support grows with the shrink factor gives
 * each output position a run of weights; they are normalised in double and rounded to fixed point. The horizontal pass
 * writes 8-bit rows, the vertical pass reads them: that rounding in between is part of the result.
 *
 * Speed: a pixel is handled as four 32-bit lanes (the fourth is the next pixel's red, thrown away), so both passes are
 * straight vector code; the same source is compiled for AVX2 as well and chosen at run time. */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/image.h"

enum { PRECISION_BITS = 32 - 8 - 2, HALF = 1 << (PRECISION_BITS - 1) };

typedef uint8_t u8x4 __attribute__((vector_size(4)));
typedef int32_t i32x4 __attribute__((vector_size(16)));
typedef uint8_t u8x16 __attribute__((vector_size(16)));
typedef int32_t i32x16 __attribute__((vector_size(64)));

/* The weights of one direction: output i is the sum over t < count[i] of weight[i * taps + t] * input[first[i] + t]. */
struct weights {
    int taps;
    int *first, *count;
    int32_t *weight;
};

static void weights_release(struct weights *w)
{
    free(w->first);
    free(w->count);
    free(w->weight);
}

/* Output position i of n out of in_size: its weights into fixed point. `row` is scratch of w->taps doubles. */
static void weights_fill(struct weights *w, int in_size, int n, int i, double *row)
{
    double scale = (double)in_size / n, filter_scale = scale < 1.0 ? 1.0 : scale;
    double center = (i + 0.5) * scale, inverse = 1.0 / filter_scale, sum = 0.0;
    int first = (int)(center - filter_scale + 0.5), end = (int)(center + filter_scale + 0.5);

    first = first < 0 ? 0 : first;
    end = end > in_size ? in_size : end;
    w->first[i] = first;
    w->count[i] = end - first;
    for (int t = 0; t < end - first; t++) {
        double x = fabs((t + first - center + 0.5) * inverse);

        row[t] = x < 1.0 ? 1.0 - x : 0.0;
        sum += row[t];
    }
    for (int t = 0; t < end - first; t++) {
        double value = sum != 0.0 ? row[t] / sum : row[t];

        w->weight[(size_t)i * (size_t)w->taps + (size_t)t] = (int32_t)(0.5 + value * (1 << PRECISION_BITS));
    }
}

static bool weights_init(struct weights *w, int in_size, int n)
{
    double scale = (double)in_size / n;
    double *row;

    memset(w, 0, sizeof *w);
    w->taps = (int)ceil(scale < 1.0 ? 1.0 : scale) * 2 + 1;
    w->first = calloc((size_t)n, sizeof *w->first);
    w->count = calloc((size_t)n, sizeof *w->count);
    w->weight = calloc((size_t)n * (size_t)w->taps, sizeof *w->weight);
    row = calloc((size_t)w->taps, sizeof *row);
    if (w->first && w->count && w->weight && row)
        for (int i = 0; i < n; i++)
            weights_fill(w, in_size, n, i, row);
    free(row);
    return w->first && w->count && w->weight && row;
}

static inline uint8_t to_byte(int32_t sum)
{
    sum >>= PRECISION_BITS; /* never negative: the triangle has no negative lobes */
    return (uint8_t)(sum > 255 ? 255 : sum);
}

/* One row: in (in_width, 3) with at least one readable byte after it, out (n, 3). */
__attribute__((always_inline)) static inline void row_horizontal(const struct weights *w, int n, const uint8_t *in,
                                                                 uint8_t *out)
{
    for (int i = 0; i < n; i++) {
        const int32_t *weight = w->weight + (size_t)i * (size_t)w->taps;
        const uint8_t *p = in + 3 * (size_t)w->first[i];
        i32x4 even = {HALF, HALF, HALF, 0}, odd = {0};
        int t = 0, count = w->count[i];

        for (; t + 1 < count; t += 2) {
            u8x4 a, b;

            memcpy(&a, p + 3 * (size_t)t, sizeof a);
            memcpy(&b, p + 3 * (size_t)t + 3, sizeof b);
            even += __builtin_convertvector(a, i32x4) * weight[t];
            odd += __builtin_convertvector(b, i32x4) * weight[t + 1];
        }
        if (t < count) {
            u8x4 a;

            memcpy(&a, p + 3 * (size_t)t, sizeof a);
            even += __builtin_convertvector(a, i32x4) * weight[t];
        }
        even += odd;
        for (int c = 0; c < 3; c++)
            out[3 * i + c] = to_byte(even[c]);
    }
}

/* One row: out[j] = sum of weight[t] * in[t * stride + j], for j < bytes. */
__attribute__((always_inline)) static inline void row_vertical(const int32_t *weight, int count, const uint8_t *in,
                                                               size_t stride, size_t bytes, uint8_t *out)
{
    size_t j = 0;

    for (; j + 16 <= bytes; j += 16) {
        i32x16 sum = (i32x16){0} + HALF;

        for (int t = 0; t < count; t++) {
            u8x16 a;

            memcpy(&a, in + (size_t)t * stride + j, sizeof a);
            sum += __builtin_convertvector(a, i32x16) * weight[t];
        }
        for (int c = 0; c < 16; c++)
            out[j + (size_t)c] = to_byte(sum[c]);
    }
    for (; j < bytes; j++) {
        int32_t sum = HALF;

        for (int t = 0; t < count; t++)
            sum += in[(size_t)t * stride + j] * weight[t];
        out[j] = to_byte(sum);
    }
}

static void horizontal_plain(const struct weights *w, int n, const uint8_t *in, uint8_t *out)
{
    row_horizontal(w, n, in, out);
}

static void vertical_plain(const int32_t *weight, int count, const uint8_t *in, size_t stride, size_t bytes,
                           uint8_t *out)
{
    row_vertical(weight, count, in, stride, bytes, out);
}

#ifdef __x86_64__
__attribute__((target("avx2"))) static void horizontal_avx2(const struct weights *w, int n, const uint8_t *in,
                                                            uint8_t *out)
{
    row_horizontal(w, n, in, out);
}

__attribute__((target("avx2"))) static void vertical_avx2(const int32_t *weight, int count, const uint8_t *in,
                                                          size_t stride, size_t bytes, uint8_t *out)
{
    row_vertical(weight, count, in, stride, bytes, out);
}
#endif

struct passes {
    void (*horizontal)(const struct weights *w, int n, const uint8_t *in, uint8_t *out);
    void (*vertical)(const int32_t *weight, int count, const uint8_t *in, size_t stride, size_t bytes, uint8_t *out);
};

static struct passes choose_passes(void)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2"))
        return (struct passes){horizontal_avx2, vertical_avx2};
#endif
    return (struct passes){horizontal_plain, vertical_plain};
}

/* All rows of the picture to `width`; out (height, width, 3). The last row is read from a copy with a spare byte. */
static bool pass_horizontal(const struct image *image, int width, const struct passes *passes, uint8_t *out)
{
    size_t in_bytes = 3 * (size_t)image->width, out_bytes = 3 * (size_t)width, last = (size_t)image->height - 1;
    uint8_t *copy = malloc(in_bytes + 1);
    struct weights w;
    bool ok = weights_init(&w, image->width, width) && copy;

    if (ok) {
        for (size_t y = 0; y < last; y++)
            passes->horizontal(&w, width, image->rgb + y * in_bytes, out + y * out_bytes);
        memcpy(copy, image->rgb + last * in_bytes, in_bytes);
        copy[in_bytes] = 0;
        passes->horizontal(&w, width, copy, out + last * out_bytes);
    }
    weights_release(&w);
    free(copy);
    return ok;
}

/* in (in_height, bytes) to out (height, bytes). */
static bool pass_vertical(const uint8_t *in, int in_height, size_t bytes, int height, const struct passes *passes,
                          uint8_t *out)
{
    struct weights w;
    bool ok = weights_init(&w, in_height, height);

    for (int y = 0; ok && y < height; y++)
        passes->vertical(w.weight + (size_t)y * (size_t)w.taps, w.count[y], in + (size_t)w.first[y] * bytes, bytes,
                         bytes, out + (size_t)y * bytes);
    weights_release(&w);
    return ok;
}

bool image_resize(const struct image *image, int width, int height, uint8_t *out, struct err *err)
{
    struct passes passes = choose_passes();
    bool wide = width != image->width, high = height != image->height, ok = true;
    size_t bytes = 3 * (size_t)width;
    const uint8_t *rows = image->rgb;
    uint8_t *between = NULL;

    if (width <= 0 || height <= 0)
        return err_set(err, ERR_INVALID, "a picture cannot be resized to %d x %d", width, height);
    if (!wide && !high) {
        memcpy(out, rows, bytes * (size_t)height);
        return true;
    }
    if (wide && high && !(between = malloc(bytes * (size_t)image->height)))
        ok = false;
    if (ok && wide)
        ok = pass_horizontal(image, width, &passes, high ? between : out);
    if (ok && high)
        ok = pass_vertical(wide ? between : rows, image->height, bytes, height, &passes, out);
    free(between);
    return ok || err_set(err, ERR_MEMORY, "no memory to resize a picture of %d x %d to %d x %d", image->width,
                         image->height, width, height);
}
