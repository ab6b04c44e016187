/* placement.c - see placement.h */
#include "server/placement.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "server/sched.h"

static const char *text_or_empty(const struct buf *buf)
{
    return buf->data && !buf->failed ? buf->data : "";
}

/* "cuda:0, cuda:1 and cpu" */
static void list_devices(const struct device_set *devices, struct buf *out)
{
    size_t count = device_count(devices);

    for (size_t i = 0; i < count; i++)
        buf_printf(out, "%s%s", i ? ", " : "", device_get(devices, i)->id);
    buf_puts(out, count ? " and cpu" : "only cpu");
}

static json_t *device_list(const struct device_set *devices)
{
    json_t *list = json_array();

    for (size_t i = 0; i < device_count(devices); i++)
        json_array_append_new(list, json_string(device_get(devices, i)->id));
    json_array_append_new(list, json_string("cpu"));
    return list;
}

static void add_fault(json_t *faults, const char *type, const char *device, const struct buf *msg, json_t *ctx)
{
    json_t *input = json_string(device);

    fields_fault(faults, type, "body", "device", text_or_empty(msg), input, ctx);
    json_decref(input);
    json_decref(ctx);
}

static bool parse_device(const struct device_set *devices, const char *device, int *ret_ask, json_t *faults)
{
    struct buf msg;
    bool known = sched_parse_device(device, ret_ask);

    if (known && *ret_ask == ASK_ANY_GPU && device_count(devices) == 0)
        *ret_ask = ASK_CPU;
    if (known && (*ret_ask < 0 || (size_t)*ret_ask < device_count(devices)))
        return true;
    buf_init(&msg, 1 << 16);
    if (known)
        buf_printf(&msg, "Device index %d is out of range: this machine has ", *ret_ask);
    else
        buf_printf(&msg,
                   "Device '%.80s' is not known: write 'cuda' for any GPU, or one of what this machine has: ", device);
    list_devices(devices, &msg);
    add_fault(faults, known ? "device_out_of_range" : "device_unknown", device, &msg,
              json_pack("{s:o}", "devices", device_list(devices)));
    buf_release(&msg);
    return false;
}

const char *placement_backend(const struct device_info *gpu)
{
    return gpu && !gpu->fake && task_backend_exists("cuda") ? "cuda" : "cpu";
}

/* The largest memory among the devices that may be meant, its name, and what runs there. */
static uint64_t capacity(const struct device_set *devices, int ask, const char **ret_id, const char **ret_backend)
{
    uint64_t most = 0;

    *ret_id = "cpu";
    *ret_backend = "cpu";
    if (ask == ASK_CPU)
        return device_host(devices)->memory_total;
    for (size_t i = 0; i < device_count(devices); i++) {
        const struct device_info *device = device_get(devices, i);

        if ((ask >= 0 && (size_t)ask != i) || device->memory_total <= most)
            continue;
        most = device->memory_total;
        *ret_id = device->id;
        *ret_backend = placement_backend(device);
    }
    return most;
}

static json_t *capacities(const struct device_set *devices)
{
    json_t *map = json_object();

    for (size_t i = 0; i < device_count(devices); i++)
        json_object_set_new(map, device_get(devices, i)->id,
                            json_integer((json_int_t)device_get(devices, i)->memory_total));
    json_object_set_new(map, "cpu", json_integer((json_int_t)device_host(devices)->memory_total));
    return map;
}

bool placement_check(const struct device_set *devices, const struct task_kind *kind, const void *request,
                     struct placement *ret, json_t *faults)
{
    const char *device, *id, *backend;
    char advice[300] = "";
    struct placement placement = {0};
    uint64_t available;
    struct buf msg;

    memcpy(&device, (const char *)request + kind->device_offset, sizeof device);
    if (!parse_device(devices, device ? device : "", &placement.ask, faults))
        return false;
    available = capacity(devices, placement.ask, &id, &backend);
    placement.memory = kind->memory ? kind->memory(request, backend, available, advice, sizeof advice) : 0;
    if (available == 0 || placement.memory <= available) { /* 0: the driver does not say */
        *ret = placement;
        return true;
    }
    buf_init(&msg, 4096);
    buf_printf(&msg, "The job needs %.1f GB, but %s has %.1f GB", (double)placement.memory / (1 << 30), id,
               (double)available / (1 << 30));
    if (advice[0])
        buf_printf(&msg, ": %s", advice);
    add_fault(faults, "does_not_fit", device, &msg,
              json_pack("{s:I, s:o, s:s}", "needed_bytes", (json_int_t)placement.memory, "available_bytes",
                        capacities(devices), "advice", advice));
    buf_release(&msg);
    return false;
}
