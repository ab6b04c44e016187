/* test_jpeg.c - what a decoder in hardware is asked for, and that what it gives becomes what libjpeg gives: a stand-in
 * takes the planes from libjpeg and goes on as the GPU does (engine/cuda/ycc.h, base/resample.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "data/image.h"
#include "data/jpeg_header.h"
#include "data/picture_load.h"
#include "engine/cuda/ycc.h"
#include "jpeg_cases.h"

static const struct jpeg_case wanted[] = {
    {180, 120, 75, 2, 2, BURSTS, 0, 0, 0, 0},  {181, 119, 75, 2, 2, NOISE, 0, 0, 0, 0},
    {16, 16, 90, 2, 2, EXTREMES, 0, 0, 0, 0},  {17, 33, 30, 2, 2, SMOOTH, 0, 0, 0, 0},
    {97, 64, 100, 1, 1, EXTREMES, 0, 0, 0, 0}, {64, 97, 50, 1, 1, NOISE, 0, 0, 0, 0},
    {300, 18, 5, 2, 2, EXTREMES, 0, 0, 0, 0},  {18, 301, 95, 2, 2, NOISE, 0, 0, 0, 0},
};

static const struct jpeg_case unwanted[] = {
    {180, 120, 75, 2, 2, BURSTS, .progressive = true},
    {180, 120, 75, 1, 1, BURSTS, .grey = true},
    {180, 120, 75, 2, 2, BURSTS, .restarts = true},
    {180, 120, 75, 1, 1, BURSTS, .rgb = true},
    {180, 120, 75, 2, 1, BURSTS, 0, 0, 0, 0},
    {180, 120, 75, 1, 2, BURSTS, 0, 0, 0, 0},
    {15, 40, 75, 2, 2, BURSTS, 0, 0, 0, 0},
    {40, 15, 75, 2, 2, BURSTS, 0, 0, 0, 0},
};

static void test_header(void **state)
{
    struct jpeg_picture picture;

    (void)state;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        struct jpeg_file file = jpeg_make(&wanted[i]);

        assert_true(jpeg_header_suits(file.data, file.size, &picture));
        assert_int_equal(picture.width, wanted[i].width);
        assert_int_equal(picture.height, wanted[i].height);
        assert_int_equal(picture.subsampled, wanted[i].horizontal == 2);
        for (size_t size = 0; size < file.size; size += 1 + file.size / 200) /* no truncated one is */
            assert_false(jpeg_header_suits(file.data, size, &picture));
        file.data[file.size - 6] = 0xFF; /* nor one with a marker in its data */
        file.data[file.size - 5] = 0xD4;
        assert_false(jpeg_header_suits(file.data, file.size, &picture));
        free(file.data);
    }
    for (size_t i = 0; i < sizeof unwanted / sizeof *unwanted; i++) {
        struct jpeg_file file = jpeg_make(&unwanted[i]);

        assert_false(jpeg_header_suits(file.data, file.size, &picture));
        free(file.data);
    }
}

/* --- the stand-in --------------------------------------------------------------------------------------------------*/

struct plane {
    uint8_t *samples;
    int width, height;
};

static void decode_planes(const void *data, size_t size, struct plane planes[3])
{
    struct jpeg_decompress_struct cinfo;
    struct jpeg_error_mgr errors;
    JSAMPROW rows[3][16];
    JSAMPARRAY arrays[3] = {rows[0], rows[1], rows[2]};

    cinfo.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&cinfo);
    jpeg_mem_src(&cinfo, data, size);
    jpeg_read_header(&cinfo, TRUE);
    cinfo.raw_data_out = TRUE;
    jpeg_start_decompress(&cinfo);
    for (int c = 0; c < 3; c++) {
        planes[c].width = (int)cinfo.comp_info[c].downsampled_width;
        planes[c].height = (int)cinfo.comp_info[c].downsampled_height;
        planes[c].samples = malloc((size_t)(planes[c].width + 32) * (size_t)(planes[c].height + 32));
        for (int r = 0; r < 16; r++)
            rows[c][r] = malloc((size_t)planes[c].width + 64);
    }
    while (cinfo.output_scanline < cinfo.output_height) {
        int at = (int)cinfo.output_scanline, lines = 8 * cinfo.max_v_samp_factor;

        jpeg_read_raw_data(&cinfo, arrays, (JDIMENSION)lines);
        for (int c = 0; c < 3; c++) {
            int v = cinfo.comp_info[c].v_samp_factor, max = cinfo.max_v_samp_factor;

            for (int r = 0; r < 8 * v && at * v / max + r < planes[c].height; r++)
                memcpy(planes[c].samples + (size_t)(at * v / max + r) * (size_t)planes[c].width, rows[c][r],
                       (size_t)planes[c].width);
        }
    }
    jpeg_finish_decompress(&cinfo);
    jpeg_destroy_decompress(&cinfo);
    for (int c = 0; c < 3; c++)
        for (int r = 0; r < 16; r++)
            free(rows[c][r]);
}

