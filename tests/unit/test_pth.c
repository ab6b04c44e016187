/* test_pth.c - checkpoints without PyTorch at hand: round trips, damage at every byte, files that are whole or
 * untouched. What PyTorch says of them is in tests/formats. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "formats/bytes.h"
#include "formats/checkpoint.h"
#include "formats/pth.h"
#include "formats/zipfile.h"

static char folder[] = "/tmp/rfuav-pth-XXXXXX";

static const char *path_of(const char *name)
{
    static char path[256];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder); /* fails when a test left something */
}

/* One tensor of each type, filled with bytes that begin at `fill`. */
static struct state_dict *sample(unsigned fill)
{
    struct state_dict *dict = state_dict_new();
    struct err err;

    for (int dtype = 0; dtype < DTYPE_COUNT; dtype++) {
        const int64_t shape[] = {3, 1, 5};
        unsigned char *data = state_dict_add(dict, dtype_name(dtype), dtype, dtype % 4, shape, &err);

        assert_non_null(data);
        for (size_t i = 0; i < dtype_size(dtype); i++)
            data[i] = (unsigned char)(fill + i);
    }
    return dict;
}

static bool equal(const struct state_dict *a, const struct state_dict *b)
{
    if (state_dict_count(a) != state_dict_count(b))
        return false;
    for (size_t i = 0; i < state_dict_count(a); i++) {
        const struct named_tensor *x = state_dict_at(a, i), *y = state_dict_at(b, i);

        if (strcmp(x->name, y->name) != 0 || x->dtype != y->dtype || x->rank != y->rank ||
            memcmp(x->shape, y->shape, sizeof x->shape) != 0 ||
            memcmp(x->data, y->data, (size_t)named_tensor_elements(x) * dtype_size(x->dtype)) != 0)
            return false;
    }
    return true;
}

/* The bytes that pth_encode() makes, for the caller to free. */
static unsigned char *encode(const struct state_dict *dict, size_t *size)
{
    int fd = memfd_create("checkpoint", MFD_CLOEXEC);
    unsigned char *data;
    struct err err = {0};
    struct stat status;

    assert_true(fd >= 0);
    assert_true(pth_encode(fd, "stem", dict, &err));
    assert_int_equal(fstat(fd, &status), 0);
    *size = (size_t)status.st_size;
    data = malloc(*size);
    assert_int_equal(pread(fd, data, *size, 0), *size);
    close(fd);
    return data;
}

static void what_is_written_is_read(void **state)
{
    struct state_dict *dict = sample(1), *read = NULL;
    struct err err = {0};

    (void)state;
    assert_true(pth_write(path_of("a.pth"), dict, &err));
    assert_true(pth_read(path_of("a.pth"), &read, &err));
    assert_true(equal(dict, read));
    state_dict_free(read);
    read = NULL;
    assert_true(checkpoint_read(path_of("a.pth"), &read, &err));
    assert_true(equal(dict, read));
    state_dict_free(read);
    state_dict_free(dict);
    unlink(path_of("a.pth"));
}

static void every_truncation_is_refused(void **state)
{
    struct state_dict *dict = sample(1), *read = NULL;
    struct err err = {0};
    size_t size;
    unsigned char *data = encode(dict, &size);

    (void)state;
    for (size_t cut = 0; cut < size; cut++) {
        unsigned char *copy = malloc(cut ? cut : 1); /* of exact size, so that a sanitizer sees a read beyond */

        memcpy(copy, data, cut);
        err.message[0] = '\0';
        assert_false(pth_decode(copy, cut, &read, &err));
        assert_null(read);
        assert_string_not_equal(err.message, "");
        free(copy);
    }
    free(data);
    state_dict_free(dict);
}

