/* device.c - a device set: sampled on any thread, published on the reader's; see device.h */
#include "device/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "device/internal.h"

struct state {
    struct device_info *gpus; /* (count), allocated once, so that pointers stay valid */
    size_t count;
    struct host_info host;
    double *per_cpu_percent; /* (cores) */
    char note[sizeof((struct err *)0)->message], cuda[16];
};

struct device_set {
    bool from_file, asked; /* asked: the driver has been, with or without an answer */
    bool ready;
    struct nvml *nvml;
    size_t *nvml_index; /* (next.count) the driver's number of each GPU */
    struct host_sampler *sampler;
    uint64_t *occupied; /* (shown.count) of devices from a file */
    struct state next, shown;
};

static void name_devices(struct state *state)
{
    for (size_t i = 0; i < state->count; i++)
        snprintf(state->gpus[i].id, sizeof state->gpus[i].id, "cuda:%hu", (unsigned short)i);
}

static void release_state(struct state *state)
{
    free(state->gpus);
    free(state->per_cpu_percent);
}

static bool alloc_percent(struct state *state, const struct host_info *host)
{
    state->host = *host;
    state->per_cpu_percent = calloc((size_t)host->cores, sizeof *state->per_cpu_percent);
    state->host.per_cpu_percent = state->per_cpu_percent;
    return state->per_cpu_percent;
}

bool device_set_new(const char *file, struct device_set **ret, struct err *err)
{
    struct device_set *set = calloc(1, sizeof *set);

    if (!set || !(set->sampler = host_sampler_new()) || !alloc_percent(&set->next, host_sampled(set->sampler)) ||
        !alloc_percent(&set->shown, host_sampled(set->sampler))) {
        device_set_free(set);
        err_set(err, ERR_MEMORY, "no memory for the list of devices");
        return false;
    }
    set->from_file = file && *file;
    if (set->from_file && !device_file_read(file, &set->next.gpus, &set->next.count, err)) {
        device_set_free(set);
        return false;
    }
    name_devices(&set->next);
    if (set->from_file && set->next.count == 0)
        snprintf(set->next.note, sizeof set->next.note,
                 tr("设备文件 %s 中没有设备", "the device file %s lists no device"), file);
    device_set_publish(set);
    set->ready = set->from_file;
    *ret = set;
    return true;
}

/* The driver's devices, as CUDA_VISIBLE_DEVICES lets them be seen. */
static void ask_driver(struct device_set *set)
{
    struct device_info *all = NULL;
    size_t count = 0;
    struct err err;

    if (!nvml_open(&set->nvml, &err)) {
        memcpy(set->next.note, err.message, sizeof set->next.note);
        return;
    }
    snprintf(set->next.cuda, sizeof set->next.cuda, "%s", nvml_cuda_version(set->nvml));
    count = nvml_count(set->nvml);
    all = calloc(count, sizeof *all);
    set->nvml_index = calloc(count, sizeof *set->nvml_index);
    set->next.gpus = calloc(count, sizeof *set->next.gpus);
    if (!all || !set->nvml_index || !set->next.gpus) {
        snprintf(set->next.note, sizeof set->next.note, "no memory for %zu GPUs", count);
        free(all);
        return;
    }
    for (size_t i = 0; i < count; i++)
        nvml_describe(set->nvml, i, &all[i]);
    set->next.count = device_visible(getenv("CUDA_VISIBLE_DEVICES"), all, count, set->nvml_index);
    for (size_t i = 0; i < set->next.count; i++)
        set->next.gpus[i] = all[set->nvml_index[i]];
    if (set->next.count == 0)
        snprintf(set->next.note, sizeof set->next.note,
                 tr("CUDA_VISIBLE_DEVICES=\"%.64s\" 隐藏了全部 %zu 个 GPU",
                    "CUDA_VISIBLE_DEVICES=\"%.64s\" hides all %zu GPUs"),
                 getenv("CUDA_VISIBLE_DEVICES"), count);
    name_devices(&set->next);
    free(all);
}

void device_set_sample(struct device_set *set)
{
    if (!set->asked && !set->from_file)
        ask_driver(set);
    set->asked = true;
    for (size_t i = 0; set->nvml && i < set->next.count; i++)
        nvml_measure(set->nvml, set->nvml_index[i], &set->next.gpus[i]);
    host_sample(set->sampler);
    set->next.host = *host_sampled(set->sampler);
    memcpy(set->next.per_cpu_percent, set->next.host.per_cpu_percent,
           (size_t)set->next.host.cores * sizeof *set->next.per_cpu_percent);
}

/* `used` of a device from a file: what the file says and what our tasks take. */
static void show_occupied(struct device_set *set, size_t i)
{
    const struct device_info *given = &set->next.gpus[i];
    uint64_t taken = set->occupied[i] < given->memory_free ? set->occupied[i] : given->memory_free;

    set->shown.gpus[i].memory_used = given->memory_used + taken;
    set->shown.gpus[i].memory_free = given->memory_free - taken;
}

void device_set_publish(struct device_set *set)
{
    struct state *shown = &set->shown, *next = &set->next;

    if (!shown->gpus && next->count) {
        shown->gpus = calloc(next->count, sizeof *shown->gpus);
        set->occupied = calloc(next->count, sizeof *set->occupied);
        if (!shown->gpus || !set->occupied)
            return; /* tried again with the next sample */
        shown->count = next->count;
    }
    if (shown->gpus)
        memcpy(shown->gpus, next->gpus, shown->count * sizeof *shown->gpus);
    for (size_t i = 0; set->from_file && shown->gpus && i < shown->count; i++)
        show_occupied(set, i);
    memcpy(shown->per_cpu_percent, next->per_cpu_percent, (size_t)next->host.cores * sizeof *shown->per_cpu_percent);
    shown->host = next->host;
    shown->host.per_cpu_percent = shown->per_cpu_percent;
    memcpy(shown->note, next->note, sizeof shown->note);
    memcpy(shown->cuda, next->cuda, sizeof shown->cuda);
    set->ready = set->ready || set->asked;
}

void device_set_occupy(struct device_set *set, size_t i, uint64_t bytes)
{
    if (!set->from_file || !set->shown.gpus || i >= set->shown.count)
        return;
    set->occupied[i] = bytes;
    show_occupied(set, i);
}

bool device_set_open(const char *file, struct device_set **ret, struct err *err)
{
    struct device_set *set;

    if (!device_set_new(file, &set, err))
        return false;
    device_set_refresh(set);
    *ret = set;
    return true;
}

void device_set_refresh(struct device_set *set)
{
    device_set_sample(set);
    device_set_publish(set);
}

bool device_set_ready(const struct device_set *set)
{
    return set->ready;
}

size_t device_count(const struct device_set *set)
{
    return set->shown.count;
}

const struct device_info *device_get(const struct device_set *set, size_t i)
{
    return i < set->shown.count ? &set->shown.gpus[i] : NULL;
}

const struct host_info *device_host(const struct device_set *set)
{
    return &set->shown.host;
}

const char *device_set_note(const struct device_set *set)
{
    return set->shown.note[0] ? set->shown.note : NULL;
}

const char *device_driver_cuda_version(const struct device_set *set)
{
    return set->shown.cuda[0] ? set->shown.cuda : NULL;
}

struct device_set *device_set_free(struct device_set *set)
{
    if (!set)
        return NULL;
    nvml_close(set->nvml);
    host_sampler_free(set->sampler);
    release_state(&set->next);
    release_state(&set->shown);
    free(set->nvml_index);
    free(set->occupied);
    free(set);
    return NULL;
}
