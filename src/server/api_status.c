/* api_status.c - health, info and the overview at "/". */
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "server/api_internal.h"

static const char type_json[] = "application/json";

static int append_chunk(const char *data, size_t size, void *buf)
{
    buf_append(buf, data, size);
    return 0;
}

bool api_append_json(struct buf *buf, json_t *value)
{
    bool ok = value && !json_dump_callback(value, append_chunk, buf, JSON_COMPACT | JSON_REAL_PRECISION(15));

    json_decref(value);
    return ok && !buf->failed;
}

/* Usage, tasks and limits as text, made anew only when they have changed. */
static bool refresh_resource_status(struct api *api)
{
    uint64_t generation = dispatch_generation(api->options.dispatch);
    size_t gpus = device_count(monitor_devices(api->options.monitor));
    json_t *status;

    if (api->resource_status.size && generation == api->status_generation && gpus == api->status_gpus)
        return true;
    buf_clear(&api->resource_status);
    status = json_pack("{s:o, s:o, s:o, s:b, s:I}", "device_usage", api_device_usage(api), "active_tasks",
                       api_active_tasks(api), "limits", dispatch_limits(api->options.dispatch), "gpu_available",
                       gpus > 0, "gpu_count", (json_int_t)gpus);
    if (!api_append_json(&api->resource_status, status)) {
        buf_clear(&api->resource_status);
        return false;
    }
    api->status_generation = generation;
    api->status_gpus = gpus;
    return true;
}

static void append_count(struct buf *buf, const char *key, int64_t count)
{
    char digits[24];
    size_t at = sizeof digits;

    do
        digits[--at] = (char)('0' + count % 10);
    while (count /= 10);
    buf_puts(buf, key);
    buf_append(buf, digits + at, sizeof digits - at);
}

/* Asked for all the time, so it is put together from parts. */
void api_health(struct http_request *request, void *app)
{
    struct api *api = app;
    struct buf *buf = &api->health;
    const struct store *store = api->options.store;
    char now[CLOCK_ISO_SIZE];
    bool healthy = refresh_resource_status(api);

    clock_iso(now);
    buf_clear(buf);
    buf_puts(buf, healthy ? "{\"status\":\"healthy\",\"timestamp\":\"" : "{\"status\":\"unhealthy\",\"timestamp\":\"");
    buf_puts(buf, now);
    buf_puts(buf, "\",\"version\":");
    buf_json_string(buf, api->options.settings->version);
    append_count(buf, ",\"training_tasks\":", healthy ? store_count(store, "training", TASK_ANY) : 0);
    append_count(buf, ",\"inference_tasks\":", healthy ? store_count(store, "inference", TASK_ANY) : 0);
    append_count(buf, ",\"active_log_streams\":", healthy ? (int64_t)http_server_streams(api->server) : 0);
    buf_puts(buf, ",\"resource_status\":");
    if (healthy)
        buf_append(buf, api->resource_status.data, api->resource_status.size);
    else
        buf_puts(buf, "{}");
    buf_puts(buf, "}");
    http_reply(request, 200, type_json, buf->data, buf->size);
}

static json_t *string_array(const struct string_list *list)
{
    json_t *array = json_array();

    for (size_t i = 0; i < list->count; i++)
        json_array_append_new(array, json_string(list->items[i]));
    return array;
}

void api_info(struct http_request *request, void *app)
{
    struct api *api = app;
    const struct settings *settings = api->options.settings;

    http_reply_json(request, 200,
                    json_pack("{s:s, s:s, s:s, s:o, s:o, s:b}", "app_name", settings->app_name, "version",
                              settings->version, "environment", settings->environment, "supported_models",
                              string_array(&settings->supported_models), "resource_limits",
                              dispatch_limits(api->options.dispatch), "gpu_available",
                              device_count(monitor_devices(api->options.monitor)) > 0));
}

void api_root(struct http_request *request, void *app)
{
    http_reply_page(request, ((struct api *)app)->root);
}

/* The routes as the overview shows them: group → title → "METHOD path". */
static json_t *endpoints(void)
{
    json_t *groups = json_object();

    for (size_t i = 0; i < api_route_count; i++) {
        const struct http_route *route = &api_routes[i];
        json_t *group;

        if (route->flags & HTTP_HIDDEN)
            continue;
        group = json_object_get(groups, route->tag);
        if (!group) {
            group = json_object();
            json_object_set_new(groups, route->tag, group);
        }
        json_object_set_new(group, route->summary, json_sprintf("%s %s", route->method, route->path));
    }
    return groups;
}

static struct http_page *json_page(json_t *value)
{
    struct http_page *page = NULL;
    struct buf buf;

    buf_init(&buf, API_ANSWER_MAX);
    if (api_append_json(&buf, value))
        page = http_page_new(type_json, buf.data, buf.size);
    buf_release(&buf);
    return page;
}

static json_t *overview(const struct settings *settings)
{
    json_t *features =
        json_pack("[s, s, s, s, s]", tr("训练与推理，实时日志", "training and inference with live logs"),
                  tr("按优先级排队，从不超额分配设备", "a queue by priority that never over-commits a device"),
                  tr("启动前即知任务能否运行", "knows before the start whether a job fits"),
                  tr("任务、日志与指标不因崩溃而丢失", "tasks, logs and metrics survive a crash"),
                  tr("检查点与 PyTorch 互通", "checkpoints are exchanged with PyTorch"));

    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:{s:s, s:s}}", "name", settings->app_name, "version",
                     settings->version, "environment", settings->environment, "features", features, "endpoints",
                     endpoints(), "documentation", "swagger", "/docs", "redoc", "/redoc");
}

void api_openapi(struct http_request *request, void *app)
{
    http_reply_page(request, ((struct api *)app)->openapi);
}

bool api_status_open(struct api *api)
{
    api->root = json_page(overview(api->options.settings));
    api->openapi = json_page(openapi_document(api, api_routes, api_route_count));
    return api->root && api->openapi;
}
