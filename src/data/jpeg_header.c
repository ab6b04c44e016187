/* jpeg_header.c - see jpeg_header.h. Markers and their segments: ITU-T T.81, annex B. */
#include "data/jpeg_header.h"

#include <string.h>

enum {
    SOI = 0xD8,
    EOI = 0xD9,
    SOF0 = 0xC0,
    DHT = 0xC4,
    DQT = 0xDB,
    SOS = 0xDA,
    APP0 = 0xE0,
    ADOBE = 0xEE, /* APP14: the colours may be others */
    APP15 = 0xEF,
    COM = 0xFE,
};
enum { COMPONENTS = 3, FRAME_BYTES = 6 + 3 * COMPONENTS, SCAN_BYTES = 4 + 2 * COMPONENTS };

static int read_u16be(const uint8_t *p)
{
    return p[0] << 8 | p[1];
}

/* Precision, height, width and components of a frame header. */
static bool read_frame(const uint8_t *p, size_t size, struct jpeg_picture *picture)
{
    static const uint8_t full = 0x11, half = 0x22;

    if (size != FRAME_BYTES || p[0] != 8 || p[5] != COMPONENTS)
        return false;
    picture->height = read_u16be(p + 1);
    picture->width = read_u16be(p + 3);
    for (int c = 0; c < COMPONENTS; c++) {
        const uint8_t *component = p + 6 + 3 * c;

        if (component[0] != c + 1 || (c > 0 && component[1] != full)) /* other names may mean other colours */
            return false;
    }
    picture->subsampled = p[7] == half;
    return (p[7] == half || p[7] == full) && picture->width >= JPEG_LEAST_SIDE && picture->height >= JPEG_LEAST_SIDE;
}

/* All components, all coefficients, in their order. */
static bool read_scan(const uint8_t *p, size_t size)
{
    if (size != SCAN_BYTES || p[0] != COMPONENTS)
        return false;
    for (int c = 0; c < COMPONENTS; c++)
        if (p[1 + 2 * c] != c + 1)
            return false;
    return p[7] == 0 && p[8] == 63 && p[9] == 0;
}

/* Coded data up to the end marker, which must be the end of the file. */
static bool read_data(const uint8_t *p, const uint8_t *end)
{
    while (end - p >= 2 && (p = memchr(p, 0xFF, (size_t)(end - p) - 1))) {
        if (p[1] != 0)
            return p[1] == EOI && p + 2 == end;
        p += 2;
    }
    return false;
}

bool jpeg_header_suits(const void *data, size_t size, struct jpeg_picture *ret)
{
    const uint8_t *p = data, *end = p + size;
    struct jpeg_picture picture = {.data = data, .size = size};
    bool has_frame = false;

    if (size < 4 || p[0] != 0xFF || p[1] != SOI)
        return false;
    for (p += 2; end - p >= 4 && p[0] == 0xFF; p += 2 + read_u16be(p + 2)) {
        int marker = p[1], length = read_u16be(p + 2);

        if (length < 2 || end - p < 2 + length)
            return false;
        if (marker == SOS) {
            if (!has_frame || !read_scan(p + 4, (size_t)length - 2) || !read_data(p + 2 + length, end))
                return false;
            *ret = picture;
            return true;
        }
        if (marker == SOF0) {
            if (has_frame || !read_frame(p + 4, (size_t)length - 2, &picture))
                return false;
            has_frame = true;
        } else if (marker == ADOBE ||
                   (marker != DHT && marker != DQT && marker != COM && (marker < APP0 || marker > APP15))) {
            return false;
        }
    }
    return false;
}
