/* dispatch_limits.c - who uses what, and how much may be used; see dispatch.h */
#include <stdlib.h>
#include <string.h>

#include "server/dispatch_internal.h"
#include "server/journal.h"

static const char *const slot_names[SLOT_KINDS] = {[SLOT_TRAINING] = "training", [SLOT_INFERENCE] = "inference"};

/* ---- usage ---- */

size_t dispatch_gpus(const struct dispatch *dispatch)
{
    return device_count(monitor_devices(dispatch->options.monitor));
}

size_t dispatch_device_count(const struct dispatch *dispatch)
{
    return dispatch_gpus(dispatch) + 1;
}

const char *dispatch_device_id(const struct dispatch *dispatch, size_t device)
{
    const struct device_info *gpu = device_get(monitor_devices(dispatch->options.monitor), device);

    return gpu ? gpu->id : "cpu";
}

int64_t dispatch_used(const struct dispatch *dispatch, size_t device, enum slot_kind slot)
{
    int64_t used = 0;

    for (size_t i = 0; i < dispatch->running.count; i++)
        used += (size_t)dispatch->running.items[i]->device == device && dispatch->running.items[i]->kind->slot == slot;
    return used;
}

void dispatch_each_active(const struct dispatch *dispatch, dispatch_active_fn *fn, void *arg)
{
    for (size_t i = 0; i < dispatch->running.count; i++)
        fn(arg, (size_t)dispatch->running.items[i]->device, dispatch->running.items[i]->id,
           dispatch->running.items[i]->kind);
}

int64_t dispatch_waiting(const struct dispatch *dispatch)
{
    return (int64_t)dispatch->waiting.count;
}

uint64_t dispatch_generation(const struct dispatch *dispatch)
{
    return dispatch->generation;
}

/* ---- limits ---- */

/* The driver has answered: now the limits can be told apart. */
static void learn_limit(void *arg, const char *device, const char *kind, int64_t n)
{
    struct dispatch *dispatch = arg;

    for (int k = 0; k < SLOT_KINDS; k++)
        if (strcmp(kind, slot_names[k]) == 0)
            limits_set(&dispatch->limits, device, (enum slot_kind)k,
                       n); /* of a GPU that is not there now: kept on disk */
}

void dispatch_learn_devices(struct dispatch *dispatch)
{
    struct limits limits;
    struct err err;

    if (dispatch->knows_devices || !monitor_ready(dispatch->options.monitor))
        return;
    if (!dispatch->broke_at)
        dispatch->broke_at = calloc(dispatch_gpus(dispatch) + 1, sizeof *dispatch->broke_at);
    if (!dispatch->broke_at || !limits_init(&limits, dispatch_gpus(dispatch)))
        return;
    memcpy(limits.cuda, dispatch->limits.cuda, sizeof limits.cuda);
    memcpy(limits.cpu, dispatch->limits.cpu, sizeof limits.cpu);
    limits_release(&dispatch->limits);
    dispatch->limits = limits;
    if (!store_each_limit(dispatch->options.store, learn_limit, dispatch, &err))
        journal(JOURNAL_ERROR, "limits: %s", err.message);
    dispatch->knows_devices = true;
    dispatch->generation++;
}

bool dispatch_knows_device(const struct dispatch *dispatch, const char *device)
{
    int ask;

    return sched_parse_device(device, &ask) && (ask < 0 || (size_t)ask < dispatch_gpus(dispatch));
}

bool dispatch_limit_set(struct dispatch *dispatch, const char *device, enum slot_kind slot, int64_t n, struct err *err)
{
    if (!dispatch_knows_device(dispatch, device) || slot >= SLOT_KINDS || n < 0)
        return err_set(err, ERR_INVALID, "no limit of %lld can be set for %s", (long long)n, device);
    dispatch_learn_devices(dispatch);
    if (!store_limit_set(dispatch->options.store, device, slot_names[slot], n, err))
        return false;
    limits_set(&dispatch->limits, device, slot, n);
    dispatch->generation++;
    journal(JOURNAL_INFO, "limit device=%s kind=%s n=%lld", device, slot_names[slot], (long long)n);
    dispatch_soon(dispatch);
    return true;
}

static void show_limits(const struct dispatch *dispatch, json_t *map, const char *device, int ask)
{
    json_t *entry = json_object();

    for (int k = 0; k < SLOT_KINDS; k++)
        json_object_set_new(entry, slot_names[k], json_integer(limits_get(&dispatch->limits, ask, (enum slot_kind)k)));
    json_object_set_new(map, device, entry);
}

json_t *dispatch_limits(const struct dispatch *dispatch)
{
    json_t *map = json_object();

    show_limits(dispatch, map, "cuda", ASK_ANY_GPU);
    show_limits(dispatch, map, "cpu", ASK_CPU);
    for (size_t i = 0; dispatch_gpus(dispatch) > 1 && i < dispatch_gpus(dispatch); i++)
        show_limits(dispatch, map, dispatch_device_id(dispatch, i), (int)i);
    return map;
}
