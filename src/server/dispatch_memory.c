/* dispatch_memory.c - a task that found no memory on its GPU, although it was let in: somebody else took it meanwhile.
 * The worker knows what it could not get; what is there now, and what would fit, is known here once the driver has been
 * asked again. See dispatch_internal.h */
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/text.h"
#include "server/dispatch_internal.h"

static double gib(uint64_t bytes)
{
    return (double)bytes / (1 << 30);
}

/* "the largest batch_size that fits is 3" in so many bytes; "" when that is not known. */
static void ask_advice(const struct job *job, const char *backend, uint64_t available, char *advice, size_t size)
{
    struct arena *arena = arena_new(0);
    json_t *faults = json_array();
    void *request = arena ? arena_alloc(arena, job->kind->request->size) : NULL;

    advice[0] = '\0';
    if (request && faults && job->kind->memory &&
        fields_read(job->kind->request, job->request, "body", request, arena, faults))
        job->kind->memory(request, backend, available, advice, size);
    arena_free(arena);
    json_decref(faults);
}

/* Other GPUs that have the room now, and the CPU. */
static void list_others(const struct dispatch *dispatch, const struct job *job, struct buf *out)
{
    struct device_set *devices = monitor_devices(dispatch->options.monitor);

    for (size_t i = 0; i < device_count(devices); i++) {
        const struct device_info *gpu = device_get(devices, i);

        if ((int)i != job->device && placement_usable(gpu) && !gpu->lost && gpu->memory_free >= job->memory)
            buf_printf(out, "%s, ", gpu->id);
    }
    buf_puts(out, "cpu");
}

static void fail(struct dispatch *dispatch, struct job *job)
{
    const struct device_info *gpu = device_get(monitor_devices(dispatch->options.monitor), (size_t)job->device);
    const char *error = json_string_value(json_object_get(job->end, "error"));
    struct buf text, others;
    char advice[300];

    buf_init(&text, 8192);
    buf_init(&others, 4096);
    buf_puts(&text, error ? error : tr("显存不足", "no memory"));
    if (gpu) {
        ask_advice(job, placement_backend(gpu), gpu->memory_free, advice, sizeof advice);
        list_others(dispatch, job, &others);
        buf_printf(
            &text,
            tr("；任务在 %s 上需要 %.1f GB，现在空闲 %.1f GB%s%s；可等待其他程序结束后重试，或改用: %s",
               "; the task needs %2$.1f GB on %1$s, where %3$.1f GB are free now%4$s%5$s; try again when the other "
               "program has ended, or use: %6$s"),
            gpu->id, gib(job->memory), gib(gpu->memory_free), advice[0] ? ": " : "", advice,
            others.data && !others.failed ? others.data : "cpu");
    }
    dispatch_fail(dispatch, job, text.data && !text.failed ? text.data : "no memory");
    buf_release(&text);
    buf_release(&others);
}

bool dispatch_wants_explaining(const struct job *job)
{
    const char *kind = json_string_value(json_object_get(job->end, "kind"));
    bool on_gpu = device_get(monitor_devices(job->dispatch->options.monitor), (size_t)job->device);

    return on_gpu && kind && strcmp(kind, err_kind_name(ERR_MEMORY)) == 0;
}

void dispatch_explain_later(struct dispatch *dispatch, struct job *job)
{
    job->ended_at = clock_seconds();
    if (!dispatch_jobs_add(&dispatch->unexplained, job)) {
        fail(dispatch, job);
        return;
    }
    monitor_sample(dispatch->options.monitor);
}

void dispatch_explain(struct dispatch *dispatch, bool now)
{
    for (size_t i = 0; i < dispatch->unexplained.count;) {
        struct job *job = dispatch->unexplained.items[i];

        if (!now && monitor_sampled_at(dispatch->options.monitor) < job->ended_at) {
            monitor_sample(dispatch->options.monitor);
            i++;
            continue;
        }
        dispatch_jobs_remove(&dispatch->unexplained, job);
        fail(dispatch, job);
    }
}
