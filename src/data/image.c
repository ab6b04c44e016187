/* image.c - which decoder a picture's first bytes call for, and the bounds that hold for all of them. */
#include "data/image.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/image_format.h"

enum { MAX_FILE_BYTES = 1 << 30 };

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

/* The whole file into *ret_data (malloc'ed). */
static bool read_file(int fd, uint8_t **ret_data, size_t *ret_size, struct err *err)
{
    struct stat st;
    size_t size, have = 0;
    uint8_t *data;

    if (fstat(fd, &st) < 0)
        return err_set(err, ERR_IO, "%s", strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_INVALID, "not a regular file");
    if (st.st_size > MAX_FILE_BYTES)
        return err_set(err, ERR_TOO_LARGE, "the file has %jd bytes, more than the %d allowed", (intmax_t)st.st_size,
                       MAX_FILE_BYTES);
    size = (size_t)st.st_size;
    data = malloc(size ? size : 1);
    if (!data)
        return err_set(err, ERR_MEMORY, "no memory for a file of %zu bytes", size);
    while (have < size) {
        ssize_t n = read(fd, data + have, size - have);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            err_set(err, ERR_IO, "%s", strerror(errno));
            free(data);
            return false;
        }
        if (n == 0) /* it shrank meanwhile */
            break;
        have += (size_t)n;
    }
    *ret_data = data;
    *ret_size = have;
    return true;
}

bool image_read(const char *path, struct image *ret, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK); /* a pipe must not hold us up */
    uint8_t *data = NULL;
    size_t size = 0;
    bool ok;

    if (fd < 0)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", path, strerror(errno));
    ok = read_file(fd, &data, &size, err) && image_decode(data, size, ret, err);
    free(data);
    close(fd);
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
