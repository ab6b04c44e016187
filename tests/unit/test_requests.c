/* test_requests.c - the request tables against the contract's own tables (sections 4 and 5): names, order, types,
 * defaults and bounds, written down here a second time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "task/requests.h"

struct expected {
    const char *name;
    enum field_type type;
    bool required, nullable;
    const char *initial; /* JSON */
};

static const struct expected train[] = {
    {"model", FIELD_STRING, true, false, NULL},
    {"num_classes", FIELD_INT, true, false, NULL},
    {"train_path", FIELD_STRING, true, false, NULL},
    {"val_path", FIELD_STRING, true, false, NULL},
    {"save_path", FIELD_STRING, true, false, NULL},
    {"name", FIELD_STRING, false, true, "null"},
    {"batch_size", FIELD_INT, false, false, "8"},
    {"num_epochs", FIELD_INT, false, false, "100"},
    {"learning_rate", FIELD_FLOAT, false, false, "0.0001"},
    {"image_size", FIELD_INT, false, false, "224"},
    {"device", FIELD_STRING, false, false, "\"cuda\""},
    {"weight_path", FIELD_STRING, false, true, "\"\""},
    {"pretrained", FIELD_BOOL, false, false, "true"},
    {"shuffle", FIELD_BOOL, false, false, "true"},
    {"task_id", FIELD_STRING, false, true, "null"},
    {"priority", FIELD_INT, false, false, "5"},
    {"description", FIELD_STRING, false, true, "null"},
};

static const struct expected infer[] = {
    {"cfg_path", FIELD_STRING, true, false, NULL},    {"weight_path", FIELD_STRING, true, false, NULL},
    {"source_path", FIELD_STRING, true, false, NULL}, {"save_path", FIELD_STRING, false, true, "null"},
    {"name", FIELD_STRING, false, true, "null"},      {"device", FIELD_STRING, false, false, "\"cuda\""},
    {"task_id", FIELD_STRING, false, true, "null"},   {"priority", FIELD_INT, false, false, "3"},
};

static const struct expected batch[] = {
    {"cfg_path", FIELD_STRING, true, false, NULL},          {"weight_path", FIELD_STRING, true, false, NULL},
    {"source_paths", FIELD_STRING_LIST, true, false, NULL}, {"save_base_path", FIELD_STRING, false, true, "null"},
    {"device", FIELD_STRING, false, false, "\"cuda\""},     {"priority", FIELD_INT, false, false, "3"},
};

static struct arena *arena;
static json_t *faults;

static int set_up(void **state)
{
    (void)state;
    arena = arena_new(0);
    faults = json_array();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    json_decref(faults);
    arena_free(arena);
    return 0;
}

static json_t *parse(const char *text)
{
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);

    assert_non_null(value);
    return value;
}

/* Ours may follow the contract's, and are never required. */
static void assert_table(const struct field_table *table, const struct expected *expected, size_t n, size_t additions)
{
    assert_int_equal(table->count, n + additions);
    for (size_t i = 0; i < table->count; i++) {
        const struct field *field = &table->fields[i];

        assert_non_null(field->doc);
        if (i >= n) {
            assert_false(field->flags & FIELD_REQUIRED);
            continue;
        }
        assert_string_equal(field->name, expected[i].name);
        assert_int_equal(field->type, expected[i].type);
        assert_int_equal((field->flags & FIELD_REQUIRED) != 0, expected[i].required);
        assert_int_equal((field->flags & FIELD_NULLABLE) != 0, expected[i].nullable);
    }
}

/* The defaults, by reading an object that has only what is required. */
static void assert_defaults(const struct field_table *table, const char *least, const struct expected *expected,
                            size_t n)
{
    json_t *in = parse(least), *out;
    void *request = arena_alloc(arena, table->size);

    assert_true(fields_read(table, in, "body", request, arena, faults));
    out = fields_write(table, request);
    for (size_t i = 0; i < n; i++)
        if (expected[i].initial) {
            json_t *value = parse(expected[i].initial);

            if (!json_equal(json_object_get(out, expected[i].name), value))
                fail_msg("default of %s", expected[i].name);
            json_decref(value);
        }
    json_decref(in);
    json_decref(out);
}

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define TRAIN_LEAST                                                                                                    \
    "{\"model\":\"resnet18\",\"num_classes\":5,\"train_path\":\"t\",\"val_path\":\"v\",\"save_path\":\"s\"}"
#define INFER_LEAST "{\"cfg_path\":\"c\",\"weight_path\":\"w\",\"source_path\":\"s\"}"
#define BATCH_LEAST "{\"cfg_path\":\"c\",\"weight_path\":\"w\",\"source_paths\":[]}"

