/* test_base.c - errors, arena, buffer, texts and random numbers. */
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

#include "base/arena.h"
#include "base/buf.h"
#include "base/cache_home.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/text.h"

/* The published vectors are for the block function, which random.h does not show. */
#include "base/random.c"

/* --- cache_home ----------------------------------------------------------------------------------------------------*/

/* The first variable that is set says where; the folder is made; a file in its place is said. */
static void cache_home_is_found_and_made(void **state)
{
    static const struct {
        const char *variable, *below, *expected;
    } cases[] = {
        {"HOME", NULL, "/.cache/rfuav"},
        {"XDG_CACHE_HOME", "pictures", "/rfuav/pictures"},
        {"RFUAV_CACHE", "pictures", "/pictures"},
    };
    char root[] = "/tmp/rfuav-base-XXXXXX", path[128], expected[128], tiny[8], command[64];
    char *home = getenv("HOME") ? strdup(getenv("HOME")) : NULL;
    struct stat st;
    struct err err;

    (void)state;
    assert_non_null(mkdtemp(root));
    for (size_t i = 0; i < 3; i++)
        unsetenv(cases[i].variable);
    assert_false(cache_home(NULL, path, sizeof path, &err));
    assert_string_equal(err.message, "neither RFUAV_CACHE nor HOME names a folder for it");
    for (size_t i = 0; i < 3; i++) {
        setenv(cases[i].variable, root, 1);
        assert_true(cache_home(cases[i].below, path, sizeof path, &err));
        snprintf(expected, sizeof expected, "%s%s", root, cases[i].expected);
        assert_string_equal(path, expected);
        assert_true(stat(path, &st) == 0 && S_ISDIR(st.st_mode));
    }
    assert_false(cache_home("pictures", tiny, sizeof tiny, &err));
    assert_non_null(strstr(err.message, "RFUAV_CACHE is too long"));
    setenv("RFUAV_CACHE", "/dev/null", 1);
    assert_false(cache_home("pictures", path, sizeof path, &err));
    assert_string_equal(err.message, "cannot make /dev/null/pictures: Not a directory");
    for (size_t i = 0; i < 3; i++)
        unsetenv(cases[i].variable);
    if (home)
        setenv("HOME", home, 1);
    free(home);
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    assert_int_equal(system(command), 0);
}

/* --- err ---------------------------------------------------------------------------------------------------------- */

static void err_is_filled_and_prefixed(void **state)
{
    struct err err = {0};

    (void)state;
    assert_false(err_set(&err, ERR_NOT_FOUND, "no %s in %d", "file", 7));
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_string_equal(err.message, "no file in 7");
    assert_false(err_prefix(&err, "/tmp/%s", "x"));
    assert_string_equal(err.message, "/tmp/x: no file in 7");
    assert_false(err_set(NULL, ERR_IO, "%s", "nobody listens"));
    assert_false(err_prefix(NULL, "%s", "nobody listens"));
}

/* A text cut in the middle of a three-byte character ends before it. */
static void err_cuts_at_a_character(void **state)
{
    struct err err = {0};
    char text[2000] = "";

    (void)state;
    for (size_t shift = 0; shift < 3; shift++) {
        size_t n;

        memset(text, 'a', shift);
        for (n = shift; n + 4 < sizeof text; n += 3)
            memcpy(text + n, "\xe4\xb8\xad", 4);
        err_set(&err, ERR_INVALID, "%s", text);
        n = strlen(err.message);
        assert_true(n >= sizeof err.message - 4);
        assert_true(text_is_utf8(err.message, n));
        err_prefix(&err, "%s", text);
        assert_true(text_is_utf8(err.message, strlen(err.message)));
    }
}

static void err_kinds_have_names_and_statuses(void **state)
{
    (void)state;
    assert_string_equal(err_kind_name(ERR_INVALID), "INVALID");
    assert_string_equal(err_kind_name(ERR_BUG), "BUG");
    assert_int_equal(err_http_status(ERR_INVALID), 422);
    assert_int_equal(err_http_status(ERR_NOT_FOUND), 404);
    assert_int_equal(err_http_status(ERR_BUSY), 503);
}

/* --- arena -------------------------------------------------------------------------------------------------------- */

static void arena_gives_zeroed_aligned_memory(void **state)
{
    struct arena *arena = arena_new(0);

    (void)state;
    for (size_t size = 0; size < 20000; size = size * 2 + 1) {
        unsigned char *p = arena_alloc(arena, size);

        assert_non_null(p);
        assert_int_equal((uintptr_t)p % _Alignof(max_align_t), 0);
        for (size_t i = 0; i < size; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xFF, size);
    }
    assert_string_equal(arena_printf(arena, "%d-%s", 42, "x"), "42-x");
    assert_string_equal(arena_strdup(arena, "copy"), "copy");
    assert_null(arena_strdup(arena, NULL));
    assert_memory_equal(arena_memdup(arena, "a\0b", 3), "a\0b", 3);
    assert_null(arena_free(arena));
    assert_null(arena_free(NULL));
}