/* A changed byte is either noticed or in a place that does not matter: never another number. */
static void no_changed_byte_changes_a_tensor(void **state)
{
    struct state_dict *dict = sample(1), *read;
    struct err err = {0};
    size_t size, noticed = 0;
    unsigned char *data = encode(dict, &size);

    (void)state;
    for (size_t at = 0; at < size; at++)
        for (unsigned bit = 1; bit < 256; bit <<= 3) {
            data[at] ^= (unsigned char)bit;
            if (pth_decode(data, size, &read, &err)) {
                assert_true(equal(dict, read));
                state_dict_free(read);
            } else {
                noticed++;
            }
            data[at] ^= (unsigned char)bit;
        }
    assert_true(noticed > size / 4);
    free(data);
    state_dict_free(dict);
}

/* A directory whose sizes and offsets all stand in ZIP64 fields, as for files beyond 4 GiB. */
static void zip64_fields_are_read(void **state)
{
    static const char content[] = "hello";
    unsigned char file[256] = {'P', 'K', 3, 4}, *p = file + 30 + 1 + 5, *central = p, *end64;
    struct arena *arena = arena_new(0);
    const struct zip_entry *entry;
    struct zipfile zip;
    struct source source;
    struct err err = {0};
    char out[5];

    (void)state;
    put_u16(file + 26, 1);
    file[30] = 'x';
    memcpy(file + 31, content, 5);
    memcpy(p, "PK\1\2", 4);
    put_u32(p + 16, 0x3610a686); /* CRC-32 of "hello" */
    put_u32(p + 20, UINT32_MAX);
    put_u32(p + 24, UINT32_MAX);
    put_u16(p + 28, 1);
    put_u16(p + 30, 4 + 4 + 28);
    put_u32(p + 42, UINT32_MAX);
    p[46] = 'x';
    p += 47;
    put_u16(p, 0x4646); /* another extra field comes first */
    put_u16(p + 4, 1);
    put_u16(p + 6, 24);
    put_u64(p + 8, 5);
    put_u64(p + 16, 5);
    put_u64(p + 24, 0);
    p += 4 + 4 + 28;
    end64 = p;
    memcpy(p, "PK\6\6", 4);
    put_u64(p + 4, 44);
    put_u64(p + 32, 1);
    put_u64(p + 40, (uint64_t)(end64 - central));
    put_u64(p + 48, (uint64_t)(central - file));
    memcpy(p + 56, "PK\6\7", 4);
    put_u64(p + 64, (uint64_t)(end64 - file));
    p += 76;
    memcpy(p, "PK\5\6", 4);
    memset(p + 8, 0xFF, 12);

    source = source_memory(file, (size_t)(p + 22 - file));
    assert_true(zipfile_open(&zip, &source, arena, &err));
    entry = zipfile_find(&zip, "x");
    assert_non_null(entry);
    assert_int_equal(entry->size, 5);
    assert_true(zipfile_read(&zip, entry, out, &err));
    assert_memory_equal(out, content, 5);
    assert_null(zipfile_find(&zip, "y"));

    put_u64(end64 + 48, UINT64_MAX - 10); /* and a directory that is nowhere */
    assert_false(zipfile_open(&zip, &source, arena, &err));
    arena_free(arena);
}

/* --- file_replace ------------------------------------------------------------------------------------------------- */

static bool write_text(int fd, const void *arg, struct err *err)
{
    struct iovec pieces[] = {{"", 0}, {(void *)(uintptr_t)arg, strlen(arg)}, {"\n", 1}};

    return file_write_pieces(fd, pieces, 3, err);
}

static bool write_then_fail(int fd, const void *arg, struct err *err)
{
    return write_text(fd, arg, err) && err_set(err, ERR_BUG, "changed my mind");
}

static bool write_to_full_device(int fd, const void *arg, struct err *err)
{
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    bool ok;

    (void)fd;
    ok = write_text(full, arg, err);
    close(full);
    return ok;
}

static void assert_content(const char *path, const char *expected)
{
    char text[64] = "";
    FILE *file = fopen(path, "r");

    assert_non_null(file);
    assert_true(fread(text, 1, sizeof text - 1, file) > 0);
    fclose(file);
    assert_string_equal(text, expected);
}

