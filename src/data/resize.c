/* resize.c - bilinear resize with antialias, bit for bit as Pillow's ImagingResample on 8-bit RGB: base/resample.h has
 * the filter. The horizontal pass writes 8-bit rows, the vertical pass reads them: that rounding in between is part of
 * the result. */
#include <stdlib.h>
#include <string.h>

#include "data/image.h"
#include "data/resize_kernels.h"

static void weights_release(struct weights *w)
{
    resample_release(&w->resample);
    free(w->split);
}

static bool weights_init(struct weights *w, int in_size, int n)
{
    struct resample *r = &w->resample;
    size_t all;

    w->split = NULL;
    if (!resample_init(r, in_size, n))
        return false;
    all = (size_t)n * (size_t)r->taps;
    w->split = calloc(2 * all, sizeof *w->split);
    for (size_t t = 0; w->split && t < all; t++) {
        w->split[t / 4 * 8 + t % 4] = (int16_t)(r->weight[t] >> SPLIT_BITS);
        w->split[t / 4 * 8 + 4 + t % 4] = (int16_t)(r->weight[t] & ((1 << SPLIT_BITS) - 1));
    }
    return w->split;
}

static void horizontal_plain(const struct weights *w, int n, const uint8_t *const in[ROWS], uint8_t *const out[ROWS])
{
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < n; i++) {
            const int32_t *weight = w->resample.weight + (size_t)i * (size_t)w->resample.taps;
            const uint8_t *p = in[r] + 3 * (size_t)w->resample.first[i];
            int32_t sum[3] = {RESAMPLE_HALF, RESAMPLE_HALF, RESAMPLE_HALF};

            for (int t = 0; t < w->resample.count[i]; t++, p += 3)
                for (int c = 0; c < 3; c++)
                    sum[c] += p[c] * weight[t];
            for (int c = 0; c < 3; c++)
                out[r][3 * i + c] = resize_to_byte(sum[c]);
        }
}

static void vertical_plain(const int32_t *weight, int count, const uint8_t *in, size_t bytes, uint8_t *out)
{
    for (size_t j = 0; j < bytes; j++) {
        int32_t sum = RESAMPLE_HALF;

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
        kernels->vertical(w.resample.weight + y * (size_t)w.resample.taps, w.resample.count[y],
                          in + (size_t)w.resample.first[y] * bytes, bytes, out + y * bytes);
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
