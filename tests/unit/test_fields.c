/* test_fields.c - the lenient conversions, the 422 form, the command line and the schema of field tables. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fields.h"
#include "base/text.h"

struct sample {
    const char *model, *name;
    int64_t batch_size, priority;
    double learning_rate, ratio;
    bool shuffle;
    struct string_list paths;
    json_t *limits;
};

static const struct field rows[] = {
    FIELD(sample, model, STRING, .flags = FIELD_REQUIRED, .doc = "architecture"),
    FIELD(sample, name, STRING, .flags = FIELD_NULLABLE | FIELD_RELATIVE),
    FIELD(sample, batch_size, INT, .initial = "8", .min = 1, .flags = FIELD_HAS_MIN, .doc = "images per step"),
    FIELD(sample, priority, INT, .initial = "5", .min = 1, .max = 10, .flags = FIELD_HAS_MIN | FIELD_HAS_MAX),
    FIELD(sample, learning_rate, FLOAT, .initial = "0.0001", .flags = FIELD_HAS_MIN | FIELD_EXCLUSIVE),
    FIELD(sample, ratio, FLOAT, .min = 0.05, .max = 0.5, .flags = FIELD_NULLABLE | FIELD_HAS_MIN | FIELD_HAS_MAX),
    FIELD(sample, shuffle, BOOL, .initial = "true"),
    FIELD(sample, paths, STRING_LIST, .initial = "[]"),
    FIELD(sample, limits, OBJECT, .flags = FIELD_NULLABLE),
};
static const struct field_table table = FIELD_TABLE("Sample", sample, rows);

static struct arena *arena;
static json_t *faults;

static int set_up(void **state)
{
    (void)state;
    text_set_language("en");
    arena = arena_new(0);
    faults = json_array();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    arena = arena_free(arena);
    json_decref(faults);
    return 0;
}

static bool read_text(const char *text, struct sample *ret)
{
    json_t *in = json_loads(text, JSON_DECODE_ANY, NULL);
    bool ok;

    assert_non_null(in);
    json_array_clear(faults);
    ok = fields_read(&table, in, "body", ret, arena, faults);
    json_decref(in);
    assert_int_equal(ok, json_array_size(faults) == 0);
    return ok;
}

static void test_defaults(void **state)
{
    struct sample s;

    (void)state;
    assert_true(read_text("{\"model\":\"resnet18\",\"unknown\":1}", &s));
    assert_string_equal(s.model, "resnet18");
    assert_null(s.name);
    assert_int_equal(s.batch_size, 8);
    assert_int_equal(s.priority, 5);
    assert_true(s.learning_rate == 0.0001);
    assert_true(isnan(s.ratio));
    assert_true(s.shuffle);
    assert_int_equal(s.paths.count, 0);
    assert_null(s.limits);
}

/* One value for one field: what comes out, or the type of the fault. */
static void test_conversions(void **state)
{
    static const struct {
        const char *field, *value, *fault; /* fault NULL: accepted */
        double number;
    } cases[] = {
        {"batch_size", "4", NULL, 4},
        {"batch_size", "4.0", NULL, 4},
        {"batch_size", "\"4\"", NULL, 4},
        {"batch_size", "\" +4 \"", NULL, 4},
        {"batch_size", "\"4.0\"", NULL, 4},
        {"batch_size", "\"1_000\"", NULL, 1000},
        {"batch_size", "true", NULL, 1},
        {"batch_size", "false", "greater_than_equal", 0},
        {"batch_size", "0", "greater_than_equal", 0},
        {"batch_size", "\"-3\"", "greater_than_equal", 0},
        {"batch_size", "4.5", "int_from_float", 0},
        {"batch_size", "\"4.5\"", "int_parsing", 0},
        {"batch_size", "\"\"", "int_parsing", 0},
        {"batch_size", "\"1__0\"", "int_parsing", 0},
        {"batch_size", "\"_1\"", "int_parsing", 0},
        {"batch_size", "\"0x10\"", "int_parsing", 0},
        {"batch_size", "\"four\"", "int_parsing", 0},
        {"batch_size", "1e30", "less_than_equal", 0},
        {"batch_size", "\"99999999999999999999\"", "less_than_equal", 0},
        {"batch_size", "null", "int_type", 0},
        {"batch_size", "[4]", "int_type", 0},
        {"batch_size", "{}", "int_type", 0},
        {"priority", "10", NULL, 10},
        {"priority", "11", "less_than_equal", 0},
        {"learning_rate", "1", NULL, 1},
        {"learning_rate", "0.5", NULL, 0.5},
        {"learning_rate", "\"1e-3\"", NULL, 0.001},
        {"learning_rate", "true", NULL, 1},
        {"learning_rate", "0", "greater_than", 0},
        {"learning_rate", "\"inf\"", "finite_number", 0},
        {"learning_rate", "\"-Infinity\"", "finite_number", 0},
        {"learning_rate", "\"nan\"", "finite_number", 0},
        {"learning_rate", "\"1e999\"", "finite_number", 0},
        {"learning_rate", "\"0x1p3\"", "float_parsing", 0},
        {"learning_rate", "\"fast\"", "float_parsing", 0},
        {"learning_rate", "null", "float_type", 0},
        {"learning_rate", "[]", "float_type", 0},
        {"ratio", "0.5", NULL, 0.5},
        {"ratio", "0.51", "less_than_equal", 0},
        {"ratio", "0.04", "greater_than_equal", 0},
        {"shuffle", "false", NULL, 0},
        {"shuffle", "1", NULL, 1},
        {"shuffle", "0.0", NULL, 0},
        {"shuffle", "\"YES\"", NULL, 1},
        {"shuffle", "\"off\"", NULL, 0},
        {"shuffle", "\" on\"", "bool_parsing", 0},
        {"shuffle", "\"perhaps\"", "bool_parsing", 0},
        {"shuffle", "2", "bool_parsing", 0},
        {"shuffle", "0.5", "bool_type", 0},
        {"shuffle", "null", "bool_type", 0},
        {"model", "5", "string_type", 0},
        {"model", "null", "string_type", 0},
        {"name", "null", NULL, 0},
        {"name", "\"a/b\"", NULL, 0},
        {"name", "\"a..b\"", NULL, 0},
        {"name", "\"/etc\"", "path_not_relative", 0},
        {"name", "\"..\"", "path_not_relative", 0},
        {"name", "\"a/../../b\"", "path_not_relative", 0},
        {"paths", "[\"a\",\"b\"]", NULL, 0},
        {"paths", "\"a\"", "list_type", 0},
        {"paths", "[\"a\",2]", "string_type", 0},
        {"limits", "{\"cpu\":{}}", NULL, 0},
        {"limits", "null", NULL, 0},
        {"limits", "[]", "dict_type", 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sample s;
        char text[160];
        const struct field *field = rows;
        const char *type;

        while (strcmp(field->name, cases[i].field))
            field++;
        snprintf(text, sizeof text, "{\"model\":\"m\",\"%s\":%s}", cases[i].field, cases[i].value);
        if (read_text(text, &s) != !cases[i].fault)
            fail_msg("%s: %s", text, json_dumps(faults, 0));
        if (cases[i].fault) {
            json_t *fault = json_array_get(faults, 0);

            type = json_string_value(json_object_get(fault, "type"));
            if (strcmp(type, cases[i].fault))
                fail_msg("%s: %s", text, type);
        } else if (field->type == FIELD_INT || field->type == FIELD_FLOAT || field->type == FIELD_BOOL) {
            const void *member = (const char *)&s + field->offset;
            double number = field->type == FIELD_INT     ? (double)*(const int64_t *)member
                            : field->type == FIELD_FLOAT ? *(const double *)member
                                                         : *(const bool *)member;

            if (number != cases[i].number)
                fail_msg("%s: %g", text, number);
        }
    }
}

/* The faults as the contract writes them, in the table's order. */
static void test_fault_form(void **state)
{
    struct sample s;
    char *text;

    (void)state;
    assert_false(
        read_text("{\"learning_rate\":0,\"priority\":11,\"ratio\":0.01,\"paths\":[\"a\",1],\"batch_size\":\"x\"}", &s));
    json_object_del(json_array_get(faults, 0), "input");
    text = json_dumps(faults, JSON_COMPACT);
    assert_string_equal(
        text,
        "[{\"type\":\"missing\",\"loc\":[\"body\",\"model\"],\"msg\":\"Field required\"},"
        "{\"type\":\"int_parsing\",\"loc\":[\"body\",\"batch_size\"],\"msg\":\"Input should be a valid integer, unable "
        "to "
        "parse string as an integer\",\"input\":\"x\"},"
        "{\"type\":\"less_than_equal\",\"loc\":[\"body\",\"priority\"],\"msg\":\"Input should be less than or equal to "
        "10\",\"input\":11,\"ctx\":{\"le\":10}},"
        "{\"type\":\"greater_than\",\"loc\":[\"body\",\"learning_rate\"],\"msg\":\"Input should be greater than "
        "0\",\"input\":0,\"ctx\":{\"gt\":0.0}},"
        "{\"type\":\"greater_than_equal\",\"loc\":[\"body\",\"ratio\"],\"msg\":\"Input should be greater than or equal "
        "to "
        "0.05\",\"input\":0.01,\"ctx\":{\"ge\":0.050000000000000003}},"
        "{\"type\":\"string_type\",\"loc\":[\"body\",\"paths\",1],\"msg\":\"Input should be a valid "
        "string\",\"input\":1}]");
    free(text);
}

/* A missing field's input is the whole object; a missing body has none; no object at all. */
static void test_body_forms(void **state)
{
    struct sample s;
    json_t *fault;

    (void)state;
    assert_false(read_text("{\"batch_size\":3}", &s));
    fault = json_array_get(faults, 0);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(fault, "input"), "batch_size")), 3);

    assert_false(read_text("null", &s));
    fault = json_array_get(faults, 0);
    assert_string_equal(json_string_value(json_object_get(fault, "type")), "missing");
    assert_int_equal(json_array_size(json_object_get(fault, "loc")), 1);
    assert_true(json_is_null(json_object_get(fault, "input")));

    assert_false(read_text("[1]", &s));
    fault = json_array_get(faults, 0);
    assert_string_equal(json_string_value(json_object_get(fault, "type")), "model_attributes_type");
}