static void arena_keeps_its_limit(void **state)
{
    struct arena *arena = arena_new(1000);

    (void)state;
    assert_null(arena_alloc(arena, 1001));
    assert_null(arena_alloc(arena, SIZE_MAX));
    assert_non_null(arena_alloc(arena, 900));
    assert_null(arena_alloc(arena, 200));
    assert_true(arena_used(arena) >= 900 && arena_used(arena) <= 1000);
    arena_free(arena);
}

static char order[8];

static void note(void *name)
{
    strncat(order, name, sizeof order - strlen(order) - 1);
}

static void arena_runs_deferred_last_first(void **state)
{
    struct arena *arena = arena_new(0), *full = arena_new(1);
    char a[] = "a", b[] = "b", c[] = "c";

    (void)state;
    order[0] = '\0';
    assert_true(arena_defer(arena, note, a));
    assert_true(arena_defer(arena, note, b));
    assert_string_equal(order, "");
    arena_free(arena);
    assert_string_equal(order, "ba");
    assert_false(arena_defer(full, note, c)); /* no room to note it: at once */
    assert_string_equal(order, "bac");
    arena_free(full);
    assert_string_equal(order, "bac");
}

/* --- buf ---------------------------------------------------------------------------------------------------------- */

static void buf_grows_up_to_its_maximum(void **state)
{
    struct buf buf;
    size_t size;
    char *data;

    (void)state;
    buf_init(&buf, 1000);
    for (int i = 0; i < 100; i++)
        buf_printf(&buf, "%09d", i);
    assert_false(buf.failed);
    assert_int_equal(buf.size, 900);
    assert_int_equal(buf.data[900], 0);
    buf_printf(&buf, "%0101d", 7); /* one too many */
    assert_true(buf.failed);
    assert_int_equal(buf.size, 900);
    buf_puts(&buf, "x"); /* once failed, nothing more */
    assert_int_equal(buf.size, 900);
    assert_null(buf_detach(&buf, &size));

    buf_printf(&buf, "%0100d", 7);
    buf_clear(&buf);
    assert_int_equal(buf.size, 0);
    buf_puts(&buf, "again");
    data = buf_detach(&buf, &size);
    assert_int_equal(size, 5);
    assert_string_equal(data, "again");
    assert_null(buf.data);
    free(data);
    data = buf_detach(&buf, NULL); /* an empty one is an empty text */
    assert_string_equal(data, "");
    free(data);
}

static void buf_quotes_json(void **state)
{
    struct buf buf;

    (void)state;
    buf_init(&buf, 1000);
    buf_json_string(&buf, "a\"b\\c\n\t\x01中\x7f");
    assert_string_equal(buf.data, "\"a\\\"b\\\\c\\n\\t\\u0001中\x7f\"");
    buf_clear(&buf);
    buf_json_string(&buf, NULL);
    assert_string_equal(buf.data, "null");
    buf_clear(&buf);
    buf_json_string(&buf, "");
    assert_string_equal(buf.data, "\"\"");
    buf_release(&buf);
}

/* --- text and clock ----------------------------------------------------------------------------------------------- */

