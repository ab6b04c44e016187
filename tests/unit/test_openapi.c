/* test_openapi.c - the OpenAPI document is complete and consistent: operations, ids, tags, schemas, references. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/version.h"
#include "server/api_internal.h"
#include "task/requests.h"

static json_t *document;

static int set_up(void **state)
{
    struct settings settings = {.app_name = "Service", .description = "无人机", .version = RFUAV_VERSION};
    struct api api = {.options = {.settings = &settings},
                      .training = train_request_table,
                      .inference = infer_request_table,
                      .batch = infer_batch_request_table};

    (void)state;
    document = openapi_document(&api, api_routes, api_route_count);
    return !document;
}

static int tear_down(void **state)
{
    (void)state;
    json_decref(document);
    return 0;
}

static json_t *at(const char *a, const char *b)
{
    return json_object_get(json_object_get(document, a), b);
}

static void test_info(void **state)
{
    (void)state;
    assert_string_equal(json_string_value(json_object_get(document, "openapi")), "3.1.0");
    assert_string_equal(json_string_value(at("info", "title")), "Service");
    assert_string_equal(json_string_value(at("info", "description")), "无人机");
    assert_string_equal(json_string_value(at("info", "version")), RFUAV_VERSION);
}

/* the contract's table of operations, as far as they exist, and ours */
static const struct {
    const char *method, *path, *tag, *answer, *body;
} operations[] = {
    {"get", "/", "Root", NULL, NULL},
    {"post", "/api/v2/training/start", "Training", "TaskResponse", "TrainingRequest"},
    {"get", "/api/v2/training/{task_id}", "Training", "TaskResponse", NULL},
    {"get", "/api/v2/training/{task_id}/logs", "Training", NULL, NULL},
    {"post", "/api/v2/training/{task_id}/stop", "Training", "TaskActionResponse", NULL},
    {"post", "/api/v2/inference/start", "Inference", "TaskResponse", "InferenceRequest"},
    {"post", "/api/v2/inference/batch", "Inference", "BatchInferenceResponse", "BatchInferenceRequest"},
    {"get", "/api/v2/inference/{task_id}", "Inference", "TaskResponse", NULL},
    {"get", "/api/v2/tasks", "Tasks", "TaskListResponse", NULL},
    {"get", "/api/v2/tasks/{task_id}", "Tasks", "TaskResponse", NULL},
    {"get", "/api/v2/tasks/{task_id}/logs", "Tasks", NULL, NULL},
    {"post", "/api/v2/tasks/{task_id}/cancel", "Tasks", "TaskActionResponse", NULL},
    {"delete", "/api/v2/tasks/{task_id}", "Tasks", "TaskActionResponse", NULL},
    {"get", "/api/v2/models", "Models", "ModelListResponse", NULL},
    {"get", "/api/v2/resources", "Resources", "ResourceStatusResponse", NULL},
    {"get", "/api/v2/resources/gpu", "Resources", "GpuInfo", NULL},
    {"get", "/api/v2/resources/cpu", "Resources", "CpuInfo", NULL},
    {"post", "/api/v2/resources/config", "Resources", "ConfigUpdateResponse", "ResourceConfigUpdate"},
    {"get", "/api/v1/health", "Health", "HealthResponse", NULL},
    {"get", "/api/v1/info", "Health", "InfoResponse", NULL},
};

enum { OPERATIONS = sizeof operations / sizeof *operations };

/* The schema name of {"application/json": {"schema": {"$ref": …}}}; NULL: none. */
static const char *schema_of(const json_t *content)
{
    const json_t *schema = json_object_get(json_object_get(content, "application/json"), "schema");
    const char *ref = json_string_value(json_object_get(schema, "$ref"));

    return ref ? ref + strlen("#/components/schemas/") : NULL;
}

static void expect_name(const char *path, const char *name, const char *wanted)
{
    if (!name != !wanted || (name && strcmp(name, wanted)))
        fail_msg("%s: %s instead of %s", path, name ? name : "nothing", wanted ? wanted : "nothing");
}

