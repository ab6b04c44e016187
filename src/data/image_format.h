/* image_format.h - what the decoders of image_*.c share; not for use outside them.
 * A decoder gets a whole file in memory, checks the size with image_new() before it decodes, and reports faults in
 * words about the picture; image.c puts the format's name and the file's path before them. */
#ifndef RFUAV_DATA_IMAGE_FORMAT_H
#define RFUAV_DATA_IMAGE_FORMAT_H

#include "data/image.h"

struct image_source {
    const uint8_t *data;
    size_t size;
    uint64_t max_pixels;
};

/* Checks width and height and allocates zeroed pixels; image_release() on a later failure is the caller's. */
bool image_new(const struct image_source *source, uint64_t width, uint64_t height, struct image *ret, struct err *err);

bool image_decode_jpeg(const struct image_source *source, struct image *ret, struct err *err);
bool image_decode_png(const struct image_source *source, struct image *ret, struct err *err);
bool image_decode_bmp(const struct image_source *source, struct image *ret, struct err *err);
bool image_decode_gif(const struct image_source *source, struct image *ret, struct err *err);
bool image_decode_tiff(const struct image_source *source, struct image *ret, struct err *err);
bool image_decode_pnm(const struct image_source *source, struct image *ret, struct err *err);
bool image_decode_webp(const struct image_source *source, struct image *ret, struct err *err);

/* image_decode() with a bound of its own on the pixels. */
bool image_decode_bounded(const void *data, size_t size, uint64_t max_pixels, struct image *ret, struct err *err);

/* Pillow's conversion of inverted-black ink to light; in (n, 4), out (n, 3). */
void image_cmyk_to_rgb(const uint8_t *in, uint8_t *out, size_t n);

static inline uint32_t read_u16le(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static inline uint32_t read_u32le(const uint8_t *p)
{
    return read_u16le(p) | read_u16le(p + 2) << 16;
}

/* A wide sample as Pillow narrows it: clipped, not scaled. */
static inline uint8_t clip_u8(int64_t value)
{
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

static inline void put_grey(uint8_t *rgb, uint8_t value)
{
    rgb[0] = rgb[1] = rgb[2] = value;
}

#endif
