/* test_picture_cache.c - the cache of resized pictures: found again by name and by content, filled by several processes
 * at once, killed in the middle, damaged, bounded, without a place. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "data/cache_format.h"
#include "data/picture_cache.h"

enum { SIZE = 12, BYTES = SIZE * SIZE * 3, PLACES = 4096 };

static char root[64];

static int setup(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/rfuav-cache-XXXXXX");
    if (!mkdtemp(root))
        return -1;
    setenv("RFUAV_CACHE", root, 1);
    unsetenv("RFUAV_CACHE_GB");
    return 0;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

/* File number i as fstat() would tell it; old: unchanged for long. */
static struct stat file_of(int i, bool old)
{
    struct stat stat = {.st_dev = 5, .st_ino = (ino_t)(1000 + i), .st_size = i};

    stat.st_mtim.tv_sec = stat.st_ctim.tv_sec = time(NULL) - (old ? 1000 : 0);
    return stat;
}

static void make_picture(int i, uint8_t picture[BYTES])
{
    for (int k = 0; k < BYTES; k++)
        picture[k] = (uint8_t)(i * 31 + k * 7 + (i >> 8) * 11);
}

static struct key content_of(int i)
{
    return cache_content_key(&i, sizeof i);
}

static void add(struct picture_cache *cache, int i)
{
    struct stat stat = file_of(i, true);
    uint8_t picture[BYTES];

    make_picture(i, picture);
    picture_cache_add(cache, &stat, content_of(i), picture);
}

/* Is picture i there? What is found must be right. */
static bool there(struct picture_cache *cache, int i, bool by_name)
{
    struct stat stat = file_of(i, true);
    uint8_t expected[BYTES], found[BYTES];
    struct key content;
    bool ok = by_name ? picture_cache_find(cache, &stat, found)
                      : picture_cache_find_content(cache, &stat, &i, sizeof i, found, &content);

    make_picture(i, expected);
    if (ok)
        assert_memory_equal(found, expected, BYTES);
    if (!by_name)
        assert_true(key_same(content, content_of(i)));
    return ok;
}

/* Number and total size of the segments. */
static int segments(uint64_t *ret_bytes)
{
    char path[128];
    struct dirent *entry;
    struct stat stat;
    int count = 0;
    DIR *dir;

    snprintf(path, sizeof path, "%s/pictures", root);
    dir = opendir(path);
    *ret_bytes = 0;
    while (dir && (entry = readdir(dir)))
        if (strstr(entry->d_name, ".pictures") && fstatat(dirfd(dir), entry->d_name, &stat, 0) == 0) {
            *ret_bytes += (uint64_t)stat.st_size;
            count++;
        }
    if (dir)
        closedir(dir);
    return count;
}

static void test_found_again(void **state)
{
    struct picture_cache *cache = picture_cache_open(SIZE);
    uint8_t picture[BYTES];
    struct stat changed;
    struct key content;

    (void)state;
    assert_false(there(cache, 1, true));
    assert_false(there(cache, 1, false));
    for (int i = 1; i <= 50; i++)
        add(cache, i);
    for (int round = 0; round < 2; round++) { /* in the same process, and in the next */
        for (int i = 1; i <= 50; i++) {
            assert_true(there(cache, i, true));
            assert_true(there(cache, i, false));
        }
        assert_null(picture_cache_trouble(cache));
        picture_cache_free(cache);
        cache = picture_cache_open(SIZE);
    }
    changed = file_of(7, true);
    changed.st_mtim.tv_nsec++;
    assert_false(picture_cache_find(cache, &changed, picture)); /* but its bytes are known, if they are the same */
    assert_true(picture_cache_find_content(cache, &changed, &(int){7}, sizeof(int), picture, &content));
    assert_true(picture_cache_find(cache, &changed, picture));
    picture_cache_free(cache);
    cache = picture_cache_open(SIZE + 1); /* another size is another picture */
    assert_false(there(cache, 7, true));
    picture_cache_free(cache);
}

/* A file changed just now may change again without showing it. */
static void test_fresh_files(void **state)
{
    struct picture_cache *cache = picture_cache_open(SIZE);
    struct stat fresh = file_of(3, false);
    uint8_t picture[BYTES];
    struct key content;

    (void)state;
    make_picture(3, picture);
    picture_cache_add(cache, &fresh, content_of(3), picture);
    assert_false(picture_cache_find(cache, &fresh, picture));
    assert_true(picture_cache_find_content(cache, &fresh, &(int){3}, sizeof(int), picture, &content));
    assert_false(picture_cache_find(cache, &fresh, picture));
    picture_cache_free(cache);
}

/* Four processes, each with half of the pictures that the next has too. */
static void test_filled_at_once(void **state)
{
    enum { PROCESSES = 4, EACH = 1000 };
    struct picture_cache *cache;
    uint64_t bytes;

    (void)state;
    for (int p = 0; p < PROCESSES; p++)
        if (fork() == 0) {
            cache = picture_cache_open(SIZE);
            for (int i = 0; i < EACH; i++)
                add(cache, p * EACH / 2 + i);
            _exit(picture_cache_trouble(cache) != NULL);
        }
    for (int p = 0, status; p < PROCESSES; p++) {
        wait(&status);
        assert_int_equal(status, 0);
    }
    cache = picture_cache_open(SIZE);
    for (int i = 0; i < (PROCESSES + 1) * EACH / 2; i++) {
        assert_true(there(cache, i, true));
        assert_true(there(cache, i, false));
    }
    picture_cache_free(cache);
    assert_in_range(segments(&bytes), 1, PROCESSES);
}

