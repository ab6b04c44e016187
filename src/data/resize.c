/* resize.c - bilinear resize with antialias, bit for bit as Pillow's ImagingResample on 8-bit RGB.
 *
 * Source: python-pillow, src/libImaging/Resample.c. A triangle filter whose support grows with the shrink factor gives
 * each output position a run of weights; they are normalised in double and rounded to fixed point. The horizontal pass
 * writes 8-bit rows, the vertical pass reads them: that rounding in between is part of the result. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/image.h"
#include "data/resize_kernels.h"

static void weights_release(struct weights *w)
{
    free(w->first);
    free(w->count);
    free(w->weight);
    free(w->split);
}

/* Output position i of n out of in_size: its weights into fixed point. `row` is scratch of w->taps doubles. */
static void weights_fill(struct weights *w, int in_size, int n, int i, double *row)
{
    double scale = (double)in_size / n, filter_scale = scale < 1.0 ? 1.0 : scale;
    double center = (i + 0.5) * scale, inverse = 1.0 / filter_scale, sum = 0.0;
    int first = (int)(center - filter_scale + 0.5), end = (int)(center + filter_scale + 0.5);
    int32_t *weight = w->weight + (size_t)i * (size_t)w->taps;
    int16_t *split = w->split + 2 * (size_t)i * (size_t)w->taps;

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

        weight[t] = (int32_t)(0.5 + value * (1 << PRECISION_BITS));
        split[t / 4 * 8 + t % 4] = (int16_t)(weight[t] >> SPLIT_BITS);
        split[t / 4 * 8 + 4 + t % 4] = (int16_t)(weight[t] & ((1 << SPLIT_BITS) - 1));
    }
}

static bool weights_init(struct weights *w, int in_size, int n)
{
    double scale = (double)in_size / n;
    size_t all;
    double *row;

    memset(w, 0, sizeof *w);
    w->taps = ((int)ceil(scale < 1.0 ? 1.0 : scale) * 2 + 1 + 3) / 4 * 4;
    all = (size_t)n * (size_t)w->taps;
    w->first = calloc((size_t)n, sizeof *w->first);
    w->count = calloc((size_t)n, sizeof *w->count);
    w->weight = calloc(all, sizeof *w->weight);
    w->split = calloc(2 * all, sizeof *w->split);
    row = calloc((size_t)w->taps, sizeof *row);
    if (w->first && w->count && w->weight && w->split && row)
        for (int i = 0; i < n; i++)
            weights_fill(w, in_size, n, i, row);
    free(row);
    return w->first && w->count && w->weight && w->split && row;
}

static void horizontal_plain(const struct weights *weights, int n, const uint8_t *const in[ROWS],
                             uint8_t *const out[ROWS])
{
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < n; i++) {
            const int32_t *weight = weights->weight + (size_t)i * (size_t)weights->taps;
            const uint8_t *p = in[r] + 3 * (size_t)weights->first[i];
            int32_t sum[3] = {HALF, HALF, HALF};

            for (int t = 0; t < weights->count[i]; t++, p += 3)
                for (int c = 0; c < 3; c++)
                    sum[c] += p[c] * weight[t];
            for (int c = 0; c < 3; c++)
                out[r][3 * i + c] = resize_to_byte(sum[c]);
        }
}

static void vertical_plain(const int32_t *weight, int count, const uint8_t *in, size_t bytes, uint8_t *out)
{
    for (size_t j = 0; j < bytes; j++) {
        int32_t sum = HALF;

        for (int t = 0; t < count; t++)
            sum += in[(size_t)t * bytes + j] * weight[t];
        out[j] = resize_to_byte(sum);
    }
}

const struct resize_kernels resize_kernels_plain = {horizontal_plain, vertical_plain};

static const struct resize_kernels *choose_kernels(void)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2"))
        return &resize_kernels_avx2;
#endif
    return &resize_kernels_plain;
}

/* Row y for the horizontal loop, which reads past its end: rows too near the end of the picture are copied first. */
static const uint8_t *readable_row(const struct image *image, size_t y, uint8_t *copy)
{
    size_t bytes = 3 * (size_t)image->width;

    if ((y + 1) * bytes + READ_PAST <= (size_t)image->height * bytes)
        return image->rgb + y * bytes;
    memcpy(copy, image->rgb + y * bytes, bytes);
    return copy;
}

/* All rows of the picture to `width`; out (height, width, 3). */
static bool pass_horizontal(const struct image *image, int width, const struct resize_kernels *kernels, uint8_t *out)
{
    size_t copy_bytes = 3 * (size_t)image->width + READ_PAST, height = (size_t)image->height;
    uint8_t *copies = calloc(ROWS, copy_bytes);
    struct weights w;
    bool ok = weights_init(&w, image->width, width) && copies;

    for (size_t y = 0; ok && y < height; y += ROWS) {
        const uint8_t *in[ROWS];
        uint8_t *to[ROWS];

        for (size_t r = 0; r < ROWS; r++) {
            size_t row = y + r < height ? y + r : height - 1; /* the last again, where there is no more */

            in[r] = readable_row(image, row, copies + r * copy_bytes);
            to[r] = out + row * 3 * (size_t)width;
        }
        kernels->horizontal(&w, width, in, to);
    }
    weights_release(&w);
    free(copies);
    return ok;
}

/* in (in_height, bytes) to out (height, bytes). */
static bool pass_vertical(const uint8_t *in, int in_height, size_t bytes, int height,
                          const struct resize_kernels *kernels, uint8_t *out)
{
    struct weights w;
    bool ok = weights_init(&w, in_height, height);

    for (size_t y = 0; ok && y < (size_t)height; y++)
        kernels->vertical(w.weight + y * (size_t)w.taps, w.count[y], in + (size_t)w.first[y] * bytes, bytes,
                          out + y * bytes);
    weights_release(&w);
    return ok;
}

bool image_resize_with(const struct resize_kernels *kernels, const struct image *image, int width, int height,
                       uint8_t *out, struct err *err)
{
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
        ok = pass_horizontal(image, width, kernels, high ? between : out);
    if (ok && high)
        ok = pass_vertical(wide ? between : rows, image->height, bytes, height, kernels, out);
    free(between);
    return ok || err_set(err, ERR_MEMORY, "no memory to resize a picture of %d x %d to %d x %d", image->width,
                         image->height, width, height);
}

bool image_resize(const struct image *image, int width, int height, uint8_t *out, struct err *err)
{
    return image_resize_with(choose_kernels(), image, width, height, out, err);
}
