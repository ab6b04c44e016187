/* test_safetensors.c - the format byte by byte; damage anywhere is an error. Round trips through PyTorch are in
 * tests/formats. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "formats/safetensors.h"

/* As the README of the format shows it: a float16 matrix, then a float32 scalar, with metadata and padding. */
#define HEADER                                                                                                         \
    "{\"__metadata__\":{\"by\":\"hand\"},\"a\":{\"dtype\":\"F16\",\"shape\":[1,2],\"data_offsets\":[0,4]},"            \
    "\"b\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[4,8]}} "
static const char example[] = "\x8a\0\0\0\0\0\0\0" HEADER "\x00\x3c\x00\xc0\x00\x00\x80\x3f";

static void the_example_is_read(void **state)
{
    const struct named_tensor *a, *b;
    struct state_dict *dict = NULL;
    struct err err = {0};
    float values[2];

    (void)state;
    assert_int_equal(sizeof HEADER - 1, 0x8a);
    assert_true(safetensors_decode(example, sizeof example - 1, &dict, &err));
    assert_int_equal(state_dict_count(dict), 2);
    a = state_dict_find(dict, "a");
    assert_int_equal(a->rank, 2);
    assert_int_equal(a->shape[1], 2);
    named_tensor_to_f32(a, values);
    assert_true(values[0] == 1.0f && values[1] == -2.0f);
    b = state_dict_find(dict, "b");
    assert_int_equal(b->rank, 0);
    named_tensor_to_f32(b, values);
    assert_true(values[0] == 1.0f);
    state_dict_free(dict);
}

static void every_truncation_is_refused(void **state)
{
    struct state_dict *dict = NULL;
    struct err err = {0};

    (void)state;
    for (size_t cut = 0; cut < sizeof example - 1; cut++) {
        char *copy = malloc(cut ? cut : 1);

        memcpy(copy, example, cut);
        assert_false(safetensors_decode(copy, cut, &dict, &err));
        assert_null(dict);
        free(copy);
    }
}

/* A changed header is refused or describes other tensors, but never ones outside the data. */
static void changed_bytes_are_survived(void **state)
{
    struct err err = {0};

    (void)state;
    for (size_t at = 0; at < sizeof example - 1; at++)
        for (unsigned bit = 1; bit < 256; bit <<= 1) {
            char *copy = malloc(sizeof example - 1);
            struct state_dict *dict = NULL;

            memcpy(copy, example, sizeof example - 1);
            copy[at] = (char)(copy[at] ^ (int)bit);
            safetensors_decode(copy, sizeof example - 1, &dict, &err);
            state_dict_free(dict);
            free(copy);
        }
}

static void what_is_written_is_read(void **state)
{
    struct state_dict *dict = state_dict_new(), *read = NULL;
    int fd = memfd_create("tensors", MFD_CLOEXEC);
    struct err err = {0};
    struct stat status;
    uint64_t header;
    char *data;

    (void)state;
    *(uint8_t *)state_dict_add(dict, "byte\"\n", DTYPE_U8, 0, NULL, &err) = 7;
    *(int64_t *)state_dict_add(dict, "long", DTYPE_I64, 1, (int64_t[]){1}, &err) = -5;
    assert_non_null(state_dict_add(dict, "none", DTYPE_F32, 2, (int64_t[]){0, 3}, &err));
    assert_true(safetensors_encode(fd, dict, &err));
    assert_int_equal(fstat(fd, &status), 0);
    data = malloc((size_t)status.st_size);
    assert_int_equal(pread(fd, data, (size_t)status.st_size, 0), status.st_size);
    close(fd);
    memcpy(&header, data, sizeof header);
    assert_int_equal(header % 8, 0);
    assert_true(safetensors_decode(data, (size_t)status.st_size, &read, &err));
    assert_int_equal(state_dict_count(read), 3);
    assert_int_equal(*(const uint8_t *)state_dict_find(read, "byte\"\n")->data, 7);
    assert_int_equal(*(const int64_t *)state_dict_find(read, "long")->data, -5);
    assert_int_equal(state_dict_find(read, "none")->shape[1], 3);
    state_dict_free(read);
    state_dict_free(dict);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_is_read),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(changed_bytes_are_survived),
        cmocka_unit_test(what_is_written_is_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
