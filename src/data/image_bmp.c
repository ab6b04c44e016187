/* image_bmp.c - Windows and OS/2 bitmaps, in the variants that Pillow reads: 1, 4 and 8 bits with a palette (plain or
 * run-length coded), 16, 24 and 32 bits plain or with the usual channel masks. */
#include "data/image_format.h"

#include <stdlib.h>
#include <string.h>

enum { BI_RGB, BI_RLE8, BI_RLE4, BI_BITFIELDS };
enum { FILE_HEADER = 14, INFO_HEADER = 40, CORE_HEADER = 12 };

/* where a channel lies in a little-endian pixel, and its largest value */
struct channel {
    uint32_t mask, max;
    int shift;
};

struct bmp {
    uint32_t width, height, bits, compression, colors, header_size;
    bool top_down;
    size_t palette_at, pixels_at;
    struct channel channels[3];
    uint8_t palette[256][3];
};

static bool header_size_known(uint32_t size)
{
    return size == CORE_HEADER || size == INFO_HEADER || size == 64 || size == 108 || size == 124;
}

/* the masks Pillow accepts for compression 3; alpha is of no matter here */
static bool masks_known(uint32_t bits, const uint32_t m[3])
{
    static const struct {
        uint32_t bits, mask[3];
    } known[] = {
        {32, {0xFF0000, 0xFF00, 0xFF}}, {32, {0xFF000000, 0xFF0000, 0xFF00}}, {32, {0xFF, 0xFF00, 0xFF0000}},
        {24, {0xFF0000, 0xFF00, 0xFF}}, {16, {0xF800, 0x7E0, 0x1F}},          {16, {0x7C00, 0x3E0, 0x1F}},
    };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].bits == bits && memcmp(known[i].mask, m, sizeof known[i].mask) == 0)
            return true;
    return false;
}

static bool set_channels(struct bmp *bmp, const struct image_source *source, struct err *err)
{
    uint32_t mask[3] = {0xFF0000, 0xFF00, 0xFF};

    if (bmp->bits == 16)
        memcpy(mask, (uint32_t[]){0x7C00, 0x3E0, 0x1F}, sizeof mask);
    if (bmp->compression == BI_BITFIELDS) {
        if (source->size < FILE_HEADER + INFO_HEADER + 12)
            return err_set(err, ERR_INVALID, "the file is truncated in its channel masks");
        for (size_t c = 0; c < 3; c++)
            mask[c] = read_u32le(source->data + FILE_HEADER + INFO_HEADER + 4 * c);
        if (mask[0] == 0 && mask[1] == 0 && mask[2] == 0 && bmp->bits == 32)
            memcpy(mask, (uint32_t[]){0xFF0000, 0xFF00, 0xFF}, sizeof mask);
        else if (!masks_known(bmp->bits, mask))
            return err_set(err, ERR_INVALID, "unsupported channel masks %#x %#x %#x for %u bits", mask[0], mask[1],
                           mask[2], bmp->bits);
        if (bmp->header_size == INFO_HEADER)
            bmp->palette_at += 12;
    }
    for (size_t c = 0; c < 3; c++) {
        int shift = __builtin_ctz(mask[c]);

        bmp->channels[c] = (struct channel){mask[c], mask[c] >> shift, shift};
    }
    return true;
}

static bool read_palette(struct bmp *bmp, const struct image_source *source, struct err *err)
{
    size_t entry = bmp->header_size == CORE_HEADER ? 3 : 4;

    if (bmp->colors == 0 || bmp->colors > 65536)
        return err_set(err, ERR_INVALID, "unsupported palette of %u colours", bmp->colors);
    for (size_t i = 0; i < 256; i++) {
        size_t at = bmp->palette_at + i * entry;

        put_grey(bmp->palette[i], (uint8_t)i);
        if (i < bmp->colors && at + 3 <= source->size)
            for (size_t c = 0; c < 3; c++)
                bmp->palette[i][c] = source->data[at + 2 - c];
    }
    return true;
}

