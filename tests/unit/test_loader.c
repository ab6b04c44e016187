/* test_loader.c - order, content, cache, bad pictures and thread safety of the loader. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "data/image.h"
#include "data/loader.h"

enum { CLASSES = 3, EACH = 14, COUNT = CLASSES * EACH, SIZE = 12 };

static char root[96];

static void write_picture(const char *path, int seed)
{
    uint8_t rgb[20 * 16 * 3];
    struct image image = {20, 16, rgb};
    struct err err;

    for (int i = 0; i < (int)sizeof rgb; i++)
        rgb[i] = (uint8_t)(i * 7 + seed * 13);
    assert_true(image_write_png(path, &image, &err));
}

static int setup(void **state)
{
    char path[128];

    (void)state;
    snprintf(root, sizeof root, "/tmp/rfuav-loader-XXXXXX");
    if (!mkdtemp(root))
        return -1;
    for (int c = 0; c < CLASSES; c++) {
        snprintf(path, sizeof path, "%s/class%d", root, c);
        mkdir(path, 0755);
        for (int i = 0; i < EACH; i++) {
            snprintf(path, sizeof path, "%s/class%d/%02d.png", root, c, i);
            write_picture(path, c * EACH + i);
        }
    }
    return 0;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

static void spoil(int c, int i)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof path, "%s/class%d/%02d.png", root, c, i);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs("\x89PNG\r\n\x1a\nnonsense", f);
    fclose(f);
}

struct reports {
    int count;
    char path[256], reason[256];
};

static void on_bad(void *arg, const char *path, const char *reason)
{
    struct reports *reports = arg;

    reports->count++;
    snprintf(reports->path, sizeof reports->path, "%s", path);
    snprintf(reports->reason, sizeof reports->reason, "%s", reason);
}

static struct dataset *open_dataset(void)
{
    struct dataset *dataset;
    struct err err;

    assert_true(dataset_open(root, NULL, &dataset, &err));
    return dataset;
}

static struct loader *open_loader(const struct dataset *dataset, struct loader_config config)
{
    struct loader *loader;
    struct err err;

    config.image_size = SIZE;
    if (!loader_open(dataset, &config, &loader, &err))
        fail_msg("%s", err.message);
    return loader;
}

/* Runs an epoch; returns a hash over order, labels and pixels, *ret_count of the pictures, full batches checked. */
static uint64_t run_epoch(struct loader *loader, uint64_t epoch, int batch_size, int *ret_count)
{
    uint64_t hash = 0xCBF29CE484222325u;
    struct batch batch;
    struct err err;
    int count = 0;
    bool short_one = false;

    assert_true(loader_start(loader, epoch, &err));
    for (;;) {
        if (!loader_next(loader, NULL, &batch, &err))
            fail_msg("%s", err.message);
        if (batch.count == 0)
            break;
        assert_false(short_one); /* only the last may be short */
        short_one = batch.count < batch_size;
        count += batch.count;
        for (int i = 0; i < batch.count; i++) {
            hash = (hash ^ batch.samples[i]) * 0x100000001B3u;
            hash = (hash ^ (uint64_t)batch.labels[i]) * 0x100000001B3u;
            assert_int_equal(batch.labels[i], batch.samples[i] / EACH);
        }
        for (size_t i = 0; i < (size_t)batch.count * SIZE * SIZE * 3; i++)
            hash = (hash ^ batch.images[i]) * 0x100000001B3u;
    }
    *ret_count = count;
    return hash;
}

/* The same batches with any number of threads, any cache and any window; another order in another epoch. */
static void test_deterministic(void **state)
{
    static const size_t caches[] = {0, 5 * SIZE * SIZE * 3, 1 << 20};
    struct dataset *dataset = open_dataset();
    uint64_t expected[3] = {0};
    int count;

    (void)state;
    for (int threads = 1; threads <= 5; threads += 2)
        for (size_t c = 0; c < 3; c++) {
            struct loader *loader = open_loader(
                dataset,
                (struct loader_config){
                    .batch_size = 8, .threads = threads, .cache_bytes = caches[c], .shuffle = true, .seed = 5});

            for (uint64_t epoch = 0; epoch < 3; epoch++) {
                uint64_t hash = run_epoch(loader, epoch, 8, &count);

                assert_int_equal(count, COUNT);
                if (!expected[epoch])
                    expected[epoch] = hash;
                assert_int_equal(hash, expected[epoch]);
            }
            assert_int_equal(run_epoch(loader, 1, 8, &count), expected[1]);
            assert_int_equal(loader_batches(loader), (COUNT + 7) / 8);
            loader_free(loader);
        }
    assert_int_not_equal(expected[0], expected[1]);
    dataset_free(dataset);
}

