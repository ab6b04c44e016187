/* image.h - pictures as RGB bytes: read, resize, write. The only user of the image libraries. */
#ifndef RFUAV_DATA_IMAGE_H
#define RFUAV_DATA_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct image {
    int width, height;
    uint8_t *rgb; /* (height, width, 3), malloc'ed */
};

/* Decodes JPEG, PNG, BMP, GIF (first frame), TIFF (first page), PPM/PGM or WebP, told apart by content, to RGB as
 * Pillow's convert("RGB") does: alpha dropped, grey spread, palettes resolved, CMYK converted. A picture of more than
 * IMAGE_MAX_PIXELS is refused. */
enum { IMAGE_MAX_PIXELS = 178956970 }; /* Pillow's own bound */
bool image_decode(const void *data, size_t size, struct image *ret, struct err *err);
bool image_read(const char *path, struct image *ret, struct err *err); /* the error names the file */
void image_release(struct image *image);

/* Bilinear with antialias to width x height, bit for bit Pillow's Image.resize(BILINEAR) on 8-bit RGB.
 * out: (height, width, 3). Fails only without memory. */
bool image_resize(const struct image *image, int width, int height, uint8_t *out, struct err *err);

bool image_write_jpeg(const char *path, const struct image *image, int quality, struct err *err);
bool image_write_png(const char *path, const struct image *image, struct err *err);

/* Draws UTF-8 text (any script with a font on the machine) with its top left corner at (x, y), `size` pixels high,
 * serif. */
bool image_draw_text(struct image *image, const char *text, int x, int y, int size, uint32_t rgb, struct err *err);

/* Writes a confusion matrix (n, n), rows true and columns predicted, as a labelled heat map in PNG. */
bool image_write_confusion_png(const char *path, const int64_t *matrix, size_t n, const char *const *names,
                               struct err *err);

/* Has text drawn with the fonts that a bundle brings along, where there are any (share/rfuav/fonts.conf). To be called
 * before other threads run. */
void image_find_fonts(void);

#endif