static bool read_info_header(struct bmp *bmp, const uint8_t *h, struct err *err)
{
    if (bmp->header_size == CORE_HEADER) {
        bmp->width = read_u16le(h + 4);
        bmp->height = read_u16le(h + 6);
        bmp->bits = read_u16le(h + 10);
    } else {
        bmp->width = read_u32le(h + 4);
        bmp->height = read_u32le(h + 8);
        bmp->top_down = h[11] == 0xFF; /* a negative height */
        if (bmp->top_down)
            bmp->height = 0 - bmp->height;
        bmp->bits = read_u16le(h + 14);
        bmp->compression = read_u32le(h + 16);
        bmp->colors = read_u32le(h + 32);
    }
    if (bmp->bits != 1 && bmp->bits != 4 && bmp->bits != 8 && bmp->bits != 16 && bmp->bits != 24 && bmp->bits != 32)
        return err_set(err, ERR_INVALID, "unsupported %u bits a pixel (known are 1, 4, 8, 16, 24, 32)", bmp->bits);
    if (bmp->compression == BI_RGB || (bmp->compression == BI_BITFIELDS && bmp->bits >= 16) ||
        (bmp->compression == BI_RLE8 && bmp->bits == 8) || (bmp->compression == BI_RLE4 && bmp->bits == 4))
        return true;
    return err_set(err, ERR_INVALID, "unsupported compression %u with %u bits a pixel", bmp->compression, bmp->bits);
}

static bool read_headers(struct bmp *bmp, const struct image_source *source, struct err *err)
{
    if (source->size < FILE_HEADER + CORE_HEADER)
        return err_set(err, ERR_INVALID, "the file is truncated in its header");
    bmp->pixels_at = read_u32le(source->data + 10);
    bmp->header_size = read_u32le(source->data + FILE_HEADER);
    if (!header_size_known(bmp->header_size))
        return err_set(err, ERR_INVALID, "unsupported header of %u bytes", bmp->header_size);
    if (source->size < FILE_HEADER + bmp->header_size)
        return err_set(err, ERR_INVALID, "the file is truncated in its header");
    if (!read_info_header(bmp, source->data + FILE_HEADER, err))
        return false;
    bmp->palette_at = FILE_HEADER + bmp->header_size;
    if (bmp->bits >= 16)
        return set_channels(bmp, source, err);
    if (bmp->colors == 0)
        bmp->colors = 1u << bmp->bits;
    if (bmp->pixels_at == FILE_HEADER + bmp->header_size) /* some writers forget the palette there */
        bmp->pixels_at += 4 * (size_t)bmp->colors;
    return read_palette(bmp, source, err);
}

/* One row of stored pixels to RGB. */
static void convert_row(const struct bmp *bmp, const uint8_t *in, uint8_t *out)
{
    uint32_t bits = bmp->bits, bytes = bits / 8;

    for (uint32_t x = 0; x < bmp->width; x++, out += 3) {
        if (bits <= 8) {
            uint32_t at = x * bits, shift = 8 - bits - at % 8;

            memcpy(out, bmp->palette[(in[at / 8] >> shift) & ((1u << bits) - 1)], 3);
            continue;
        }
        uint32_t pixel = 0;

        for (uint32_t b = 0; b < bytes; b++)
            pixel |= (uint32_t)in[(size_t)x * bytes + b] << (8 * b);
        for (size_t c = 0; c < 3; c++) {
            const struct channel *channel = &bmp->channels[c];

            out[c] = (uint8_t)(((pixel & channel->mask) >> channel->shift) * 255 / channel->max);
        }
    }
}

static size_t row_at(const struct bmp *bmp, uint32_t y)
{
    return (size_t)(bmp->top_down ? y : bmp->height - 1 - y) * bmp->width * 3;
}

