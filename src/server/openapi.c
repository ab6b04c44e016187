/* openapi.c - the OpenAPI 3.1 document, made from the routes, the request tables and the table of answers below; in the
 * form that the contract's clients know (operation ids, schema names, 422 answers). */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/fields.h"
#include "server/api_internal.h"

/* One property of an answer. Types: a JSON type, "#Schema", "[]" before it for a list, "{}" for a map of text to it, a
 * '?' behind it when it may be null. */
struct property {
    const char *schema, *name, *type;
};

static const struct property properties[] = {
    {"TaskResponse", "task_id", "string"},
    {"TaskResponse", "task_type", "string"},
    {"TaskResponse", "status", "string"},
    {"TaskResponse", "message", "string?"},
    {"TaskResponse", "progress", "integer?"},
    {"TaskResponse", "device", "string?"},
    {"TaskResponse", "priority", "integer?"},
    {"TaskResponse", "created_at", "string"},
    {"TaskResponse", "updated_at", "string"},
    {"TaskResponse", "current_epoch", "integer?"},
    {"TaskResponse", "total_epochs", "integer?"},
    {"TaskResponse", "latest_metrics", "#TrainingMetrics?"},

    {"TrainingMetrics", "epoch", "integer?"},
    {"TrainingMetrics", "total_epochs", "integer?"},
    {"TrainingMetrics", "train_loss", "number?"},
    {"TrainingMetrics", "train_acc", "number?"},
    {"TrainingMetrics", "val_loss", "number?"},
    {"TrainingMetrics", "val_acc", "number?"},
    {"TrainingMetrics", "macro_f1", "number?"},
    {"TrainingMetrics", "micro_f1", "number?"},
    {"TrainingMetrics", "mAP", "number?"},
    {"TrainingMetrics", "top1_acc", "number?"},
    {"TrainingMetrics", "top3_acc", "number?"},
    {"TrainingMetrics", "top5_acc", "number?"},
    {"TrainingMetrics", "macro_precision", "number?"},
    {"TrainingMetrics", "macro_recall", "number?"},
    {"TrainingMetrics", "micro_precision", "number?"},
    {"TrainingMetrics", "micro_recall", "number?"},
    {"TrainingMetrics", "precision", "number?"},
    {"TrainingMetrics", "recall", "number?"},
    {"TrainingMetrics", "learning_rate", "number?"},
    {"TrainingMetrics", "best_acc", "number?"},

    {"TaskListResponse", "training_tasks", "[]#TaskResponse"},
    {"TaskListResponse", "inference_tasks", "[]#TaskResponse"},
    {"TaskListResponse", "total_training", "integer"},
    {"TaskListResponse", "total_inference", "integer"},

    {"TaskActionResponse", "status", "string"},
    {"TaskActionResponse", "message", "string"},
    {"TaskActionResponse", "task_id", "string"},

    {"ModelListResponse", "image_size", "integer"},
    {"ModelListResponse", "num_classes", "integer"},
    {"ModelListResponse", "batch_size", "integer"},
    {"ModelListResponse", "precision", "string"},
    {"ModelListResponse", "device", "string"},
    {"ModelListResponse", "total", "integer"},
    {"ModelListResponse", "models", "[]#ModelInfo"},

    {"ModelInfo", "name", "string"},
    {"ModelInfo", "class_name", "string"},
    {"ModelInfo", "parameters", "integer?"},
    {"ModelInfo", "flops", "integer?"},
    {"ModelInfo", "training_memory_mb", "number?"},
    {"ModelInfo", "inference_memory_mb", "number?"},
    {"ModelInfo", "note", "string?"},

    {"BatchInferenceResponse", "status", "string"},
    {"BatchInferenceResponse", "message", "string"},
    {"BatchInferenceResponse", "task_ids", "[]string"},
    {"BatchInferenceResponse", "total", "integer"},

    {"SlotCounts", "training", "integer"},
    {"SlotCounts", "inference", "integer"},

    {"ActiveTask", "id", "string"},
    {"ActiveTask", "type", "string"},

    {"GpuDevice", "id", "integer"},
    {"GpuDevice", "device_name", "string"},
    {"GpuDevice", "name", "string"},
    {"GpuDevice", "compute_capability", "string"},
    {"GpuDevice", "total_memory_gb", "number"},
    {"GpuDevice", "allocated_memory_gb", "number"},
    {"GpuDevice", "cached_memory_gb", "number"},
    {"GpuDevice", "free_memory_gb", "number"},
    {"GpuDevice", "utilization", "number"},
    {"GpuDevice", "current_tasks", "#SlotCounts"},
    {"GpuDevice", "gpu_utilization", "integer?"},
    {"GpuDevice", "temperature_c", "integer?"},
    {"GpuDevice", "power_w", "integer?"},
    {"GpuDevice", "uuid", "string"},
    {"GpuDevice", "lost", "boolean"},

    {"GpuInfo", "available", "boolean"},
    {"GpuInfo", "count", "integer"},
    {"GpuInfo", "devices", "[]#GpuDevice"},
    {"GpuInfo", "cuda_version", "string?"},
    {"GpuInfo", "pytorch_version", "string"},
    {"GpuInfo", "note", "string?"},

    {"CpuInfo", "percent", "number"},
    {"CpuInfo", "per_cpu_percent", "[]number"},
    {"CpuInfo", "cores", "integer"},
    {"CpuInfo", "physical_cores", "integer"},
    {"CpuInfo", "freq_mhz", "number?"},
    {"CpuInfo", "load_avg", "{}number?"},
    {"CpuInfo", "memory_percent", "number"},
    {"CpuInfo", "cpu_model", "string"},
    {"CpuInfo", "total_memory_gb", "number"},

    {"ResourceStatusResponse", "device_usage", "{}#SlotCounts"},
    {"ResourceStatusResponse", "active_tasks", "{}[]#ActiveTask"},
    {"ResourceStatusResponse", "limits", "{}#SlotCounts"},
    {"ResourceStatusResponse", "gpu_info", "#GpuInfo"},
    {"ResourceStatusResponse", "waiting_tasks", "integer"},

    {"ConfigUpdateResponse", "status", "string"},
    {"ConfigUpdateResponse", "message", "string"},
    {"ConfigUpdateResponse", "current_config", "{}#SlotCounts"},

    {"HealthResponse", "status", "string"},
    {"HealthResponse", "timestamp", "string"},
    {"HealthResponse", "version", "string"},
    {"HealthResponse", "training_tasks", "integer"},
    {"HealthResponse", "inference_tasks", "integer"},
    {"HealthResponse", "active_log_streams", "integer"},
    {"HealthResponse", "resource_status", "object"},

    {"InfoResponse", "app_name", "string"},
    {"InfoResponse", "version", "string"},
    {"InfoResponse", "environment", "string"},
    {"InfoResponse", "supported_models", "[]string"},
    {"InfoResponse", "resource_limits", "{}#SlotCounts"},
    {"InfoResponse", "gpu_available", "boolean"},

    {"ValidationError", "loc", "[]any"},
    {"ValidationError", "msg", "string"},
    {"ValidationError", "type", "string"},

    {"HTTPValidationError", "detail", "[]#ValidationError"},
};

