/* test_image.c - decoding against Pillow (pictures and hashes made by tests/golden/make_image_golden.py), bounds,
 * messages, writing. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "data/image.h"
#include "data/image_format.h"

static uint64_t fnv1a(const uint8_t *data, size_t size)
{
    uint64_t h = 0xCBF29CE484222325u;

    for (size_t i = 0; i < size; i++)
        h = (h ^ data[i]) * 0x100000001B3u;
    return h;
}

static void test_equal_to_pillow(void **state)
{
    FILE *golden = fopen("tests/golden/image_golden.txt", "r");
    char line[200], name[100], path[160];
    int lines = 0, different = 0;

    (void)state;
    assert_non_null(golden);
    while (fgets(line, sizeof line, golden)) {
        struct image image = {0};
        struct err err = {0};
        int w = 0, h = 0, n;
        uint64_t hash = 0;
        bool ok;

        n = sscanf(line, "%99s %d %d %" SCNx64, name, &w, &h, &hash);
        snprintf(path, sizeof path, "tests/golden/images/%s", name);
        ok = image_read(path, &image, &err);
        if (ok != (n == 4)) {
            print_error("%s: %s\n", name, ok ? "read, though Pillow refuses it" : err.message);
            different++;
        } else if (ok &&
                   (image.width != w || image.height != h || fnv1a(image.rgb, (size_t)w * (size_t)h * 3) != hash)) {
            print_error("%s: differs from Pillow\n", name);
            different++;
        } else if (!ok) {
            assert_non_null(strstr(err.message, path));
        }
        image_release(&image);
        lines++;
    }
    fclose(golden);
    assert_int_equal(different, 0);
    assert_true(lines > 70);
}

static void expect_error(const char *file, const char *text)
{
    char path[160];
    struct image image;
    struct err err = {0};

    snprintf(path, sizeof path, "tests/golden/images/%s", file);
    assert_false(image_read(path, &image, &err));
    if (!strstr(err.message, text))
        fail_msg("\"%s\" lacks \"%s\"", err.message, text);
}

static void test_messages(void **state)
{
    (void)state;
    expect_error("bad_truncated.jpg", "JPEG: the file is truncated");
    expect_error("bad_truncated.png", "PNG: the file is truncated");
    expect_error("bad_truncated.bmp", "BMP: the file is truncated");
    expect_error("bad_truncated.gif", "GIF: the file is truncated");
    expect_error("bad_truncated.ppm", "PNM: the file is truncated");
    expect_error("bad_truncated.webp", "WebP: malformed or truncated");
    expect_error("bad_truncated.tif", "TIFF: ");
    expect_error("bad_text.jpg", "not a picture in a known format");
    expect_error("bad_empty.png", "the file is empty");
    expect_error("missing.png", "No such file");
    expect_error("", "not a regular file");
}

static void test_pixel_bound(void **state)
{
    static const char huge[] = "P6 100000 100000 255\n";
    struct image image;
    struct err err = {0};

    (void)state;
    assert_false(image_decode(huge, sizeof huge - 1, &image, &err));
    assert_non_null(strstr(err.message, "more than the 178956970 allowed"));
    assert_false(image_decode_bounded("P5 3 3 255\n123456789", 20, 8, &image, &err));
    assert_true(image_decode_bounded("P5 3 3 255\n123456789", 20, 9, &image, &err));
    assert_int_equal(image.rgb[0], '1');
    image_release(&image);
}

static struct image gradient(int width, int height)
{
    struct image image = {width, height, malloc((size_t)width * (size_t)height * 3)};

    assert_non_null(image.rgb);
    for (int i = 0; i < width * height * 3; i++)
        image.rgb[i] = (uint8_t)(i / 3 % width + i / 3 / width + i % 3 * 20);
    return image;
}

static void test_write(void **state)
{
    char folder[] = "/tmp/rfuav-image-XXXXXX", path[64];
    struct image image = gradient(40, 30), back;
    struct err err = {0};

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/a.png", folder);
    assert_true(image_write_png(path, &image, &err));
    assert_true(image_read(path, &back, &err));
    assert_memory_equal(back.rgb, image.rgb, 40 * 30 * 3);
    image_release(&back);
    unlink(path);
    snprintf(path, sizeof path, "%s/a.jpg", folder);
    assert_true(image_write_jpeg(path, &image, 95, &err));
    assert_true(image_read(path, &back, &err));
    for (int i = 0; i < 40 * 30 * 3; i++)
        assert_in_range(back.rgb[i] - image.rgb[i] + 32, 0, 64);
    image_release(&back);
    unlink(path);
    snprintf(path, sizeof path, "%s/none/a.png", folder);
    assert_false(image_write_png(path, &image, &err));
    assert_false(image_write_jpeg(path, &image, 75, &err));
    assert_non_null(strstr(err.message, path));
    rmdir(folder);
    image_release(&image);
}

static void test_full_disk(void **state)
{
    char folder[] = "/tmp/rfuav-image-XXXXXX", path[64];
    struct image image = gradient(400, 300);
    struct err err = {0};

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/full", folder);
    assert_int_equal(symlink("/dev/full", path), 0); /* what a failed write removes is the link */
    assert_false(image_write_png(path, &image, &err));
    assert_int_equal(symlink("/dev/full", path), 0);
    assert_false(image_write_jpeg(path, &image, 75, &err));
    assert_non_null(strstr(err.message, path));
    assert_int_not_equal(access(path, F_OK), 0);
    rmdir(folder);
    image_release(&image);
}