static bool decode_plain(const struct bmp *bmp, const struct image_source *source, struct image *ret, struct err *err)
{
    size_t used = ((size_t)bmp->width * bmp->bits + 7) / 8, stride = (used + 3) / 4 * 4;

    for (uint32_t y = 0; y < bmp->height; y++) {
        size_t at = bmp->pixels_at + y * stride;

        if (at + used > source->size)
            return err_set(err, ERR_INVALID, "the file is truncated: %zu bytes end at row %u of %u", source->size, y,
                           bmp->height);
        convert_row(bmp, source->data + at, ret->rgb + row_at(bmp, y));
    }
    return true;
}

struct pen {
    const struct bmp *bmp;
    uint8_t *rgb;
    uint32_t x, y;
};

static void pen_put(struct pen *pen, uint8_t index)
{
    if (pen->x < pen->bmp->width && pen->y < pen->bmp->height)
        memcpy(pen->rgb + row_at(pen->bmp, pen->y) + 3 * (size_t)pen->x, pen->bmp->palette[index], 3);
    pen->x += pen->x < pen->bmp->width;
}

/* Pixel i of a run: with 4 bits the two halves of a byte take turns. */
static uint8_t run_index(bool rle4, const uint8_t *bytes, uint32_t i)
{
    if (!rle4)
        return bytes[i];
    return i % 2 ? bytes[i / 2] & 15 : bytes[i / 2] >> 4;
}

/* Pairs (count, value); count 0 escapes: 0 end of line, 1 end of picture, 2 move, else that many stored pixels. */
static bool decode_rle(const struct bmp *bmp, const struct image_source *source, struct image *ret, struct err *err)
{
    bool rle4 = bmp->compression == BI_RLE4;
    struct pen pen = {bmp, ret->rgb, 0, 0};
    size_t at = bmp->pixels_at;

    for (uint32_t y = 0; y < bmp->height; y++) /* what no run covers has colour 0 */
        for (uint32_t x = 0; x < bmp->width; x++)
            memcpy(ret->rgb + row_at(bmp, y) + 3 * (size_t)x, bmp->palette[0], 3);
    while (pen.y < bmp->height) {
        uint8_t count, value;
        size_t bytes;

        if (at > source->size || source->size - at < 2) {
            if (pen.y == bmp->height - 1 && pen.x == bmp->width)
                return true;
            return err_set(err, ERR_INVALID, "the file is truncated: %zu bytes end at row %u of %u", source->size,
                           pen.y, bmp->height);
        }
        count = source->data[at];
        value = source->data[at + 1];
        at += 2;
        if (count > 0) {
            uint8_t pair[2] = {rle4 ? value >> 4 : value, rle4 ? value & 15 : value};

            for (uint32_t i = 0; i < count; i++)
                pen_put(&pen, pair[i % 2]);
            continue;
        }
        if (value == 1)
            return true;
        if (value == 0) {
            pen.x = 0;
            pen.y++;
            continue;
        }
        bytes = value == 2 ? 2 : rle4 ? (value + 1u) / 2 : value;
        if (source->size - at < bytes)
            return err_set(err, ERR_INVALID, "the file is truncated in a run of row %u", pen.y);
        if (value == 2) {
            pen.x += source->data[at];
            pen.y += source->data[at + 1];
        } else {
            for (uint32_t i = 0; i < value; i++)
                pen_put(&pen, run_index(rle4, source->data + at, i));
        }
        at += (bytes + 1) / 2 * 2;
    }
    return true;
}

bool image_decode_bmp(const struct image_source *source, struct image *ret, struct err *err)
{
    struct bmp bmp = {0};

    if (!read_headers(&bmp, source, err) || !image_new(source, bmp.width, bmp.height, ret, err))
        return false;
    if (bmp.compression == BI_RLE8 || bmp.compression == BI_RLE4)
        return decode_rle(&bmp, source, ret, err);
    return decode_plain(&bmp, source, ret, err);
}