static json_t *reference(const char *schema)
{
    return json_pack("{s:o}", "$ref", json_sprintf("#/components/schemas/%s", schema));
}

/* The schema of a type in the notation of struct property. */
static json_t *type_schema(const char *type, size_t length)
{
    if (length && type[length - 1] == '?')
        return json_pack("{s:[o, {s:s}]}", "anyOf", type_schema(type, length - 1), "type", "null");
    if (!strncmp(type, "[]", 2))
        return json_pack("{s:s, s:o}", "type", "array", "items", type_schema(type + 2, length - 2));
    if (!strncmp(type, "{}", 2))
        return json_pack("{s:s, s:o}", "type", "object", "additionalProperties", type_schema(type + 2, length - 2));
    if (*type == '#')
        return json_pack("{s:o}", "$ref", json_sprintf("#/components/schemas/%.*s", (int)length - 1, type + 1));
    if (!strncmp(type, "any", length))
        return json_pack("{s:[{s:s}, {s:s}]}", "anyOf", "type", "string", "type", "integer");
    return json_pack("{s:s#}", "type", type, (int)length);
}

static json_t *answer_schemas(void)
{
    json_t *schemas = json_object();

    for (size_t i = 0; i < sizeof properties / sizeof *properties; i++) {
        const struct property *row = &properties[i];
        json_t *schema = json_object_get(schemas, row->schema);

        if (!schema) {
            schema =
                json_pack("{s:s, s:s, s:{}, s:[]}", "type", "object", "title", row->schema, "properties", "required");
            json_object_set_new(schemas, row->schema, schema);
        }
        json_object_set_new(json_object_get(schema, "properties"), row->name,
                            type_schema(row->type, strlen(row->type)));
        if (strcmp(row->schema, "TrainingMetrics") != 0)
            json_array_append_new(json_object_get(schema, "required"), json_string(row->name));
    }
    return schemas;
}

