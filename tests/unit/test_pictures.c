/* test_pictures.c - the way of pictures through an inference: order, few in memory, unreadable ones, failed writing,
 * leaving in the middle; and the list of files that it begins with. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "data/image.h"
#include "task/files.h"
#include "task/infer_source.h"
#include "task/pictures.h"

enum { COUNT = 23, BAD = 5, SIZE = 8 };

static char folder[] = "/tmp/rfuav-pictures-XXXXXX";
static struct arena *arena;

static void remove_all(const char *path)
{
    char command[128];

    snprintf(command, sizeof command, "rm -rf '%s'", path);
    assert_int_equal(system(command), 0);
}

static void write_file(const char *name, const char *content)
{
    FILE *file = fopen(name, "w");

    assert_non_null(file);
    fputs(content, file);
    fclose(file);
}

/* A picture of one grey, which tells it from the others. */
static void write_picture(const char *name, int grey)
{
    uint8_t rgb[SIZE * SIZE * 3];
    struct image image = {SIZE, SIZE, rgb};

    memset(rgb, grey, sizeof rgb);
    assert_true(image_write_png(name, &image, NULL));
}

static int set_up(void **state)
{
    (void)state;
    memcpy(folder + sizeof folder - 7, "XXXXXX", 6);
    arena = arena_new(0);
    if (!mkdtemp(folder) || chdir(folder) < 0 || mkdir("in", 0777) < 0 || mkdir("out", 0777) < 0)
        return -1;
    for (int i = 0; i < COUNT; i++) {
        char name[32];

        snprintf(name, sizeof name, "in/%02d.png", i);
        if (i == BAD)
            write_file(name, "no picture");
        else
            write_picture(name, 10 * i);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    arena_free(arena);
    if (chdir("/") < 0)
        return -1;
    remove_all(folder);
    return 0;
}

static struct source list(const char *path, const char *target)
{
    struct source source;

    assert_true(source_list(path, target, arena, &source, NULL));
    return source;
}

static void pass_all(uint64_t memory, int threads)
{
    struct source source = list("in", "out");
    struct pictures_config config = {.image_size = 4, .batch_size = 3, .threads = threads, .memory = memory};
    uint8_t resized[4 * 4 * 3];
    struct pictures *pictures;
    const char *reason;
    size_t index, expected = 0;

    assert_int_equal(source.picture_count, COUNT);
    assert_true(pictures_open(source.pictures, source.picture_count, &config, &pictures, NULL));
    while (pictures_next(pictures, &index, resized, &reason)) {
        assert_int_equal(index, expected++);
        assert_int_equal(reason != NULL, index == BAD);
        if (reason)
            continue;
        assert_int_equal(resized[0], 10 * index);
        assert_int_equal(resized[sizeof resized - 1], 10 * index);
        pictures_write(pictures, index, "class 50.00%");
    }
    assert_int_equal(expected, COUNT);
    assert_true(pictures_finish(pictures, NULL));
    pictures_free(pictures);
    for (size_t i = 0; i < COUNT; i++) {
        struct image image;

        assert_int_equal(access(source.pictures[i].target, F_OK) == 0, i != BAD);
        if (i == BAD)
            continue;
        assert_true(image_read(source.pictures[i].target, &image, NULL));
        assert_int_equal(image.width, SIZE);
        image_release(&image);
    }
}

static void in_order_and_all_written(void **state)
{
    (void)state;
    pass_all(0, 1);
    pass_all(0, 4);
}

static void originals_that_do_not_fit_are_read_again(void **state)
{
    (void)state;
    pass_all(1, 3);
    pass_all(3 * SIZE * SIZE * 2, 3);
}

static void failed_writing_is_said(void **state)
{
    struct source source = list("in", "nowhere");
    struct pictures_config config = {.image_size = 4, .batch_size = 2, .threads = 2};
    struct pictures *pictures;
    uint8_t resized[4 * 4 * 3];
    const char *reason;
    struct err err;
    size_t index;

    (void)state;
    assert_true(pictures_open(source.pictures, source.picture_count, &config, &pictures, NULL));
    assert_true(pictures_check(pictures, &err));
    assert_true(pictures_next(pictures, &index, resized, &reason));
    pictures_write(pictures, index, "text");
    assert_false(pictures_finish(pictures, &err));
    assert_non_null(strstr(err.message, "nowhere/00.jpg"));
    pictures_free(pictures);
}

static void leaving_in_the_middle(void **state)
{
    struct source source = list("in", "out");
    struct pictures_config config = {.image_size = 4, .batch_size = 4, .threads = 3};
    uint8_t resized[4 * 4 * 3];

    (void)state;
    for (size_t taken = 0; taken < 4; taken++) {
        struct pictures *pictures;
        const char *reason;
        size_t index;

        assert_true(pictures_open(source.pictures, source.picture_count, &config, &pictures, NULL));
        for (size_t i = 0; i < taken; i++)
            assert_true(pictures_next(pictures, &index, resized, &reason));
        if (taken)
            pictures_write(pictures, index, "text");
        assert_null(pictures_free(pictures));
    }
}

static void names_of_results(void **state)
{
    static const char *const names[] = {"a.png", "a.jpg", "a_2.gif",   ".hidden.png",
                                        "b.iq",  "c.txt", "d.tar.bmp", "e.DAT"};
    struct source source;

    (void)state;
    assert_int_equal(mkdir("more", 0777), 0);
    assert_int_equal(mkdir("more/folder.png", 0777), 0);
    assert_int_equal(chdir("more"), 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        write_file(names[i], "");
    assert_int_equal(chdir(".."), 0);

    source = list("more", "out");
    assert_int_equal(source.picture_count, 4);
    assert_int_equal(source.raw_count, 2);
    assert_string_equal(source.pictures[0].name, "a.jpg");
    assert_string_equal(source.pictures[0].target, "out/a.jpg");
    assert_string_equal(source.pictures[1].name, "a.png");
    assert_string_equal(source.pictures[1].target, "out/a_2.jpg");
    assert_string_equal(source.pictures[2].target, "out/a_2_2.jpg");
    assert_string_equal(source.pictures[3].target, "out/d.tar.jpg");
    assert_string_equal(source.raws[0].target, "out/b.mp4");
    assert_string_equal(source.raws[1].target, "out/e.mp4");
    assert_string_equal(source_frame_target(&source, &source.raws[0], 12, arena), "out/b_12.jpg");
    source.pictures[0].target = "out/b_3.jpg";
    assert_string_equal(source_frame_target(&source, &source.raws[0], 3, arena), "out/b_3_2.jpg");

    source = list("more", "more"); /* a.jpg is there and is not to be lost */
    assert_string_equal(source.pictures[0].target, "more/a_2.jpg");

    source = list("more/a.jpg", "./more/");
    assert_int_equal(source.picture_count, 1);
    assert_string_equal(source.pictures[0].target, "./more//a_2.jpg");
    source = list("more/c.txt", "out");
    assert_int_equal(source.picture_count + source.raw_count, 0);
    assert_true(source_has_raw("more"));
    assert_true(source_has_raw("more/e.DAT"));
    assert_false(source_has_raw("more/a.jpg"));
    assert_false(source_has_raw("out"));
    assert_false(source_has_raw("nowhere"));
}

static void folders_and_tables(void **state)
{
    struct buf csv;
    struct err err;

    (void)state;
    assert_true(folder_make("x/y/z", &err));
    assert_true(folder_make("x/y/z", &err));
    write_file("x/file", "");
    assert_false(folder_make("x/file/z", &err));
    assert_non_null(strstr(err.message, "x/file"));
    buf_init(&csv, 1000);
    csv_text(&csv, "plain");
    csv_text(&csv, ",\"quoted\"");
    assert_string_equal(csv.data, "plain\",\"\"quoted\"\"\"");
    assert_true(file_write("x/table", &csv, &err));
    buf_release(&csv);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(in_order_and_all_written), TEST(originals_that_do_not_fit_are_read_again),
        TEST(failed_writing_is_said),   TEST(leaving_in_the_middle),
        TEST(names_of_results),         TEST(folders_and_tables),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
