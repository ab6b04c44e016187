/* test_state_dict.c - named tensors, and their conversion from every stored type. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/state_dict.h"

static void tensors_are_kept_in_order_and_found(void **state)
{
    struct state_dict *dict = state_dict_new();
    struct err err = {0};
    char name[32];

    (void)state;
    assert_null(state_dict_find(dict, "x"));
    assert_null(state_dict_at(dict, 0));
    for (int64_t i = 0; i < 1000; i++) {
        int64_t *data;

        snprintf(name, sizeof name, "layer%d.weight", (int)i);
        data = state_dict_add(dict, name, DTYPE_I64, 1, (int64_t[]){2}, &err);
        assert_non_null(data);
        assert_int_equal(data[1], 0);
        data[0] = i;
    }
    assert_int_equal(state_dict_count(dict), 1000);
    for (int64_t i = 0; i < 1000; i++) {
        const struct named_tensor *tensor;

        snprintf(name, sizeof name, "layer%d.weight", (int)i);
        tensor = state_dict_find(dict, name);
        assert_ptr_equal(tensor, state_dict_at(dict, (size_t)i));
        assert_int_equal(*(const int64_t *)tensor->data, i);
    }
    assert_null(state_dict_find(dict, "layer1000.weight"));
    assert_null(state_dict_at(dict, 1000));
    assert_null(state_dict_free(dict));
    assert_null(state_dict_free(NULL));
}

static void impossible_tensors_are_refused(void **state)
{
    struct state_dict *dict = state_dict_new();
    struct err err = {0};
    const int64_t huge[] = {INT64_MAX, INT64_MAX, INT64_MAX}, negative[] = {2, -1}, empty[] = {0, 3};

    (void)state;
    assert_non_null(state_dict_add(dict, "a", DTYPE_F32, 0, NULL, &err));
    assert_null(state_dict_add(dict, "a", DTYPE_F32, 0, NULL, &err));
    assert_string_equal(err.message, "a: there twice");
    assert_null(state_dict_add(dict, "b", DTYPE_F32, 3, huge, &err));
    assert_null(state_dict_add(dict, "b", DTYPE_F32, 1, huge, &err));
    assert_null(state_dict_add(dict, "b", DTYPE_F32, 2, negative, &err));
    assert_null(state_dict_add(dict, "b", DTYPE_F32, TENSOR_MAX_RANK + 1, huge, &err));
    assert_non_null(state_dict_add(dict, "b", DTYPE_F32, 2, empty, &err));
    assert_int_equal(named_tensor_elements(state_dict_find(dict, "b")), 0);
    assert_int_equal(named_tensor_elements(state_dict_find(dict, "a")), 1);
    assert_int_equal(state_dict_count(dict), 2);
    state_dict_free(dict);
}

/* What a value is as float and as int64. */
static void check(enum dtype dtype, const void *stored, float f32, int64_t i64)
{
    struct named_tensor tensor = {.name = "x", .dtype = dtype, .rank = 0, .data = stored};
    float as_float;
    int64_t as_int;

    named_tensor_to_f32(&tensor, &as_float);
    named_tensor_to_i64(&tensor, &as_int);
    if (isnan(f32))
        assert_true(isnan(as_float));
    else
        assert_memory_equal(&as_float, &f32, sizeof f32); /* the sign of zero too */
    assert_int_equal(as_int, i64);
}

static void every_type_converts(void **state)
{
    (void)state;
    check(DTYPE_F32, &(float){-2.75f}, -2.75f, -2);
    check(DTYPE_F32, &(float){NAN}, NAN, 0);
    check(DTYPE_F32, &(float){INFINITY}, INFINITY, INT64_MAX);
    check(DTYPE_F64, &(double){0.1}, 0.1f, 0);
    check(DTYPE_F64, &(double){-1e300}, -INFINITY, INT64_MIN);
    check(DTYPE_F64, &(double){0x1p63}, 0x1p63f, INT64_MAX);
    check(DTYPE_I64, &(int64_t){INT64_MIN}, -0x1p63f, INT64_MIN);
    check(DTYPE_I64, &(int64_t){16777217}, 16777216.0f, 16777217);
    check(DTYPE_I32, &(int32_t){-5}, -5.0f, -5);
    check(DTYPE_I16, &(int16_t){-300}, -300.0f, -300);
    check(DTYPE_I8, &(int8_t){-128}, -128.0f, -128);
    check(DTYPE_U8, &(uint8_t){255}, 255.0f, 255);
    check(DTYPE_BOOL, &(uint8_t){1}, 1.0f, 1);
    check(DTYPE_BF16, &(uint16_t){0x4049}, 3.140625f, 3);
    check(DTYPE_BF16, &(uint16_t){0x8000}, -0.0f, 0);
    /* IEEE 754-2019, binary16: largest, smallest normal, smallest and largest subnormal, zeros, infinities, NaN */
    check(DTYPE_F16, &(uint16_t){0x3C00}, 1.0f, 1);
    check(DTYPE_F16, &(uint16_t){0xC000}, -2.0f, -2);
    check(DTYPE_F16, &(uint16_t){0x7BFF}, 65504.0f, 65504);
    check(DTYPE_F16, &(uint16_t){0x0400}, 0x1p-14f, 0);
    check(DTYPE_F16, &(uint16_t){0x0001}, 0x1p-24f, 0);
    check(DTYPE_F16, &(uint16_t){0x83FF}, -0x1.ff8p-15f, 0);
    check(DTYPE_F16, &(uint16_t){0x8000}, -0.0f, 0);
    check(DTYPE_F16, &(uint16_t){0x7C00}, INFINITY, INT64_MAX);
    check(DTYPE_F16, &(uint16_t){0xFC00}, -INFINITY, INT64_MIN);
    check(DTYPE_F16, &(uint16_t){0x7E00}, NAN, 0);
}

static void types_have_names_and_sizes(void **state)
{
    (void)state;
    assert_int_equal(DTYPE_COUNT, 10);
    assert_string_equal(dtype_name(DTYPE_F32), "F32");
    assert_string_equal(dtype_name(DTYPE_BOOL), "BOOL");
    assert_int_equal(dtype_size(DTYPE_I64), 8);
    assert_int_equal(dtype_size(DTYPE_BF16), 2);
    assert_int_equal(dtype_size(DTYPE_BOOL), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_are_kept_in_order_and_found),
        cmocka_unit_test(impossible_tensors_are_refused),
        cmocka_unit_test(every_type_converts),
        cmocka_unit_test(types_have_names_and_sizes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