static void test_operations(void **state)
{
    size_t count = 0;
    const char *path;
    json_t *methods;

    (void)state;
    json_object_foreach(json_object_get(document, "paths"), path, methods)
    {
        count += json_object_size(methods);
    }
    assert_int_equal(count, OPERATIONS);
    for (size_t i = 0; i < OPERATIONS; i++) {
        json_t *op = json_object_get(at("paths", operations[i].path), operations[i].method);
        json_t *ok = json_object_get(json_object_get(op, "responses"), "200");
        bool validated = operations[i].body || strchr(operations[i].path, '{') ||
                         !strcmp(operations[i].path, "/api/v2/tasks") || !strcmp(operations[i].path, "/api/v2/models");

        if (!op)
            fail_msg("no %s %s", operations[i].method, operations[i].path);
        assert_string_equal(json_string_value(json_array_get(json_object_get(op, "tags"), 0)), operations[i].tag);
        expect_name(operations[i].path, schema_of(json_object_get(ok, "content")), operations[i].answer);
        expect_name(operations[i].path, schema_of(json_object_get(json_object_get(op, "requestBody"), "content")),
                    operations[i].body);
        assert_int_equal(json_object_get(json_object_get(op, "responses"), "422") != NULL, validated);
    }
}

static void test_operation_ids(void **state)
{
    json_t *seen = json_object(), *methods, *op;
    const char *path, *method;

    (void)state;
    json_object_foreach(json_object_get(document, "paths"), path, methods)
    {
        json_object_foreach(methods, method, op)
        {
            const char *id = json_string_value(json_object_get(op, "operationId"));

            assert_non_null(id);
            assert_int_equal(strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789_"), strlen(id));
            if (json_object_get(seen, id))
                fail_msg("%s is there twice", id);
            json_object_set_new(seen, id, json_true());
        }
    }
    assert_non_null(json_object_get(seen, "start_training_api_v2_training_start_post"));
    assert_non_null(json_object_get(seen, "get_task_api_v2_tasks__task_id__get"));
    json_decref(seen);
}

static void test_parameters(void **state)
{
    json_t *list = json_object_get(json_object_get(at("paths", "/api/v2/tasks"), "get"), "parameters");
    json_t *path = json_object_get(json_object_get(at("paths", "/api/v2/tasks/{task_id}"), "get"), "parameters");

    (void)state;
    assert_int_equal(json_array_size(list), 3);
    assert_int_equal(json_array_size(path), 1);
    assert_string_equal(json_string_value(json_object_get(json_array_get(path, 0), "in")), "path");
    assert_string_equal(json_string_value(json_object_get(json_array_get(path, 0), "name")), "task_id");
    assert_true(json_is_true(json_object_get(json_array_get(path, 0), "required")));
}

static void test_schema_names(void **state)
{
    static const char *const names[] = {
        "BatchInferenceRequest",  "BatchInferenceResponse", "ConfigUpdateResponse", "HTTPValidationError",
        "HealthResponse",         "InferenceRequest",       "InfoResponse",         "ResourceConfigUpdate",
        "ResourceStatusResponse", "TaskActionResponse",     "TaskListResponse",     "TaskResponse",
        "TrainingMetrics",        "TrainingRequest",        "ValidationError",
    };

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        json_t *schema = json_object_get(at("components", "schemas"), names[i]);

        if (!schema)
            fail_msg("no schema %s", names[i]);
        assert_string_equal(json_string_value(json_object_get(schema, "title")), names[i]);
        assert_true(json_object_size(json_object_get(schema, "properties")) > 0);
    }
}

/* Every $ref leads to a schema; every required property is one that the schema has. */
static void check_references(const json_t *value)
{
    const char *key, *ref = json_string_value(json_object_get(value, "$ref"));
    json_t *item, *required = json_object_get(value, "required");
    size_t i;

    if (ref) {
        assert_int_equal(strncmp(ref, "#/components/schemas/", 21), 0);
        if (!json_object_get(at("components", "schemas"), ref + 21))
            fail_msg("%s leads nowhere", ref);
    }
    json_array_foreach(required, i, item)
    {
        assert_non_null(json_object_get(json_object_get(value, "properties"), json_string_value(item)));
    }
    json_object_foreach((json_t *)value, key, item)
    {
        check_references(item);
    }
    json_array_foreach(value, i, item)
    {
        check_references(item);
    }
}

static void test_references(void **state)
{
    (void)state;
    check_references(document);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_info),       cmocka_unit_test(test_operations),   cmocka_unit_test(test_operation_ids),
        cmocka_unit_test(test_parameters), cmocka_unit_test(test_schema_names), cmocka_unit_test(test_references),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
