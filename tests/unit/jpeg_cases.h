/* jpeg_cases.h - JPEG files of many kinds, made in memory by libjpeg; for test_jpeg.c and tests/gpu/jpeg.c. */
#ifndef RFUAV_TESTS_JPEG_CASES_H
#define RFUAV_TESTS_JPEG_CASES_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

enum jpeg_content { SMOOTH, NOISE, EXTREMES, BURSTS, JPEG_CONTENTS };

struct jpeg_case {
    int width, height, quality, horizontal, vertical; /* sampling factors of the first component */
    enum jpeg_content content;
    bool progressive, grey, restarts, rgb;
};

struct jpeg_file {
    unsigned char *data;
    unsigned long size;
};

static inline uint32_t jpeg_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    return *state ^= *state << 5;
}

static inline uint8_t jpeg_pixel(const struct jpeg_case *c, int x, int y, int channel, uint32_t *random)
{
    switch (c->content) {
    case SMOOTH:
        return (uint8_t)(x * 255 / c->width / (channel + 1) + y * (50 * channel) / c->height);
    case NOISE:
        return (uint8_t)(jpeg_random(random) >> 13);
    case EXTREMES: /* coefficients as large as they can be */
        return (x / 3 + y / 2 + channel + (int)(jpeg_random(random) >> 30)) % 2 ? 255 : 0;
    default:
        return (uint8_t)((x / 37 % 5 == 1 && y / 23 % 3 == channel ? 200 : 20 * channel) + (jpeg_random(random) >> 27));
    }
}

/* The caller frees data. */
static inline struct jpeg_file jpeg_make(const struct jpeg_case *c)
{
    struct jpeg_compress_struct cinfo;
    struct jpeg_error_mgr errors;
    struct jpeg_file file = {NULL, 0};
    uint8_t *row = malloc(3 * (size_t)c->width);
    uint32_t random = 12345 + (uint32_t)(c->width * 7 + c->quality);

    cinfo.err = jpeg_std_error(&errors);
    jpeg_create_compress(&cinfo);
    jpeg_mem_dest(&cinfo, &file.data, &file.size);
    cinfo.image_width = (JDIMENSION)c->width;
    cinfo.image_height = (JDIMENSION)c->height;
    cinfo.input_components = c->grey ? 1 : 3;
    cinfo.in_color_space = c->grey ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(&cinfo);
    if (c->rgb)
        jpeg_set_colorspace(&cinfo, JCS_RGB);
    jpeg_set_quality(&cinfo, c->quality, TRUE);
    cinfo.comp_info[0].h_samp_factor = c->horizontal;
    cinfo.comp_info[0].v_samp_factor = c->vertical;
    cinfo.restart_in_rows = c->restarts;
    if (c->progressive)
        jpeg_simple_progression(&cinfo);
    jpeg_start_compress(&cinfo, TRUE);
    while (cinfo.next_scanline < cinfo.image_height) {
        int y = (int)cinfo.next_scanline, channels = cinfo.input_components;

        for (int x = 0; x < c->width; x++)
            for (int k = 0; k < channels; k++)
                row[x * channels + k] = jpeg_pixel(c, x, y, k, &random);
        jpeg_write_scanlines(&cinfo, &row, 1);
    }
    jpeg_finish_compress(&cinfo);
    jpeg_destroy_compress(&cinfo);
    free(row);
    return file;
}

#endif