static void utf8_is_told_from_other_bytes(void **state)
{
    static const char *const good[] = {
        "", "abc", "é", "中文", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf", "\xee\x80\x80", "\xed\x9f\xbf"};
    static const char *const bad[] = {"\x80",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xff",
                                      "a\xc3",
                                      "\xe4\xb8",
                                      "\xc3("};

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(text_is_utf8(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(text_is_utf8(bad[i], strlen(bad[i])));
    assert_false(text_is_utf8("a\0b", 3));
}

static void language_is_chosen_by_name(void **state)
{
    (void)state;
    text_set_language("zh_CN.UTF-8");
    assert_string_equal(text_language(), "zh");
    assert_string_equal(tr("等待开始", "waiting to start"), "等待开始");
    text_set_language("en");
    assert_string_equal(tr("等待开始", "waiting to start"), "waiting to start");
    setenv("LC_ALL", "zh", 1);
    text_set_language("");
    assert_string_equal(text_language(), "zh");
    setenv("LC_ALL", "C", 1);
    text_set_language(NULL);
    assert_string_equal(text_language(), "en");
}

static void clock_writes_six_digits(void **state)
{
    char text[CLOCK_ISO_SIZE];
    double before = clock_seconds();
    int fields[7], end = 0;

    (void)state;
    for (int i = 0; i < 100; i++) {
        clock_iso(text);
        assert_int_equal(strlen(text), 26);
        assert_int_equal(sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d.%6d%n", &fields[0], &fields[1], &fields[2], &fields[3],
                                &fields[4], &fields[5], &fields[6], &end),
                         7);
        assert_int_equal(end, 26);
    }
    assert_true(clock_seconds() >= before);
    assert_true(clock_unix_us() > (int64_t)1700000000 * 1000000);
}

/* --- random ------------------------------------------------------------------------------------------------------- */

/* Random123 1.14, tests/kat_vectors, "philox4x32 10": counter, key, result. */
static void random_is_philox(void **state)
{
    static const struct {
        uint32_t counter[4], key[2], expected[4];
    } vectors[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        const uint32_t *k = vectors[i].key;
        uint32_t words[4];

        memcpy(words, vectors[i].counter, sizeof words);
        philox(k[0] | (uint64_t)k[1] << 32, words);
        assert_memory_equal(words, vectors[i].expected, sizeof words);
    }
}

/* Value i is the same whether reached in order, from the start or from anywhere, fresh or used. */
static void random_resumes_anywhere(void **state)
{
    struct random all, other;
    uint32_t values[64];

    (void)state;
    random_init(&all, 1234, 5);
    for (size_t i = 0; i < 64; i++)
        values[i] = random_u32(&all);
    random_init(&other, 1234, 5);
    for (size_t i = 0; i < 500; i++) {
        size_t at = i * 37 % 61;

        if (i % 3 == 0)
            random_init(&other, 1234, 5);
        other.counter = at;
        for (size_t j = at; j < at + i % 4 && j < 64; j++)
            assert_int_equal(random_u32(&other), values[j]);
    }
    random_init(&other, 1234, 6);
    assert_int_not_equal(random_u32(&other), values[0]);
}

static void random_numbers_have_their_distributions(void **state)
{
    enum { N = 200000 };
    struct random random;
    double sum = 0, squares = 0;
    int counts[7] = {0};

    (void)state;
    random_init(&random, 7, 0);
    for (int i = 0; i < N; i++) {
        double u = random_uniform(&random);

        assert_true(u >= 0 && u < 1);
        counts[random_below(&random, 7)]++;
    }
    for (int i = 0; i < 7; i++)
        assert_true(abs(counts[i] - N / 7) < 5 * 156); /* 5 standard deviations */
    for (int i = 0; i < N; i++) {
        double x = random_normal(&random);

        sum += x;
        squares += x * x;
    }
    assert_true(fabs(sum / N) < 5 * 0.0023);
    assert_true(fabs(squares / N - 1) < 5 * 0.0032);
    assert_int_equal(random_below(&random, 1), 0);
}

/* All 24 orders of four items, each about as often. */
static void shuffle_is_fair(void **state)
{
    enum { N = 24000 };
    struct random random;
    int counts[256] = {0}, seen = 0;

    (void)state;
    random_init(&random, 3, 0);
    for (int i = 0; i < N; i++) {
        size_t items[] = {0, 1, 2, 3};

        random_shuffle(&random, items, 4);
        counts[items[0] << 6 | items[1] << 4 | items[2] << 2 | items[3]]++;
    }
    for (int i = 0; i < 256; i++)
        if (counts[i]) {
            seen++;
            assert_true(abs(counts[i] - N / 24) < 5 * 31);
        }
    assert_int_equal(seen, 24);
    random_shuffle(&random, NULL, 0);
    assert_int_not_equal(random_seed(), random_seed());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cache_home_is_found_and_made),
        cmocka_unit_test(err_is_filled_and_prefixed),
        cmocka_unit_test(err_cuts_at_a_character),
        cmocka_unit_test(err_kinds_have_names_and_statuses),
        cmocka_unit_test(arena_gives_zeroed_aligned_memory),
        cmocka_unit_test(arena_keeps_its_limit),
        cmocka_unit_test(arena_runs_deferred_last_first),
        cmocka_unit_test(buf_grows_up_to_its_maximum),
        cmocka_unit_test(buf_quotes_json),
        cmocka_unit_test(utf8_is_told_from_other_bytes),
        cmocka_unit_test(language_is_chosen_by_name),
        cmocka_unit_test(clock_writes_six_digits),
        cmocka_unit_test(random_is_philox),
        cmocka_unit_test(random_resumes_anywhere),
        cmocka_unit_test(random_numbers_have_their_distributions),
        cmocka_unit_test(shuffle_is_fair),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