static void tables_as_in_the_contract(void **state)
{
    (void)state;
    assert_table(&train_request_table, train, COUNT(train), 4);
    assert_table(&infer_request_table, infer, COUNT(infer), 2);
    assert_table(&infer_batch_request_table, batch, COUNT(batch), 1);
}

static void defaults_as_in_the_contract(void **state)
{
    (void)state;
    assert_defaults(&train_request_table, TRAIN_LEAST, train, COUNT(train));
    assert_defaults(&infer_request_table, INFER_LEAST, infer, COUNT(infer));
    assert_defaults(&infer_batch_request_table, BATCH_LEAST, batch, COUNT(batch));
}

/* Reads the least request with one field set otherwise; the type of the fault, or "" when it is accepted. */
static const char *fault_of(const struct field_table *table, const char *least, const char *field, const char *value)
{
    json_t *in = parse(least);
    void *request = arena_alloc(arena, table->size);

    json_object_set_new(in, field, parse(value));
    json_array_clear(faults);
    fields_read(table, in, "body", request, arena, faults);
    json_decref(in);
    if (json_array_size(faults) == 0)
        return "";
    assert_int_equal(json_array_size(faults), 1);
    return json_string_value(json_object_get(json_array_get(faults, 0), "type"));
}

static void bounds_as_in_the_contract(void **state)
{
    static const struct {
        const char *field, *value, *type;
    } cases[] = {
        {"num_classes", "0", "greater_than_equal"},
        {"num_classes", "1", ""},
        {"num_classes", "-3", "greater_than_equal"},
        {"batch_size", "0", "greater_than_equal"},
        {"batch_size", "1", ""},
        {"batch_size", "512", ""},
        {"num_epochs", "0", "greater_than_equal"},
        {"num_epochs", "1", ""},
        {"learning_rate", "0", "greater_than"},
        {"learning_rate", "-0.1", "greater_than"},
        {"learning_rate", "1e-12", ""},
        {"image_size", "31", "greater_than_equal"},
        {"image_size", "32", ""},
        {"image_size", "640", ""},
        {"priority", "0", "greater_than_equal"},
        {"priority", "11", "less_than_equal"},
        {"priority", "10", ""},
        {"pretrained", "null", "bool_type"},
        {"weight_path", "null", ""},
        {"task_id", "null", ""},
        {"device", "null", "string_type"},
        {"keep_checkpoints", "-1", "greater_than_equal"},
        {"seed", "-7", ""},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const char *type = fault_of(&train_request_table, TRAIN_LEAST, cases[i].field, cases[i].value);

        if (strcmp(type, cases[i].type) != 0)
            fail_msg("%s %s: \"%s\", expected \"%s\"", cases[i].field, cases[i].value, type, cases[i].type);
    }
    assert_string_equal(fault_of(&infer_request_table, INFER_LEAST, "priority", "11"), "less_than_equal");
    assert_string_equal(fault_of(&infer_batch_request_table, BATCH_LEAST, "priority", "0"), "greater_than_equal");
    assert_string_equal(fault_of(&infer_batch_request_table, BATCH_LEAST, "source_paths", "\"a\""), "list_type");
}

/* D42: a name must not lead out of save_path. */
static void names_stay_below_save_path(void **state)
{
    static const char *const bad[] = {"\"/etc\"", "\"..\"", "\"a/../../b\""};

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_string_not_equal(fault_of(&train_request_table, TRAIN_LEAST, "name", bad[i]), "");
        assert_string_not_equal(fault_of(&infer_request_table, INFER_LEAST, "name", bad[i]), "");
    }
    assert_string_equal(fault_of(&train_request_table, TRAIN_LEAST, "name", "\"run 1/第一\""), "");
}

static void faults_in_the_tables_order(void **state)
{
    static const char *const order[] = {"model", "num_classes", "train_path", "val_path", "save_path"};
    json_t *in = json_object();
    struct train_request request;

    (void)state;
    assert_false(fields_read(&train_request_table, in, "body", &request, arena, faults));
    assert_int_equal(json_array_size(faults), COUNT(order));
    for (size_t i = 0; i < COUNT(order); i++) {
        json_t *loc = json_object_get(json_array_get(faults, i), "loc");

        assert_string_equal(json_string_value(json_array_get(loc, 1)), order[i]);
    }
    json_decref(in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tables_as_in_the_contract, set_up, tear_down),
        cmocka_unit_test_setup_teardown(defaults_as_in_the_contract, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bounds_as_in_the_contract, set_up, tear_down),
        cmocka_unit_test_setup_teardown(names_stay_below_save_path, set_up, tear_down),
        cmocka_unit_test_setup_teardown(faults_in_the_tables_order, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
