/* image_pnm.c - PBM, PGM and PPM, plain (P1 to P3) and raw (P4 to P6), scaled to 8 bits as Pillow does: round half to
 * even; grey of more than 8 bits is scaled to 16 and then clipped at 255. */
#include "data/image_format.h"

#include <math.h>
#include <string.h>

struct pnm {
    const uint8_t *data, *end;
    char kind; /* '1' to '6' */
    uint32_t width, height, max;
};

static bool is_space(int c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int next_byte(struct pnm *pnm)
{
    return pnm->data < pnm->end ? *pnm->data++ : -1;
}

static int skip_comment(struct pnm *pnm)
{
    int c;

    do
        c = next_byte(pnm);
    while (c >= 0 && c != '\n' && c != '\r');
    return c;
}

/* A decimal number and the one blank after it; comments run from # to the end of the line. */
static bool read_number(struct pnm *pnm, const char *what, uint32_t *ret, struct err *err)
{
    uint64_t value = 0;
    int digits = 0, c;

    for (;;) {
        c = next_byte(pnm);
        if (c == '#') {
            skip_comment(pnm);
            continue;
        }
        if (c < 0 || is_space(c)) {
            if (c >= 0 && digits == 0)
                continue;
            break;
        }
        if (c < '0' || c > '9')
            return err_set(err, ERR_INVALID, "%s is no number", what);
        value = 10 * value + (uint64_t)(c - '0');
        if (++digits > 10)
            return err_set(err, ERR_INVALID, "%s has more than 10 digits", what);
    }
    if (digits == 0)
        return err_set(err, ERR_INVALID, "the file is truncated: %s is missing", what);
    if (value > UINT32_MAX)
        return err_set(err, ERR_INVALID, "%s is too large", what);
    *ret = (uint32_t)value;
    return true;
}

static bool read_header(struct pnm *pnm, struct err *err)
{
    pnm->kind = (char)pnm->data[1];
    pnm->data += 2;
    pnm->max = 1;
    if (pnm->data < pnm->end && !is_space(*pnm->data))
        return err_set(err, ERR_INVALID, "no blank after the first two bytes");
    if (!read_number(pnm, "the width", &pnm->width, err) || !read_number(pnm, "the height", &pnm->height, err))
        return false;
    if (pnm->kind == '1' || pnm->kind == '4')
        return true;
    if (!read_number(pnm, "the maximum value", &pnm->max, err))
        return false;
    if (pnm->max == 0 || pnm->max > 65535)
        return err_set(err, ERR_INVALID, "the maximum value must be 1 to 65535, got %u", pnm->max);
    return true;
}

static uint8_t scale(const struct pnm *pnm, uint32_t value)
{
    bool wide_grey = pnm->max > 255 && (pnm->kind == '2' || pnm->kind == '5');

    return clip_u8((int64_t)rint((double)value / pnm->max * (wide_grey ? 65535 : 255)));
}

/* A sample of the plain forms. */
static bool read_plain(struct pnm *pnm, uint8_t *ret, struct err *err)
{
    uint32_t value = 0;

    if (pnm->kind == '1') { /* single digits, blanks between them not needed */
        int c;

        do {
            c = next_byte(pnm);
            if (c == '#')
                c = skip_comment(pnm);
        } while (is_space(c));
        if (c != '0' && c != '1')
            return c < 0 ? err_set(err, ERR_INVALID, "the file is truncated")
                         : err_set(err, ERR_INVALID, "a pixel is neither 0 nor 1");
        *ret = c == '0' ? 255 : 0;
        return true;
    }
    if (!read_number(pnm, "a sample", &value, err))
        return false;
    if (value > pnm->max)
        return err_set(err, ERR_INVALID, "a sample is %u, more than the maximum %u", value, pnm->max);
    *ret = scale(pnm, value);
    return true;
}

static bool decode_plain(struct pnm *pnm, struct image *image, struct err *err)
{
    size_t n = (size_t)image->width * (size_t)image->height;
    int channels = pnm->kind == '3' ? 3 : 1;

    for (size_t i = 0; i < n; i++) {
        uint8_t *rgb = image->rgb + 3 * i;

        for (int c = 0; c < channels; c++)
            if (!read_plain(pnm, &rgb[c], err))
                return false;
        if (channels == 1)
            put_grey(rgb, rgb[0]);
    }
    return true;
}

static bool decode_bits(struct pnm *pnm, struct image *image, struct err *err)
{
    size_t stride = ((size_t)image->width + 7) / 8, width = (size_t)image->width;

    for (size_t y = 0; y < (size_t)image->height; y++, pnm->data += stride) {
        if ((size_t)(pnm->end - pnm->data) < stride)
            return err_set(err, ERR_INVALID, "the file is truncated at row %zu of %d", y, image->height);
        for (size_t x = 0; x < width; x++)
            put_grey(image->rgb + 3 * (y * width + x), pnm->data[x / 8] >> (7 - x % 8) & 1 ? 0 : 255);
    }
    return true;
}

static bool decode_raw(struct pnm *pnm, struct image *image, struct err *err)
{
    size_t n = (size_t)image->width * (size_t)image->height, channels = pnm->kind == '6' ? 3 : 1;
    size_t bytes = pnm->max > 255 ? 2 : 1, have = (size_t)(pnm->end - pnm->data), at = 0;
    uint8_t table[256];

    if (have < n * channels * bytes)
        return err_set(err, ERR_INVALID, "the file is truncated: %zu of %zu bytes of pixels", have,
                       n * channels * bytes);
    for (uint32_t v = 0; v < 256; v++)
        table[v] = scale(pnm, v);
    for (size_t i = 0; i < n; i++) {
        uint8_t *rgb = image->rgb + 3 * i;

        for (size_t c = 0; c < channels; c++, at += bytes)
            rgb[c] = bytes == 1 ? table[pnm->data[at]] : scale(pnm, (uint32_t)pnm->data[at] << 8 | pnm->data[at + 1]);
        if (channels == 1)
            put_grey(rgb, rgb[0]);
    }
    return true;
}

bool image_decode_pnm(const struct image_source *source, struct image *ret, struct err *err)
{
    struct pnm pnm = {.data = source->data, .end = source->data + source->size};

    if (!read_header(&pnm, err) || !image_new(source, pnm.width, pnm.height, ret, err))
        return false;
    if (pnm.kind <= '3')
        return decode_plain(&pnm, ret, err);
    return pnm.kind == '4' ? decode_bits(&pnm, ret, err) : decode_raw(&pnm, ret, err);
}