static void test_draw_text(void **state)
{
    struct image image = {300, 120, calloc(300 * 120, 3)};
    int changed_above = 0, changed = 0;
    struct err err = {0};

    (void)state;
    assert_true(image_draw_text(&image, "无人机 98.76%", 40, 40, 45, 0xFF0000, &err));
    for (int i = 0; i < 300 * 120; i++) {
        const uint8_t *p = image.rgb + 3 * (size_t)i;

        assert_int_equal(p[1] | p[2], 0); /* pure red on black */
        changed += p[0] > 0;
        changed_above += p[0] > 0 && (i / 300 < 40 || i % 300 < 38);
    }
    assert_in_range(changed, 1000, 15000);
    assert_int_equal(changed_above, 0);
    /* partly and wholly outside, not UTF-8, empty: no harm */
    assert_true(image_draw_text(&image, "outside", -20, 100, 45, 0xFF, &err));
    assert_true(image_draw_text(&image, "outside", 5000, 5000, 45, 0xFF, &err));
    assert_true(image_draw_text(&image, "\xff\xfe", 0, 0, 20, 0xFF, &err));
    assert_true(image_draw_text(&image, "", 0, 0, 20, 0xFF, &err));
    image_release(&image);
}

/* The heat map of any number of classes can be read back, and a strong diagonal is dark. */
static void test_confusion(void **state)
{
    static const size_t sizes[] = {1, 2, 37, 100, 300};
    char folder[] = "/tmp/rfuav-image-XXXXXX", path[64];
    struct err err = {0};

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/confusion.png", folder);
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        size_t n = sizes[k], dark = 0;
        int64_t *matrix = calloc(n * n, sizeof *matrix);
        const char **names = calloc(n, sizeof *names);
        struct image image;

        assert_true(matrix && names);
        for (size_t i = 0; i < n; i++) {
            names[i] = i % 2 ? "无人机" : "a class with a name that is far too long to be shown in full";
            matrix[i * n + i] = 1000;
        }
        assert_true(image_write_confusion_png(path, matrix, n, names, &err));
        assert_true(image_read(path, &image, &err));
        for (size_t i = 0; i < (size_t)image.width * (size_t)image.height; i++)
            dark += image.rgb[3 * i] < 20 && image.rgb[3 * i + 2] > 90;
        assert_true(dark > 500);
        image_release(&image);
        free(matrix);
        free(names);
    }
    assert_false(image_write_confusion_png(path, NULL, 0, NULL, &err));
    unlink(path);
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_to_pillow), cmocka_unit_test(test_messages),  cmocka_unit_test(test_pixel_bound),
        cmocka_unit_test(test_write),           cmocka_unit_test(test_full_disk), cmocka_unit_test(test_draw_text),
        cmocka_unit_test(test_confusion),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
