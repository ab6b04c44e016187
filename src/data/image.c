/* image.c - which decoder a picture's first bytes call for, and the bounds that hold for all of them. */
#include "data/image.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "data/image_file.h"
#include "data/image_format.h"

static const struct format {
    const char *name, *magic;
    size_t offset, size; /* of the magic in the file */
    bool (*decode)(const struct image_source *source, struct image *ret, struct err *err);
} formats[] = {
    {"JPEG", "\xFF\xD8\xFF", 0, 3, image_decode_jpeg},
    {"PNG", "\x89PNG\r\n\x1A\n", 0, 8, image_decode_png},
    {"BMP", "BM", 0, 2, image_decode_bmp},
    {"GIF", "GIF87a", 0, 6, image_decode_gif},
    {"GIF", "GIF89a", 0, 6, image_decode_gif},
    {"TIFF", "II*\0", 0, 4, image_decode_tiff},
    {"TIFF", "MM\0*", 0, 4, image_decode_tiff},
    {"TIFF", "II+\0", 0, 4, image_decode_tiff},
    {"TIFF", "MM\0+", 0, 4, image_decode_tiff},
    {"PNM", "P1", 0, 2, image_decode_pnm},
    {"PNM", "P2", 0, 2, image_decode_pnm},
    {"PNM", "P3", 0, 2, image_decode_pnm},
    {"PNM", "P4", 0, 2, image_decode_pnm},
    {"PNM", "P5", 0, 2, image_decode_pnm},
    {"PNM", "P6", 0, 2, image_decode_pnm},
    {"WebP", "WEBP", 8, 4, image_decode_webp},
};

static const struct format *format_of(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        const struct format *f = &formats[i];

        if (size >= f->offset + f->size && memcmp(data + f->offset, f->magic, f->size) == 0)
            return f;
    }
    return NULL;
}

bool image_new(const struct image_source *source, uint64_t width, uint64_t height, struct image *ret, struct err *err)
{
    if (width == 0 || height == 0)
        return err_set(err, ERR_INVALID, "the picture is empty (%" PRIu64 " x %" PRIu64 " pixels)", width, height);
    if (width > source->max_pixels || height > source->max_pixels / width)
        return err_set(err, ERR_INVALID, "%" PRIu64 " x %" PRIu64 " pixels are more than the %" PRIu64 " allowed",
                       width, height, source->max_pixels);
    ret->rgb = calloc((size_t)(width * height), 3);
    if (!ret->rgb)
        return err_set(err, ERR_MEMORY, "no memory for %" PRIu64 " x %" PRIu64 " pixels", width, height);
    ret->width = (int)width;
    ret->height = (int)height;
    return true;
}

bool image_decode_bounded(const void *data, size_t size, uint64_t max_pixels, struct image *ret, struct err *err)
{
    struct image_source source = {data, size, max_pixels};
    const struct format *format = size ? format_of(data, size) : NULL;
    struct image image = {0};

    if (size == 0)
        return err_set(err, ERR_INVALID, "the file is empty");
    if (!format)
        return err_set(err, ERR_INVALID, "not a picture in a known format (JPEG, PNG, BMP, GIF, TIFF, PNM, WebP)");
    if (!format->decode(&source, &image, err)) {
        image_release(&image);
        return err_prefix(err, "%s", format->name);
    }
    *ret = image;
    return true;
}

bool image_decode(const void *data, size_t size, struct image *ret, struct err *err)
{
    return image_decode_bounded(data, size, IMAGE_MAX_PIXELS, ret, err);
}

bool image_read(const char *path, struct image *ret, struct err *err)
{
    struct image_file file;
    bool ok = image_file_open(path, &file, err) && image_file_read(&file, err) &&
              image_decode(file.data, file.size, ret, err);

    image_file_close(&file);
    return ok || err_prefix(err, "%s", path);
}

void image_release(struct image *image)
{
    free(image->rgb);
    *image = (struct image){0};
}

void image_cmyk_to_rgb(const uint8_t *in, uint8_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++, in += 4, out += 3) {
        int light = 255 - in[3];

        for (int c = 0; c < 3; c++) {
            int product = in[c] * light + 128;

            out[c] = clip_u8(light - ((product + (product >> 8)) >> 8));
        }
    }
}