static json_t *json_content(json_t *schema)
{
    return json_pack("{s:{s:o}}", "application/json", "schema", schema);
}

static json_t *parameter(const char *where, const char *name, bool required, json_t *schema)
{
    return json_pack("{s:s, s:s, s:b, s:o}", "name", name, "in", where, "required", required, "schema", schema);
}

/* The parameters of path and query; an empty array when there is none. */
static json_t *parameters(const struct api *api, const struct http_route *route)
{
    json_t *list = json_array(), *schema, *value;
    const char *brace = strchr(route->path, '{'), *name;

    if (brace) {
        int length = (int)strcspn(brace + 1, "}");
        char param[64];

        snprintf(param, sizeof param, "%.*s", length, brace + 1);
        json_array_append_new(list, parameter("path", param, true, json_pack("{s:s}", "type", "string")));
    }
    if (route->query) {
        schema = fields_schema(api_table(api, route->query));
        json_object_foreach(json_object_get(schema, "properties"), name, value)
        {
            json_array_append_new(list, parameter("query", name, false, json_incref(value)));
        }
        json_decref(schema);
    }
    return list;
}

/* "get_task", "/api/v2/tasks/{task_id}", "GET": get_task_api_v2_tasks__task_id__get */
static json_t *operation_id(const struct http_route *route)
{
    char id[256];
    int n = snprintf(id, sizeof id, "%s%s_%s", route->name, route->path, route->method);

    for (int i = 0; i < n && id[i]; i++)
        id[i] = isalnum((unsigned char)id[i]) ? id[i] : '_';
    for (char *p = id + strlen(id) - strlen(route->method); *p; p++)
        *p = (char)tolower((unsigned char)*p);
    return json_string(id);
}

static json_t *operation(const struct api *api, const struct http_route *route)
{
    json_t *params = parameters(api, route), *responses = json_object(), *op;
    bool validated = route->body || json_array_size(params);

    op = json_pack("{s:[s], s:s, s:o}", "tags", route->tag, "summary", route->summary, "operationId",
                   operation_id(route));
    if (json_array_size(params))
        json_object_set(op, "parameters", params);
    json_decref(params);
    if (route->body)
        json_object_set_new(
            op, "requestBody",
            json_pack("{s:b, s:o}", "required", 1, "content", json_content(reference(route->body->title))));
    json_object_set_new(responses, "200",
                        json_pack("{s:s, s:o}", "description", "Successful Response", "content",
                                  json_content(route->answer ? reference(route->answer) : json_object())));
    if (validated)
        json_object_set_new(responses, "422",
                            json_pack("{s:s, s:o}", "description", "Validation Error", "content",
                                      json_content(reference("HTTPValidationError"))));
    json_object_set_new(op, "responses", responses);
    return op;
}

json_t *openapi_document(const struct api *api, const struct http_route *routes, size_t n)
{
    const struct settings *settings = api->options.settings;
    json_t *paths = json_object(), *schemas = answer_schemas();

    for (size_t i = 0; i < n; i++) {
        const struct http_route *route = &routes[i];
        json_t *path;
        char method[16];

        if (route->flags & HTTP_HIDDEN)
            continue;
        path = json_object_get(paths, route->path);
        if (!path) {
            path = json_object();
            json_object_set_new(paths, route->path, path);
        }
        snprintf(method, sizeof method, "%s", route->method);
        for (char *p = method; *p; p++)
            *p = (char)tolower((unsigned char)*p);
        json_object_set_new(path, method, operation(api, route));
        if (route->body)
            json_object_set_new(schemas, route->body->title, fields_schema(api_table(api, route->body)));
    }
    return json_pack("{s:s, s:{s:s, s:s, s:s}, s:o, s:{s:o}}", "openapi", "3.1.0", "info", "title", settings->app_name,
                     "description", settings->description, "version", settings->version, "paths", paths, "components",
                     "schemas", schemas);
}
