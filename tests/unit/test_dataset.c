/* test_dataset.c - the order and the faults of a folder of class folders. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "data/dataset.h"

static char root[64];

static void path_of(char *out, size_t size, const char *name)
{
    assert_true(snprintf(out, size, "%s/%s", root, name) < (int)size);
}

static void folder(const char *name)
{
    char path[256];

    path_of(path, sizeof path, name);
    assert_int_equal(mkdir(path, 0755), 0);
}

static void file(const char *name)
{
    char path[256];
    FILE *f;

    path_of(path, sizeof path, name);
    f = fopen(path, "w");
    assert_non_null(f);
    fclose(f);
}

static void link_to(const char *target, const char *name)
{
    char path[256];

    path_of(path, sizeof path, name);
    assert_int_equal(symlink(target, path), 0);
}

static int setup(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/rfuav-dataset-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

static void expect_samples(const struct dataset *dataset, const char *const *paths, const int *labels, size_t n)
{
    assert_int_equal(dataset->count, n);
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(dataset->samples[i].path + strlen(root) + 1, paths[i]);
        assert_int_equal(dataset->samples[i].label, labels[i]);
    }
}

/* the order of torchvision.datasets.ImageFolder: a folder's path as a whole decides, so "sub-x" is before "sub/deep" */
static void test_order(void **state)
{
    static const char *const expected[] = {"B/1.JPG",          "B/2.png",  "B/sub/z.bmp", "B/sub-x/a.webp",
                                           "B/sub/deep/a.pgm", "a/10.tif", "a/9.tiff",    "无人机/x.jpeg"};
    static const int labels[] = {0, 0, 0, 0, 0, 1, 1, 2};
    struct dataset *dataset;
    struct err err;

    (void)state;
    folder("a"), folder("B"), folder("无人机"), folder("B/sub"), folder("B/sub/deep"), folder("B/sub-x");
    file("a/9.tiff"), file("a/10.tif"), file("a/notes.txt"), file("B/2.png"), file("B/1.JPG");
    file("B/sub/z.bmp"), file("B/sub/deep/a.pgm"), file("B/sub-x/a.webp"), file("无人机/x.jpeg"), file("plain.png");
    assert_true(dataset_open(root, NULL, &dataset, &err));
    assert_int_equal(dataset->class_count, 3);
    assert_string_equal(dataset->classes[0], "B");
    assert_string_equal(dataset->classes[2], "无人机");
    expect_samples(dataset, expected, labels, sizeof labels / sizeof *labels);
    dataset_free(dataset);
}

static void test_links(void **state)
{
    static const char *const expected[] = {"a/1.png", "a/linked/2.png", "b/3.png"};
    static const int labels[] = {0, 0, 1};
    struct dataset *dataset;
    struct err err;

    (void)state;
    folder("a"), folder("a/real"), file("a/1.png"), file("a/real/2.png");
    link_to("real", "a/linked"), link_to(".", "a/loop"), link_to("nowhere", "a/broken"), link_to("b.real", "b");
    folder("b.real"), file("b.real/3.png");
    assert_true(dataset_open(root, NULL, &dataset, &err));
    assert_int_equal(dataset->class_count, 3); /* b.real is a class of its own as well */
    assert_int_equal(dataset->count, 4);
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(dataset->samples[i].path + strlen(root) + 1, expected[i]);
        assert_int_equal(dataset->samples[i].label, labels[i]);
    }
    dataset_free(dataset);
}

static void expect_fault(const struct dataset *like, const char *text)
{
    struct dataset *dataset;
    struct err err;

    assert_false(dataset_open(root, like, &dataset, &err));
    if (!strstr(err.message, text))
        fail_msg("\"%s\" lacks \"%s\"", err.message, text);
}

static void test_faults(void **state)
{
    struct dataset *dataset;
    struct err err;

    (void)state;
    expect_fault(NULL, "has no class folders");
    folder("a");
    file("a/readme.txt");
    expect_fault(NULL, "/a has no image");
    assert_false(dataset_open("/nonexistent/folder", NULL, &dataset, &err));
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "/nonexistent/folder"));
    folder("\xff\xfe");
    expect_fault(NULL, "not UTF-8");
}

static void test_like(void **state)
{
    static const char *const names[] = {"a", "b", "c"};
    const struct dataset train = {.class_count = 3, .classes = names};
    struct dataset *dataset;
    struct err err;

    (void)state;
    folder("c"), file("c/1.png");
    assert_true(dataset_open(root, &train, &dataset, &err));
    assert_int_equal(dataset->class_count, 3);
    assert_int_equal(dataset->samples[0].label, 2); /* not 0: D13 of the contract */
    dataset_free(dataset);
    folder("d"), file("d/1.png");
    expect_fault(&train, "/d is not one of the 3 classes");
}

static void test_trailing_slash(void **state)
{
    struct dataset *dataset;
    char path[80];
    struct err err;

    (void)state;
    folder("a"), file("a/1.png");
    snprintf(path, sizeof path, "%s//", root);
    assert_true(dataset_open(path, NULL, &dataset, &err));
    assert_string_equal(dataset->samples[0].path + strlen(root), "/a/1.png");
    dataset_free(dataset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_links, setup, teardown),
        cmocka_unit_test_setup_teardown(test_faults, setup, teardown),
        cmocka_unit_test_setup_teardown(test_like, setup, teardown),
        cmocka_unit_test_setup_teardown(test_trailing_slash, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
