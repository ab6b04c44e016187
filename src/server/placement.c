/* placement.c - see placement.h */
#include "server/placement.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/text.h"
#include "server/sched.h"

static const char *text_or_empty(const struct buf *buf)
{
    return buf->data && !buf->failed ? buf->data : "";
}

bool placement_usable(const struct device_info *gpu)
{
    int oldest;

    return task_backend_supports("cuda", gpu->compute_major, &oldest);
}

static bool any_usable(const struct device_set *devices)
{
    for (size_t i = 0; i < device_count(devices); i++)
        if (placement_usable(device_get(devices, i)))
            return true;
    return false;
}

void placement_why_unusable(const struct device_info *gpu, struct buf *out)
{
    int oldest;

    task_backend_supports("cuda", gpu->compute_major, &oldest);
    buf_printf(out,
               tr("%s (%s) 的计算能力为 %d.%d，至少需要 %d.0",
                  "%s (%s) has compute capability %d.%d, at least %d.0 is needed"),
               gpu->id, gpu->name, gpu->compute_major, gpu->compute_minor, oldest);
}

/* "cuda:0, cuda:1 and cpu": those that can be used, or all. */
static void list_devices(const struct device_set *devices, bool all, struct buf *out)
{
    size_t listed = 0;

    for (size_t i = 0; i < device_count(devices); i++)
        if (all || placement_usable(device_get(devices, i)))
            buf_printf(out, "%s%s", listed++ ? ", " : "", device_get(devices, i)->id);
    buf_puts(out, listed ? " and cpu" : "only cpu");
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
    const struct device_info *gpu;

    if (known && *ret_ask == ASK_ANY_GPU && !any_usable(devices))
        *ret_ask = ASK_CPU;
    gpu = known && *ret_ask >= 0 ? device_get(devices, (size_t)*ret_ask) : NULL;
    if (known && (*ret_ask < 0 || (gpu && placement_usable(gpu))))
        return true;
    buf_init(&msg, 1 << 16);
    if (gpu) {
        placement_why_unusable(gpu, &msg);
        buf_puts(&msg, tr("；本机可用: ", "; usable here: "));
    } else if (known)
        buf_printf(&msg, "Device index %d is out of range: this machine has ", *ret_ask);
    else
        buf_printf(&msg,
                   "Device '%.80s' is not known: write 'cuda' for any GPU, or one of what this machine has: ", device);
    list_devices(devices, !gpu, &msg);
    add_fault(faults,
              gpu     ? "device_unsupported"
              : known ? "device_out_of_range"
                      : "device_unknown",
              device, &msg, json_pack("{s:o}", "devices", device_list(devices)));
    buf_release(&msg);
    return false;
}

const char *placement_backend(const struct device_info *gpu)
{
    return gpu && !gpu->fake && task_backend_exists("cuda") ? "cuda" : "cpu";
}

/* What a program can have of a GPU at most. */
static uint64_t room(const struct device_info *gpu)
{
    return gpu->memory_total > gpu->memory_reserved ? gpu->memory_total - gpu->memory_reserved : 0;
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

        if ((ask >= 0 && (size_t)ask != i) || !placement_usable(device) || room(device) <= most)
            continue;
        most = room(device);
        *ret_id = device->id;
        *ret_backend = placement_backend(device);
    }
    return most;
}

static json_t *capacities(const struct device_set *devices)
{
    json_t *map = json_object();

    for (size_t i = 0; i < device_count(devices); i++)
        json_object_set_new(map, device_get(devices, i)->id, json_integer((json_int_t)room(device_get(devices, i))));
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