static void test_pixels_and_plain_order(void **state)
{
    struct dataset *dataset = open_dataset();
    struct loader *loader = open_loader(dataset, (struct loader_config){.batch_size = 5, .threads = 2});
    struct batch batch;
    struct err err;
    size_t seen = 0;

    (void)state;
    assert_true(loader_start(loader, 0, &err));
    while (loader_next(loader, NULL, &batch, &err) && batch.count > 0)
        for (int i = 0; i < batch.count; i++, seen++) {
            uint8_t expected[SIZE * SIZE * 3];
            struct image image;

            assert_int_equal(batch.samples[i], seen);
            assert_true(image_read(dataset->samples[seen].path, &image, &err));
            assert_true(image_resize(&image, SIZE, SIZE, expected, &err));
            assert_memory_equal(batch.images + (size_t)i * sizeof expected, expected, sizeof expected);
            image_release(&image);
        }
    assert_int_equal(seen, COUNT);
    loader_free(loader);
    dataset_free(dataset);
}

/* With a cache that holds all, the second epoch reads no file: they are gone. */
static void test_cache(void **state)
{
    struct dataset *dataset = open_dataset();
    struct loader *loader = open_loader(
        dataset, (struct loader_config){.batch_size = 8, .threads = 2, .cache_bytes = 1 << 20, .shuffle = true});
    int count;

    (void)state;
    run_epoch(loader, 0, 8, &count);
    for (size_t i = 0; i < dataset->count; i++)
        assert_int_equal(unlink(dataset->samples[i].path), 0);
    run_epoch(loader, 1, 8, &count);
    assert_int_equal(count, COUNT);
    assert_true(loader_memory(loader) >= COUNT * SIZE * SIZE * 3);
    loader_free(loader);
    dataset_free(dataset);
}

/* A second loader over the same files takes all from the disk, also when they have moved, and none of it differs. */
static void test_disk_cache(void **state)
{
    char cache_folder[160], moved[96], command[192];
    struct picture_cache *disk;
    struct dataset *dataset;
    struct loader *loader;
    uint64_t expected = 0;
    int count;

    (void)state;
    snprintf(cache_folder, sizeof cache_folder, "%s.cache", root);
    setenv("RFUAV_CACHE", cache_folder, 1);
    for (int task = 0; task < 3; task++) {
        uint64_t hash;

        if (task == 2) {
            snprintf(moved, sizeof moved, "%.80s.moved", root);
            assert_int_equal(rename(root, moved), 0);
            memcpy(root, moved, sizeof root);
        }
        disk = picture_cache_open(SIZE);
        dataset = open_dataset();
        loader =
            open_loader(dataset, (struct loader_config){.batch_size = 8, .threads = 3, .shuffle = true, .disk = disk});
        hash = run_epoch(loader, 0, 8, &count);
        assert_int_equal(loader_counts(loader).decoded, task == 0 ? COUNT : 0);
        assert_int_equal(loader_counts(loader).from_disk, task == 0 ? 0 : COUNT);
        expected = task == 0 ? hash : expected;
        assert_int_equal(hash, expected);
        assert_null(picture_cache_trouble(disk));
        loader_free(loader);
        dataset_free(dataset);
        picture_cache_free(disk);
    }
    snprintf(command, sizeof command, "rm -rf '%s'", cache_folder);
    assert_int_equal(system(command), 0);
}

/* Like a GPU: the first call begins to open it, some later ones come too early, then it decodes. */
struct stand_in {
    atomic_int calls;
};
enum { OPENING_CALLS = 4 };

static bool decode_by_stand_in(void *arg, const struct jpeg_picture *picture, uint8_t *out)
{
    struct stand_in *stand_in = arg;
    struct image image;
    struct err err;

    if (atomic_fetch_add(&stand_in->calls, 1) < OPENING_CALLS)
        return false;
    assert_true(image_decode(picture->data, picture->size, &image, &err));
    assert_true(image_resize(&image, SIZE, SIZE, out, &err));
    image_release(&image);
    return true;
}

static bool stand_in_ready(void *arg)
{
    struct stand_in *stand_in = arg;

    return atomic_load(&stand_in->calls) >= OPENING_CALLS;
}

/* With a decoder that gets ready on the way, and with two classes of three that it wants: the same epochs as without,
 * each picture made once. */
