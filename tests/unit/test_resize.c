/* test_resize.c - image_resize() against Pillow: hashes made by tests/golden/make_resize_golden.py. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data/resize_kernels.h"

static struct image picture(int width, int height)
{
    struct image image = {width, height, malloc((size_t)width * (size_t)height * 3)};
    uint8_t *p = image.rgb;

    assert_non_null(p);
    for (uint32_t y = 0; y < (uint32_t)height; y++)
        for (uint32_t x = 0; x < (uint32_t)width; x++)
            for (uint32_t c = 0; c < 3; c++) {
                uint32_t v = x * 2654435761u + y * 2246822519u + c * 3266489917u;
                uint32_t noise = ((v ^ (v >> 15)) * 2246822519u) >> 24, edge = (x / 8 + y / 5 + c) % 2 ? 255 : 0;

                *p++ = (uint8_t)((noise + edge + (x * (c + 1) + y) % 256) / 3);
            }
    return image;
}

static uint64_t fnv1a(const uint8_t *data, size_t size)
{
    uint64_t h = 0xCBF29CE484222325u;

    for (size_t i = 0; i < size; i++)
        h = (h ^ data[i]) * 0x100000001B3u;
    return h;
}

static void compare_with_pillow(const struct resize_kernels *kernels)
{
    FILE *f = fopen("tests/golden/resize_golden.txt", "r");
    int w, h, nw, nh, lines = 0;
    uint64_t hash;
    struct image image = {0};
    struct err err;

    assert_non_null(f);
    while (fscanf(f, "%d %d %d %d %" SCNx64, &w, &h, &nw, &nh, &hash) == 5) {
        size_t bytes = (size_t)nw * (size_t)nh * 3;
        uint8_t *out = malloc(bytes);

        if (w != image.width || h != image.height) {
            image_release(&image);
            image = picture(w, h);
        }
        assert_non_null(out);
        assert_true(image_resize_with(kernels, &image, nw, nh, out, &err));
        if (fnv1a(out, bytes) != hash)
            fail_msg("%d x %d to %d x %d differs from Pillow", w, h, nw, nh);
        free(out);
        lines++;
    }
    fclose(f);
    image_release(&image);
    assert_true(lines >= 150);
}

static void test_plain_equal_to_pillow(void **state)
{
    (void)state;
    compare_with_pillow(&resize_kernels_plain);
}

static void test_avx2_equal_to_pillow(void **state)
{
    (void)state;
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2")) {
        compare_with_pillow(&resize_kernels_avx2);
        return;
    }
#endif
    print_message("this processor has no AVX2\n");
    skip();
}

/* White stays white and one pixel of it is one pixel, also where thousands of weights are rounded. */
static void test_white(void **state)
{
    enum { WIDTH = 60001 };
    struct image image = {WIDTH, 1, malloc(3 * WIDTH)};
    uint8_t out[3 * 3];
    struct err err;

    (void)state;
    assert_non_null(image.rgb);
    memset(image.rgb, 255, 3 * WIDTH);
    assert_true(image_resize(&image, 3, 1, out, &err));
    for (size_t i = 0; i < sizeof out; i++)
        assert_int_equal(out[i], 255);
    image_release(&image);
}

static void test_bad_size(void **state)
{
    struct image image = picture(4, 4);
    uint8_t out[3];
    struct err err;

    (void)state;
    assert_false(image_resize(&image, 0, 1, out, &err));
    assert_false(image_resize(&image, 1, -1, out, &err));
    image_release(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_equal_to_pillow),
        cmocka_unit_test(test_avx2_equal_to_pillow),
        cmocka_unit_test(test_white),
        cmocka_unit_test(test_bad_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
