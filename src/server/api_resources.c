/* api_resources.c - devices, slots and limits. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "server/api_internal.h"

static const char *const slot_names[SLOT_KINDS] = {[SLOT_TRAINING] = "training", [SLOT_INFERENCE] = "inference"};

static json_t *rounded(double value, int decimals)
{
    double scale = pow(10, decimals);

    return json_real(isfinite(value) ? round(value * scale) / scale : 0);
}

static json_t *gib(uint64_t bytes)
{
    return rounded((double)bytes / (1 << 30), 2);
}

static json_t *device_slots(const struct api *api, size_t device)
{
    return json_pack("{s:I, s:I}", slot_names[SLOT_TRAINING],
                     (json_int_t)dispatch_used(api->options.dispatch, device, SLOT_TRAINING),
                     slot_names[SLOT_INFERENCE],
                     (json_int_t)dispatch_used(api->options.dispatch, device, SLOT_INFERENCE));
}

json_t *api_device_usage(const struct api *api)
{
    json_t *usage = json_object();

    for (size_t i = 0; i < dispatch_device_count(api->options.dispatch); i++)
        json_object_set_new(usage, dispatch_device_id(api->options.dispatch, i), device_slots(api, i));
    return usage;
}

struct active {
    const struct api *api;
    json_t *devices;
};

static void on_active(void *arg, size_t device, const char *id, const struct task_kind *kind)
{
    struct active *active = arg;
    const char *name = dispatch_device_id(active->api->options.dispatch, device);

    json_array_append_new(json_object_get(active->devices, name),
                          json_pack("{s:s, s:s}", "id", id, "type", kind->name));
}

json_t *api_active_tasks(const struct api *api)
{
    struct active active = {api, json_object()};

    for (size_t i = 0; i < dispatch_device_count(api->options.dispatch); i++)
        json_object_set_new(active.devices, dispatch_device_id(api->options.dispatch, i), json_array());
    dispatch_each_active(api->options.dispatch, on_active, &active);
    return active.devices;
}

/* The contract's keys are always numbers; ours, after them, are null where the driver does not tell. */
static json_t *gpu_json(const struct api *api, size_t i, const struct device_info *gpu)
{
    double share = gpu->memory_total ? 100.0 * (double)gpu->memory_used / (double)gpu->memory_total : 0;
    json_t *json = json_pack("{s:I, s:s, s:s}", "id", (json_int_t)i, "device_name", gpu->id, "name", gpu->name);

    json_object_set_new(json, "compute_capability", json_sprintf("%d.%d", gpu->compute_major, gpu->compute_minor));
    json_object_set_new(json, "total_memory_gb", gib(gpu->memory_total));
    json_object_set_new(json, "allocated_memory_gb", gib(gpu->memory_used));
    json_object_set_new(json, "cached_memory_gb", gib(dispatch_memory(api->options.dispatch, i)));
    json_object_set_new(json, "free_memory_gb", gib(gpu->memory_free));
    json_object_set_new(json, "utilization", rounded(share, 1));
    json_object_set_new(json, "current_tasks", device_slots(api, i));
    json_object_set_new(json, "gpu_utilization",
                        gpu->has & DEVICE_HAS_UTILIZATION ? json_integer(gpu->utilization) : json_null());
    json_object_set_new(json, "temperature_c",
                        gpu->has & DEVICE_HAS_TEMPERATURE ? json_integer(gpu->temperature) : json_null());
    json_object_set_new(json, "power_w", gpu->has & DEVICE_HAS_POWER ? json_integer(gpu->power) : json_null());
    json_object_set_new(json, "uuid", json_string(gpu->uuid));
    json_object_set_new(json, "lost", json_boolean(gpu->lost));
    return json;
}

