/* api.c - the table of routes, and the API's start and end. */
#include "server/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/api_internal.h"
#include "task/catalog.h"
#include "task/requests.h"

#define TASK_ID "/{task_id}"
#define ROUTE(m, p, h, ...)                                                                                            \
    {                                                                                                                  \
        .method = (m), .path = p, .handle = (h), __VA_ARGS__                                                           \
    }

const struct http_route api_routes[] = {
    ROUTE("GET", "/", api_root, .tag = "Root", .name = "root", .summary = "What this service is"),

    ROUTE("POST", "/api/v2/training/start", api_start_training, .tag = "Training", .name = "start_training",
          .summary = "Start a training", .body = &train_request_table, .answer = "TaskResponse"),
    ROUTE("GET", "/api/v2/training" TASK_ID, api_get_training, .tag = "Training", .name = "get_training_status",
          .summary = "State and metrics of a training", .answer = "TaskResponse"),
    ROUTE("GET", "/api/v2/training" TASK_ID "/logs", api_training_logs, .tag = "Training", .name = "get_training_logs",
          .summary = "Live log of a training, as server-sent events"),
    ROUTE("POST", "/api/v2/training" TASK_ID "/stop", api_stop_training, .tag = "Training", .name = "stop_training",
          .summary = "Stop a training", .answer = "TaskActionResponse"),

    ROUTE("POST", "/api/v2/inference/start", api_start_inference, .tag = "Inference", .name = "start_inference",
          .summary = "Start an inference", .body = &infer_request_table, .answer = "TaskResponse"),
    ROUTE("POST", "/api/v2/inference/batch", api_start_batch, .tag = "Inference", .name = "start_batch_inference",
          .summary = "Start one inference for each path", .body = &infer_batch_request_table,
          .answer = "BatchInferenceResponse"),
    ROUTE("GET", "/api/v2/inference" TASK_ID, api_get_inference, .tag = "Inference", .name = "get_inference_status",
          .summary = "State of an inference", .answer = "TaskResponse"),

    ROUTE("GET", "/api/v2/tasks", api_list_tasks, .tag = "Tasks", .name = "get_all_tasks",
          .summary = "The newest tasks, in the order of creation", .query = &api_list_table,
          .answer = "TaskListResponse"),
    ROUTE("GET", "/api/v2/tasks" TASK_ID, api_get_task, .tag = "Tasks", .name = "get_task",
          .summary = "State of a task", .answer = "TaskResponse"),
    ROUTE("DELETE", "/api/v2/tasks" TASK_ID, api_delete_task, .tag = "Tasks", .name = "delete_task",
          .summary = "Drop the record of a task that is over", .answer = "TaskActionResponse"),
    ROUTE("GET", "/api/v2/tasks" TASK_ID "/logs", api_task_logs, .tag = "Tasks", .name = "get_task_logs",
          .summary = "Live log of a task, as server-sent events"),
    ROUTE("POST", "/api/v2/tasks" TASK_ID "/cancel", api_cancel_task, .tag = "Tasks", .name = "cancel_task",
          .summary = "Cancel a task", .answer = "TaskActionResponse"),

    ROUTE("GET", "/api/v2/models", api_models, .tag = "Models", .name = "list_models",
          .summary = "Models, how large they are and what they take", .query = &catalog_table,
          .answer = "ModelListResponse"),

    /* here is the place of preprocessing */

    ROUTE("GET", "/api/v2/resources", api_resources, .tag = "Resources", .name = "get_resource_status",
          .summary = "Devices, slots and limits", .answer = "ResourceStatusResponse"),
    ROUTE("GET", "/api/v2/resources/gpu", api_gpu, .tag = "Resources", .name = "get_gpu_info",
          .summary = "GPUs and how busy they are", .answer = "GpuInfo"),
    ROUTE("GET", "/api/v2/resources/cpu", api_cpu, .tag = "Resources", .name = "get_cpu_info",
          .summary = "Processor and memory", .answer = "CpuInfo"),
    ROUTE("POST", "/api/v2/resources/config", api_config, .tag = "Resources", .name = "update_resource_config",
          .summary = "Change how many tasks a device runs at a time", .body = &api_config_table,
          .answer = "ConfigUpdateResponse"),

    ROUTE("GET", "/api/v1/health", api_health, .flags = HTTP_PUBLIC, .tag = "Health", .name = "health_check",
          .summary = "Is the service well?", .answer = "HealthResponse"),
    ROUTE("GET", "/api/v1/info", api_info, .tag = "Health", .name = "get_info", .summary = "What this server can do",
          .answer = "InfoResponse"),

    /* and here of the pages /docs and /redoc */
    ROUTE("GET", "/openapi.json", api_openapi, .flags = HTTP_HIDDEN),

    /* routes of older web pages */
    ROUTE("POST", "/api/v2/train", api_start_training, .flags = HTTP_HIDDEN),
    ROUTE("GET", "/api/v2/train" TASK_ID "/logs", api_training_logs, .flags = HTTP_HIDDEN),
    ROUTE("GET", "/api/v1/tasks" TASK_ID, api_get_task, .flags = HTTP_HIDDEN),
};