static void test_killed(void **state)
{
    uint64_t bytes;
    int found = 0;

    (void)state;
    for (int round = 0; round < 8; round++) {
        struct picture_cache *cache;
        pid_t child = fork();

        if (child == 0) {
            cache = picture_cache_open(SIZE);
            for (int i = 0;; i++)
                add(cache, round * 100000 + i);
        }
        usleep(3000 + 1000 * (useconds_t)round);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        cache = picture_cache_open(SIZE);
        for (int i = 0; there(cache, round * 100000 + i, false); i++)
            found++;
        add(cache, -1 - round);
        assert_true(there(cache, -1 - round, true));
        picture_cache_free(cache);
    }
    assert_true(found > 0);
    assert_in_range(segments(&bytes), 1, 1 + found / PLACES + 8 / 2); /* a killed writer's is gone on with */
}

/* Overwrites `count` bytes of a file at random. */
static void damage(const char *path, int count, unsigned *seed)
{
    int fd = open(path, O_RDWR);
    struct stat stat;

    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &stat), 0);
    for (int i = 0; i < count; i++) {
        uint8_t byte = (uint8_t)rand_r(seed);
        off_t at = rand_r(seed) % (i % 2 ? stat.st_size : stat.st_size < 200000 ? stat.st_size : 200000);

        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
    close(fd);
}

static void damage_all(unsigned *seed)
{
    char path[512], folder[128];
    struct dirent *entry;
    DIR *dir;

    snprintf(folder, sizeof folder, "%s/pictures", root);
    dir = opendir(folder);
    assert_non_null(dir);
    while ((entry = readdir(dir))) {
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (strstr(entry->d_name, ".pictures") || strcmp(entry->d_name, "names") == 0)
            damage(path, 60, seed);
    }
    closedir(dir);
}

static void test_damaged(void **state)
{
    unsigned seed = 7;
    int found = 0, lost = 0;

    (void)state;
    for (int round = 0; round < 20; round++) {
        struct picture_cache *cache = picture_cache_open(SIZE);

        for (int i = 0; i < 200; i++)
            if (!there(cache, i, false))
                add(cache, i);
        picture_cache_free(cache);
        damage_all(&seed);
        cache = picture_cache_open(SIZE);
        for (int i = 0; i < 200; i++) {
            bool ok = there(cache, i, round % 2);

            found += ok;
            lost += !ok;
        }
        picture_cache_free(cache);
    }
    assert_true(found > 0 && lost > 0);
}

static void test_bounded(void **state)
{
    struct picture_cache *cache;
    uint64_t bytes;

    (void)state;
    setenv("RFUAV_CACHE_GB", "0.04", 1); /* two segments */
    for (int task = 0; task < 3; task++) {
        cache = picture_cache_open(SIZE);
        for (int i = 0; i < PLACES; i++)
            add(cache, task * PLACES + i);
        assert_null(picture_cache_trouble(cache));
        picture_cache_free(cache);
        assert_in_range(segments(&bytes), 1, 2);
        assert_in_range(bytes, 1, 40000000);
        usleep(50000); /* more than the grain of a file's times */
    }
    cache = picture_cache_open(SIZE);
    assert_false(there(cache, 0, false)); /* the oldest went */
    assert_true(there(cache, PLACES, false));
    assert_true(there(cache, 3 * PLACES - 1, false));
    for (int i = 0; i < 2 * PLACES; i++) /* what this task uses stays: there is room for one segment's worth */
        add(cache, 10 * PLACES + i);
    assert_true(there(cache, PLACES, false) || there(cache, 3 * PLACES - 1, false));
    assert_null(picture_cache_trouble(cache));
    segments(&bytes);
    assert_in_range(bytes, 1, 40000000);
    picture_cache_free(cache);
    setenv("RFUAV_CACHE_GB", "0", 1);
    assert_null(picture_cache_open(SIZE));
}

static void test_no_place(void **state)
{
    struct picture_cache *cache;
    int status;

    (void)state;
    setenv("RFUAV_CACHE", "/dev/null/there", 1);
    cache = picture_cache_open(SIZE);
    assert_non_null(strstr(picture_cache_trouble(cache), "cannot make /dev/null/there/pictures: "));
    add(cache, 1);
    assert_false(there(cache, 1, true));
    picture_cache_free(cache);
    setenv("RFUAV_CACHE", root, 1);
    if (fork() == 0) { /* a disk that takes no more */
        struct rlimit limit = {1 << 20, 1 << 20};

        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
        cache = picture_cache_open(SIZE);
        add(cache, 1);
        add(cache, 2);
        _exit(!picture_cache_trouble(cache) || !strstr(picture_cache_trouble(cache), "cannot write to "));
    }
    wait(&status);
    assert_int_equal(status, 0);
    assert_null(picture_cache_trouble(NULL));
    picture_cache_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_found_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fresh_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_filled_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_place, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