static void test_decoder(void **state)
{
    static const int callers[] = {0, 1, 5, 100};
    struct dataset *dataset = open_dataset();
    uint64_t expected = 0;
    struct err err;

    (void)state;
    for (size_t i = 0; i < 2 * EACH; i++) {
        struct image image;

        assert_true(image_read(dataset->samples[i].path, &image, &err));
        assert_true(image_write_jpeg(dataset->samples[i].path, &image, 90, &err));
        image_release(&image);
    }
    for (size_t c = 0; c < sizeof callers / sizeof *callers; c++)
        for (int kept = 0; kept <= COUNT; kept += COUNT / 2) {
            struct stand_in stand_in = {0};
            struct picture_decoder decoder = {decode_by_stand_in, stand_in_ready, &stand_in, callers[c]};
            struct loader *loader =
                open_loader(dataset, (struct loader_config){.batch_size = 8,
                                                            .threads = 2,
                                                            .cache_bytes = (size_t)kept * SIZE * SIZE * 3,
                                                            .shuffle = true,
                                                            .decoder = callers[c] ? &decoder : NULL});
            struct loader_counts counts;
            uint64_t hash;
            int count;

            hash = run_epoch(loader, 0, 8, &count);
            counts = loader_counts(loader);
            expected = expected ? expected : hash;
            assert_int_equal(hash, expected);
            assert_int_equal(counts.decoded, COUNT);
            assert_true(counts.by_decoder <= (callers[c] ? 2 * EACH - OPENING_CALLS : 0));
            assert_true(counts.by_decoder > 0 || callers[c] < COUNT); /* few callers may find nothing left to do */
            assert_int_equal(loader_complete(loader), kept == COUNT);
            run_epoch(loader, 1, 8, &count);
            assert_int_equal(count, COUNT);
            assert_int_equal(loader_counts(loader).decoded, 2 * COUNT - kept);
            loader_free(loader);
        }
    dataset_free(dataset);
}

static void test_bad_pictures(void **state)
{
    struct reports reports = {0};
    struct dataset *dataset = open_dataset();
    struct loader *loader;
    int count;

    (void)state;
    spoil(1, 3);
    spoil(2, 0);
    loader = open_loader(dataset, (struct loader_config){.batch_size = 8,
                                                         .threads = 3,
                                                         .cache_bytes = 20 * SIZE * SIZE * 3,
                                                         .shuffle = true,
                                                         .on_bad = on_bad,
                                                         .arg = &reports});
    for (uint64_t epoch = 0; epoch < 3; epoch++) {
        run_epoch(loader, epoch, 8, &count);
        assert_int_equal(count, COUNT - 2);
        assert_int_equal(reports.count, 2); /* once each */
    }
    assert_non_null(strstr(reports.path, "/class"));
    assert_memory_equal(reports.reason, "PNG: ", 5);
    assert_int_equal(loader_batches(loader), 5);
    loader_free(loader);
    dataset_free(dataset);
}

static void test_too_many_bad(void **state)
{
    struct dataset *dataset = open_dataset();
    struct loader *loader;
    struct batch batch;
    struct err err = {0};
    bool ok = true;

    (void)state;
    for (int i = 0; i < 5; i++)
        spoil(0, 2 * i);
    loader = open_loader(dataset, (struct loader_config){.batch_size = 4, .threads = 2});
    assert_true(loader_start(loader, 0, &err));
    while (ok && (ok = loader_next(loader, NULL, &batch, &err)))
        assert_true(batch.count > 0);
    assert_non_null(strstr(err.message, "5 of 42 pictures cannot be read, the first is /tmp/"));
    assert_non_null(strstr(err.message, "/class0/00.png: PNG: "));
    assert_false(loader_next(loader, NULL, &batch, &err)); /* and stays failed */
    assert_false(loader_start(loader, 1, &err));
    loader_free(loader);
    dataset_free(dataset);
}

static void test_left_half_way(void **state)
{
    struct dataset *dataset = open_dataset();
    struct batch batch;
    struct err err;
    int count;

    (void)state;
    for (int round = 0; round < 20; round++) {
        struct loader *loader = open_loader(
            dataset,
            (struct loader_config){.batch_size = 3, .threads = 4, .cache_bytes = (size_t)(round % 2) << 20, .seed = 1});

        if (round % 5 > 0)
            assert_true(loader_start(loader, 0, &err));
        for (int i = 0; i < round % 5; i++)
            assert_true(loader_next(loader, NULL, &batch, &err));
        if (round % 3 == 0) { /* a new epoch in the middle of the old */
            run_epoch(loader, 1, 3, &count);
            assert_int_equal(count, COUNT);
        }
        loader_free(loader);
    }
    dataset_free(dataset);
}

static void test_bad_config(void **state)
{
    struct dataset *dataset = open_dataset();
    struct loader_config config = {.image_size = 0, .batch_size = 1};
    struct loader *loader;
    struct err err;

    (void)state;
    assert_false(loader_open(dataset, &config, &loader, &err));
    config = (struct loader_config){.image_size = 8, .batch_size = 0};
    assert_false(loader_open(dataset, &config, &loader, &err));
    assert_non_null(strstr(err.message, "batch_size"));
    dataset_free(dataset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_deterministic, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pixels_and_plain_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cache, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disk_cache, setup, teardown),
        cmocka_unit_test_setup_teardown(test_decoder, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_pictures, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_many_bad, setup, teardown),
        cmocka_unit_test_setup_teardown(test_left_half_way, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_config, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