const size_t api_route_count = sizeof api_routes / sizeof *api_routes;

const struct field_table *api_table(const struct api *api, const struct field_table *table)
{
    return table == &train_request_table         ? &api->training
           : table == &infer_request_table       ? &api->inference
           : table == &infer_batch_request_table ? &api->batch
                                                 : table;
}

void api_reply_err(struct http_request *request, const struct err *err)
{
    if (err->kind == ERR_BUSY)
        http_add_header(request, "retry-after", "5");
    http_reply_err(request, err);
}

/* Copies the table with the setting as the default of one field. */
static bool set_default(struct api *api, struct field_table *table, const char *name, int64_t value)
{
    struct field *rows = arena_memdup(api->arena, table->fields, table->count * sizeof *rows);
    const char *text = arena_printf(api->arena, "%lld", (long long)value);

    if (!rows || !text)
        return false;
    for (size_t i = 0; i < table->count; i++)
        if (!strcmp(rows[i].name, name))
            rows[i].initial = text;
    table->fields = rows;
    return true;
}

static bool set_defaults(struct api *api)
{
    const struct settings *settings = api->options.settings;

    api->training = train_request_table;
    api->inference = infer_request_table;
    api->batch = infer_batch_request_table;
    return set_default(api, &api->training, "priority", settings->default_train_priority) &&
           set_default(api, &api->training, "keep_checkpoints", settings->keep_checkpoints) &&
           set_default(api, &api->inference, "priority", settings->default_inference_priority) &&
           set_default(api, &api->batch, "priority", settings->default_inference_priority);
}

static void api_free(struct api *api)
{
    http_page_free(api->root);
    http_page_free(api->openapi);
    for (size_t i = 0; i < API_LIST_CACHE; i++)
        http_page_free(api->lists[i].page);
    buf_release(&api->health);
    buf_release(&api->resource_status);
    arena_free(api->arena);
    free(api);
}

bool api_start(const struct api_options *options, struct api **ret, struct err *err)
{
    const struct settings *settings = options->settings;
    struct api *api = calloc(1, sizeof *api);
    struct http_options http = {
        .loop = options->loop,
        .host = settings->host,
        .port = (int)settings->port,
        .routes = api_routes,
        .route_count = api_route_count,
        .app = api,
        .answer_held = api_answer_held,
        .api_key = settings->api_key,
        .cors_origins = settings->cors_origins,
    };

    if (!api)
        return err_set(err, ERR_MEMORY, "no memory");
    api->options = *options;
    api->held_end = &api->held_first;
    api->arena = arena_new(0);
    buf_init(&api->health, API_ANSWER_MAX);
    buf_init(&api->resource_status, API_ANSWER_MAX);
    if (!api->arena || !set_defaults(api) || !api_status_open(api)) {
        api_free(api);
        return err_set(err, ERR_MEMORY, "no memory for the API");
    }
    if (!http_server_start(&http, &api->server, err)) {
        api_free(api);
        return false;
    }
    snprintf(api->url, sizeof api->url, strchr(settings->host, ':') ? "http://[%s]:%d" : "http://%s:%d", settings->host,
             http_server_port(api->server));
    *ret = api;
    return true;
}

const char *api_url(const struct api *api)
{
    return api->url;
}

void api_close(struct api *api)
{
    if (!api)
        return;
    http_server_close(api->server);
    api_free(api);
}