static void a_file_is_whole_or_untouched(void **state)
{
    struct err err = {0};
    char expected[300];

    (void)state;
    assert_true(file_replace(path_of("f"), write_text, "one", &err));
    assert_content(path_of("f"), "one\n");
    assert_false(file_replace(path_of("f"), write_then_fail, "two", &err));
    snprintf(expected, sizeof expected, "cannot write %s: changed my mind", path_of("f"));
    assert_string_equal(err.message, expected);
    assert_content(path_of("f"), "one\n");
    assert_int_equal(access(path_of("f.tmp"), F_OK), -1);
    assert_true(file_replace(path_of("f"), write_text, "three", &err));
    assert_content(path_of("f"), "three\n");
    unlink(path_of("f"));
}

static void a_full_disk_is_named(void **state)
{
    struct err err = {0};

    (void)state;
    assert_false(file_replace(path_of("f"), write_to_full_device, "x", &err));
    assert_int_equal(err.kind, ERR_NO_SPACE);
    assert_non_null(strstr(err.message, "disk full: cannot write "));
    assert_non_null(strstr(err.message, path_of("f")));
    assert_int_equal(access(path_of("f"), F_OK), -1);
    assert_int_equal(access(path_of("f.tmp"), F_OK), -1);
}

/* A temporary file that a killed process left does no harm; one that is a link is not followed. */
static void leftovers_are_taken_over(void **state)
{
    struct err err = {0};
    int fd = open(path_of("f.tmp"), O_WRONLY | O_CREAT, 0600);
    char target[256];

    (void)state;
    assert_int_equal(write(fd, "old and long", 12), 12);
    close(fd);
    assert_true(file_replace(path_of("f"), write_text, "new", &err));
    assert_content(path_of("f"), "new\n");
    snprintf(target, sizeof target, "%s", path_of("f"));
    assert_int_equal(symlink(target, path_of("g.tmp")), 0);
    assert_false(file_replace(path_of("g"), write_text, "x", &err));
    assert_content(path_of("f"), "new\n");
    unlink(path_of("g.tmp"));
    unlink(path_of("f"));
}

/* Four processes replace the same checkpoint again and again: at every moment it is one of theirs, whole. */
static void writers_take_turns(void **state)
{
    enum { WRITERS = 4, ROUNDS = 25 };
    struct state_dict *dicts[WRITERS];
    pid_t children[WRITERS];
    struct err err = {0};

    (void)state;
    for (int w = 0; w < WRITERS; w++)
        dicts[w] = sample((unsigned)(50 * w));
    assert_true(pth_write(path_of("a.pth"), dicts[0], &err));
    for (int w = 0; w < WRITERS; w++) {
        children[w] = fork();
        if (children[w] == 0) {
            for (int i = 0; i < ROUNDS; i++)
                if (!pth_write(path_of("a.pth"), dicts[w], &err))
                    _exit(1);
            _exit(0);
        }
    }
    for (int i = 0; i < 2 * ROUNDS; i++) {
        struct state_dict *read = NULL;
        bool known = false;

        assert_true(pth_read(path_of("a.pth"), &read, &err));
        for (int w = 0; w < WRITERS; w++)
            known = known || equal(dicts[w], read);
        assert_true(known);
        state_dict_free(read);
    }
    for (int w = 0; w < WRITERS; w++) {
        int status = -1;

        waitpid(children[w], &status, 0);
        assert_int_equal(status, 0);
        state_dict_free(dicts[w]);
    }
    unlink(path_of("a.pth"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),          cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(no_changed_byte_changes_a_tensor), cmocka_unit_test(zip64_fields_are_read),
        cmocka_unit_test(a_file_is_whole_or_untouched),     cmocka_unit_test(a_full_disk_is_named),
        cmocka_unit_test(leftovers_are_taken_over),         cmocka_unit_test(writers_take_turns),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