/* As jpeg.cu's make_row(), for all rows. */
static uint8_t *planes_to_rgb(const struct plane planes[3])
{
    int width = planes[0].width, height = planes[0].height;
    uint8_t *rgb = malloc(3 * (size_t)width * (size_t)height);
    bool half = planes[1].width != width;

    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            int colour[2];

            for (int c = 0; c < 2; c++) {
                const struct plane *p = &planes[1 + c];
                const uint8_t *near_row = p->samples + (size_t)(half ? y / 2 : y) * (size_t)p->width;
                const uint8_t *far_row = p->samples + (size_t)(half ? ycc_far_row(y, p->height) : y) * (size_t)p->width;

                colour[c] = half ? ycc_upsample(near_row, far_row, p->width, x) : near_row[x];
            }
            ycc_to_rgb(planes[0].samples[(size_t)y * (size_t)width + (size_t)x], colour[0], colour[1],
                       rgb + 3 * ((size_t)y * (size_t)width + (size_t)x));
        }
    return rgb;
}

static void resize_row(const struct resample *r, const uint8_t *in, size_t step, uint8_t *out, size_t out_step)
{
    for (int i = 0; i < r->out_size; i++)
        for (int c = 0; c < 3; c++) {
            int32_t sum = RESAMPLE_HALF;

            for (int t = 0; t < r->count[i]; t++)
                sum += r->weight[i * r->taps + t] * in[(size_t)(r->first[i] + t) * step + (size_t)c];
            sum >>= RESAMPLE_BITS;
            out[(size_t)i * out_step + (size_t)c] = (uint8_t)(sum > 255 ? 255 : sum);
        }
}

static bool stand_in(void *arg, const struct jpeg_picture *picture, uint8_t *out)
{
    size_t size = (size_t)picture->horizontal->out_size, height = (size_t)picture->height;
    uint8_t *between = malloc(3 * size * height), *rgb;
    struct plane planes[3];

    ++*(int *)arg;
    decode_planes(picture->data, picture->size, planes);
    rgb = planes_to_rgb(planes);
    for (size_t y = 0; y < height; y++)
        resize_row(picture->horizontal, rgb + 3 * y * (size_t)picture->width, 3, between + 3 * y * size, 3);
    for (size_t x = 0; x < size; x++)
        resize_row(picture->vertical, between + 3 * x, 3 * size, out + 3 * x, 3 * size);
    for (int c = 0; c < 3; c++)
        free(planes[c].samples);
    free(rgb);
    free(between);
    return true;
}

static void test_planes_become_libjpeg_s_picture(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        struct jpeg_file file = jpeg_make(&wanted[i]);
        struct plane planes[3];
        struct image image;
        struct err err;
        uint8_t *rgb;

        assert_true(image_decode(file.data, file.size, &image, &err));
        decode_planes(file.data, file.size, planes);
        rgb = planes_to_rgb(planes);
        assert_memory_equal(rgb, image.rgb, 3 * (size_t)image.width * (size_t)image.height);
        for (int c = 0; c < 3; c++)
            free(planes[c].samples);
        free(rgb);
        image_release(&image);
        free(file.data);
    }
}

/* Through picture_load(): the same bytes with a decoder and without, which is asked for what it wants alone. */
static void test_load(void **state)
{
    enum { SIZE = 56 };
    int calls = 0;
    struct picture_decoder decoder = {.decode = stand_in, .arg = &calls};
    char path[] = "/tmp/rfuav-jpeg-XXXXXX";
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted + sizeof unwanted / sizeof *unwanted; i++) {
        bool want = i < sizeof wanted / sizeof *wanted;
        struct jpeg_file file = jpeg_make(want ? &wanted[i] : &unwanted[i - sizeof wanted / sizeof *wanted]);
        uint8_t expected[SIZE * SIZE * 3], found[SIZE * SIZE * 3];
        enum picture_origin origin;
        struct err err;

        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(pwrite(fd, file.data, file.size, 0), file.size);
        assert_true(picture_load(path, SIZE, NULL, NULL, expected, &origin, &err));
        assert_int_equal(origin, PICTURE_DECODED);
        assert_true(picture_load(path, SIZE, NULL, &decoder, found, &origin, &err));
        assert_int_equal(origin, want ? PICTURE_BY_DECODER : PICTURE_DECODED);
        assert_memory_equal(found, expected, sizeof found);
        free(file.data);
    }
    assert_int_equal(calls, sizeof wanted / sizeof *wanted);
    close(fd);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_planes_become_libjpeg_s_picture),
        cmocka_unit_test(test_load),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