/* What is written reads back to the same values. */
static void test_round_trip(void **state)
{
    struct sample s, again;
    json_t *out;

    (void)state;
    assert_true(read_text("{\"model\":\"无人机\",\"batch_size\":32,\"learning_rate\":0.01,\"shuffle\":false,"
                          "\"paths\":[\"a\",\"b\"],\"limits\":{\"cpu\":{\"training\":2}}}",
                          &s));
    out = fields_write(&table, &s);
    assert_int_equal(json_object_size(out), sizeof rows / sizeof *rows);
    assert_true(json_is_null(json_object_get(out, "ratio")));
    assert_true(fields_read(&table, out, "body", &again, arena, faults));
    json_decref(out);
    assert_string_equal(again.model, s.model);
    assert_int_equal(again.batch_size, 32);
    assert_true(again.learning_rate == 0.01);
    assert_false(again.shuffle);
    assert_int_equal(again.paths.count, 2);
    assert_string_equal(again.paths.items[1], "b");
    assert_true(json_equal(again.limits, s.limits));
    assert_true(isnan(again.ratio));
}

static void test_memory_limit(void **state)
{
    struct arena *small = arena_new(64);
    char name[256];
    json_t *in;
    struct sample s;

    (void)state;
    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    in = json_pack("{s:s}", "model", name);
    assert_false(fields_read(&table, in, "body", &s, small, faults));
    assert_string_equal(json_string_value(json_object_get(json_array_get(faults, 0), "type")), "too_large");
    json_decref(in);
    arena_free(small);
}