static json_t *gpu_info(const struct api *api)
{
    const struct device_set *set = monitor_devices(api->options.monitor);
    const char *cuda = device_count(set) ? device_driver_cuda_version(set) : NULL, *note = device_set_note(set);
    json_t *devices = json_array();

    for (size_t i = 0; i < device_count(set); i++)
        json_array_append_new(devices, gpu_json(api, i, device_get(set, i)));
    return json_pack("{s:b, s:I, s:o, s:s?, s:s, s:s?}", "available", device_count(set) > 0, "count",
                     (json_int_t)device_count(set), "devices", devices, "cuda_version", cuda, "pytorch_version",
                     task_engine_version(), "note", note);
}

void api_gpu(struct http_request *request, void *app)
{
    struct api *api = app;

    monitor_touch(api->options.monitor);
    http_reply_json(request, 200, gpu_info(api));
}

void api_resources(struct http_request *request, void *app)
{
    struct api *api = app;

    monitor_touch(api->options.monitor);
    http_reply_json(request, 200,
                    json_pack("{s:o, s:o, s:o, s:o, s:I}", "device_usage", api_device_usage(api), "active_tasks",
                              api_active_tasks(api), "limits", dispatch_limits(api->options.dispatch), "gpu_info",
                              gpu_info(api), "waiting_tasks", (json_int_t)dispatch_waiting(api->options.dispatch)));
}

void api_cpu(struct http_request *request, void *app)
{
    struct api *api = app;
    const struct host_info *host;
    json_t *cores = json_array();
    double used;

    monitor_touch(api->options.monitor);
    host = device_host(monitor_devices(api->options.monitor));
    for (int i = 0; i < host->cores; i++)
        json_array_append_new(cores, rounded(host->per_cpu_percent ? host->per_cpu_percent[i] : 0, 1));
    used = host->memory_total
               ? 100.0 * (double)(host->memory_total - host->memory_available) / (double)host->memory_total
               : 0;
    http_reply_json(request, 200,
                    json_pack("{s:o, s:o, s:i, s:i, s:o, s:{s:o, s:o, s:o}, s:o, s:s, s:o}", "percent",
                              rounded(host->percent, 1), "per_cpu_percent", cores, "cores", host->cores,
                              "physical_cores", host->physical_cores > 0 ? host->physical_cores : host->cores,
                              "freq_mhz", host->freq_mhz > 0 ? rounded(host->freq_mhz, 2) : json_null(), "load_avg",
                              "1", rounded(host->load_avg[0], 2), "5", rounded(host->load_avg[1], 2), "15",
                              rounded(host->load_avg[2], 2), "memory_percent", rounded(used, 1), "cpu_model",
                              host->cpu_model, "total_memory_gb", gib(host->memory_total)));
}

/* ---- limits ---- */

struct config_request {
    json_t *max_concurrent;
};

static const struct field config_fields[] = {
    FIELD(config_request, max_concurrent, OBJECT, .flags = FIELD_NULLABLE,
          .doc = "tasks at a time by device and kind: {\"cuda:0\": {\"training\": 1}}"),
};

const struct field_table api_config_table = FIELD_TABLE("ResourceConfigUpdate", config_request, config_fields);

struct device_limits {
    int64_t training, inference;
};

#define SLOT_RANGE .min = 0, .max = 1e6, .flags = FIELD_HAS_MIN | FIELD_HAS_MAX

static const struct field limit_fields[SLOT_KINDS] = {
    [SLOT_TRAINING] = FIELD(device_limits, training, INT, SLOT_RANGE),
    [SLOT_INFERENCE] = FIELD(device_limits, inference, INT, SLOT_RANGE),
};
static const struct field_table limit_table = FIELD_TABLE("DeviceLimits", device_limits, limit_fields);

/* Puts "max_concurrent" and the device into the places of the faults from `first` on. */
static void deepen(json_t *faults, size_t first, const char *device)
{
    for (size_t i = first; i < json_array_size(faults); i++) {
        json_t *loc = json_object_get(json_array_get(faults, i), "loc");

        json_array_insert_new(loc, 1, json_string("max_concurrent"));
        json_array_insert_new(loc, 2, json_string(device));
    }
}

static void fault_device(const struct api *api, const char *device, const json_t *input, json_t *faults)
{
    const struct dispatch *dispatch = api->options.dispatch;
    json_t *names = json_array(), *ctx = json_pack("{s:o}", "devices", names);
    struct buf msg;

    buf_init(&msg, 4096);
    buf_puts(&msg, "Limits can be set for cuda");
    json_array_append_new(names, json_string("cuda"));
    for (size_t i = 0; i < dispatch_device_count(dispatch); i++) {
        buf_printf(&msg, ", %s", dispatch_device_id(dispatch, i));
        json_array_append_new(names, json_string(dispatch_device_id(dispatch, i)));
    }
    fields_fault(faults, "device_unknown", "body", NULL, msg.data ? msg.data : "", input, ctx);
    deepen(faults, json_array_size(faults) - 1, device);
    json_decref(ctx);
    buf_release(&msg);
}

/* Looks at one device's entry; numbers that were not sent are left alone in *ret. */
static void read_limits(const struct api *api, const char *device, const json_t *entry, struct device_limits *ret,
                        struct arena *arena, json_t *faults)
{
    size_t first = json_array_size(faults);
    const char *kind;
    json_t *value;

    if (!dispatch_knows_device(api->options.dispatch, device)) {
        fault_device(api, device, entry, faults);
        return;
    }
    if (!json_is_object(entry)) {
        fields_fault(faults, "dict_type", "body", NULL, "Input should be a valid dictionary", entry, NULL);
        deepen(faults, first, device);
        return;
    }
    json_object_foreach((json_t *)entry, kind, value)
    {
        if (strcmp(kind, slot_names[SLOT_TRAINING]) != 0 && strcmp(kind, slot_names[SLOT_INFERENCE]) != 0)
            fields_fault(faults, "kind_unknown", "body", kind, "Kind should be training or inference", value, NULL);
    }
    fields_read(&limit_table, entry, "body", ret, arena, faults);
    deepen(faults, first, device);
}

static bool set_limits(const struct api *api, const char *device, const json_t *entry,
                       const struct device_limits *limits, struct err *err)
{
    const int64_t numbers[SLOT_KINDS] = {[SLOT_TRAINING] = limits->training, [SLOT_INFERENCE] = limits->inference};

    for (int slot = 0; slot < SLOT_KINDS; slot++)
        if (json_object_get(entry, slot_names[slot]) &&
            !dispatch_limit_set(api->options.dispatch, device, (enum slot_kind)slot, numbers[slot], err))
            return false;
    return true;
}

/* Changes all or nothing: every entry is looked at before the first is set. */
void api_config(struct http_request *request, void *app)
{
    struct api *api = app;
    struct config_request config;
    struct device_limits limits = {0, 0};
    json_t *faults, *entry;
    const char *device;
    struct err err;

    if (!http_read_body(request, &api_config_table, &config))
        return;
    faults = json_array();
    json_object_foreach(config.max_concurrent, device, entry)
    {
        read_limits(api, device, entry, &limits, http_arena(request), faults);
    }
    if (json_array_size(faults)) {
        http_reply_faults(request, faults);
        return;
    }
    json_object_foreach(config.max_concurrent, device, entry)
    {
        read_limits(api, device, entry, &limits, http_arena(request), faults);
        if (!set_limits(api, device, entry, &limits, &err)) {
            json_decref(faults);
            api_reply_err(request, &err);
            return;
        }
    }
    json_decref(faults);
    http_reply_json(request, 200,
                    json_pack("{s:s, s:s, s:o}", "status", "success", "message",
                              tr("资源配置已更新", "resource configuration updated"), "current_config",
                              dispatch_limits(api->options.dispatch)));
}