static void test_arguments(void **state)
{
    char *argv[] = {"train",        "--batch-size",
                    "16",           "--learning-rate=0.5",
                    "--no-shuffle", "--wait",
                    "--paths",      "a, b",
                    "file",         "--ratio",
                    "0.1",          "--",
                    "--model",      NULL};
    int argc = 13;
    struct sample s;
    struct err err;

    (void)state;
    assert_true(fields_defaults(&table, &s, arena));
    assert_true(fields_args(&table, &argc, argv, &s, arena, &err));
    assert_int_equal(s.batch_size, 16);
    assert_true(s.learning_rate == 0.5);
    assert_false(s.shuffle);
    assert_int_equal(s.paths.count, 2);
    assert_string_equal(s.paths.items[1], "b");
    assert_true(s.ratio == 0.1);
    assert_null(s.model);
    assert_int_equal(argc, 5);
    assert_string_equal(argv[1], "--wait");
    assert_string_equal(argv[2], "file");
    assert_string_equal(argv[4], "--model");
}

static void test_argument_errors(void **state)
{
    static const struct {
        const char *option, *value, *message;
    } cases[] = {
        {"--batch-size", "abc", "--batch-size must be a whole number, not \"abc\""},
        {"--batch-size", "0", "--batch-size must be at least 1, not \"0\""},
        {"--priority=99", NULL, "--priority must be at most 10, not \"99\""},
        {"--learning-rate", "0", "--learning-rate must be greater than 0, not \"0\""},
        {"--shuffle=perhaps", NULL, "--shuffle must be true or false, not \"perhaps\""},
        {"--name", "../x", "--name must be a relative path without \"..\", not \"../x\""},
        {"--paths", "[1,", "--paths must be a list, not \"[1,\""},
        {"--model", "\xff", "--model must be UTF-8 text"},
        {"--model", NULL, "--model needs a value after it"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *argv[] = {"train", (char *)cases[i].option, (char *)cases[i].value, NULL};
        int argc = cases[i].value ? 3 : 2;
        struct sample s;
        struct err err;

        fields_defaults(&table, &s, arena);
        assert_false(fields_args(&table, &argc, argv, &s, arena, &err));
        assert_string_equal(err.message, cases[i].message);
    }
}

static void test_schema(void **state)
{
    json_t *schema = fields_schema(&table), *properties = json_object_get(schema, "properties"), *p;

    (void)state;
    assert_string_equal(json_string_value(json_object_get(schema, "title")), "Sample");
    assert_int_equal(json_array_size(json_object_get(schema, "required")), 1);
    p = json_object_get(properties, "batch_size");
    assert_string_equal(json_string_value(json_object_get(p, "title")), "Batch Size");
    assert_int_equal(json_integer_value(json_object_get(p, "minimum")), 1);
    assert_int_equal(json_integer_value(json_object_get(p, "default")), 8);
    p = json_object_get(properties, "learning_rate");
    assert_true(json_real_value(json_object_get(p, "exclusiveMinimum")) == 0);
    p = json_object_get(properties, "name");
    assert_int_equal(json_array_size(json_object_get(p, "anyOf")), 2);
    json_decref(schema);
}

static void test_help(void **state)
{
    struct buf help;

    (void)state;
    buf_init(&help, 10000);
    fields_help(&table, &help);
    assert_non_null(strstr(help.data, "--batch-size N"));
    assert_non_null(strstr(help.data, "images per step (default 8)"));
    assert_non_null(strstr(help.data, "architecture (required)"));
    assert_non_null(strstr(help.data, "--[no-]shuffle"));
    buf_release(&help);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_defaults, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_conversions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_fault_form, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_body_forms, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_round_trip, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_memory_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_arguments, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_argument_errors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_schema, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_help, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
