/* dispatch_queue.c - who starts next and where, and why the others wait; see dispatch.h */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/text.h"
#include "server/dispatch_internal.h"

/* A GPU that has failed a task is only tried again after so long, when there is another. */
enum { SUSPECT_SECONDS = 300 };

/* ---- devices as the scheduler sees them ---- */

/* Bytes of a process that are in memory now. */
static uint64_t resident_bytes(int pid)
{
    unsigned long long size, resident = 0;
    char path[48];
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/statm", pid);
    if ((file = fopen(path, "re"))) {
        if (fscanf(file, "%llu %llu", &size, &resident) != 2)
            resident = 0;
        fclose(file);
    }
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* What a running job holds of its planned memory, as far as the monitor's latest sample can have seen it. */
static uint64_t taken(const struct dispatch *dispatch, const struct job *job)
{
    const struct device_info *gpu = device_get(monitor_devices(dispatch->options.monitor), (size_t)job->device);
    uint64_t bytes = 0;

    if (!gpu)
        bytes = job->worker ? resident_bytes(worker_pid(job->worker)) : 0;
    else if (gpu->fake)
        bytes = job->memory;
    else if (job->allocated_at < monitor_sampled_at(dispatch->options.monitor))
        bytes = job->allocated;
    return bytes < job->memory ? bytes : job->memory;
}

static uint64_t minus(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static void describe_device(const struct dispatch *dispatch, size_t d, struct sched_device *ret)
{
    const struct device_info *gpu = device_get(monitor_devices(dispatch->options.monitor), d);
    const struct host_info *host = device_host(monitor_devices(dispatch->options.monitor));
    uint64_t used = gpu ? gpu->memory_used : host->memory_total - host->memory_available;
    double broke_at = dispatch->broke_at[d];

    *ret = (struct sched_device){.id = gpu ? gpu->id : "cpu",
                                 .gpu = gpu,
                                 .lost = gpu && gpu->lost,
                                 .suspect = broke_at > 0 && clock_seconds() - broke_at < SUSPECT_SECONDS,
                                 .memory_free = gpu ? gpu->memory_free : host->memory_available};
    if (gpu && !(gpu->has & DEVICE_HAS_MEMORY))
        ret->memory_free = UINT64_MAX / 2;
    for (int k = 0; k < SLOT_KINDS; k++)
        ret->limit[k] = gpu && !placement_usable(gpu)
                            ? 0
                            : limits_get(&dispatch->limits, gpu ? (int)d : ASK_CPU, (enum slot_kind)k);
    for (size_t i = 0; i < dispatch->running.count; i++) {
        const struct job *job = dispatch->running.items[i];
        uint64_t held;

        if ((size_t)job->device != d)
            continue;
        held = taken(dispatch, job);
        ret->memory_free = minus(ret->memory_free, job->memory - held);
        ret->memory_ours += job->memory;
        used = minus(used, held);
        if (job->kind->slot == SLOT_NONE)
            continue;
        ret->used[job->kind->slot]++;
        if (!ret->holder[job->kind->slot])
            ret->holder[job->kind->slot] = job->id;
    }
    ret->memory_other = used;
}

/* ---- queueing and picking ---- */

static bool place(struct dispatch *dispatch, struct job *job)
{
    struct arena *arena = arena_new(0);
    json_t *faults = json_array();
    void *request = arena ? arena_alloc(arena, job->kind->request->size) : NULL;

    job->placed =
        request && faults && fields_read(job->kind->request, job->request, "body", request, arena, faults) &&
        placement_check(monitor_devices(dispatch->options.monitor), job->kind, request, &job->placement, faults);
    if (!job->placed) {
        const char *why = json_string_value(json_object_get(json_array_get(faults, 0), "msg"));

        dispatch_jobs_remove(&dispatch->waiting, job);
        dispatch_fail(dispatch, job, why ? why : "out of memory");
        arena_free(arena);
        json_decref(faults);
        return false;
    }
    arena_free(arena);
    json_decref(faults);
    return true;
}

/* A GPU was asked for, and there is none that can be used. */
static void log_no_gpu(struct dispatch *dispatch, const struct job *job)
{
    const struct device_set *devices = monitor_devices(dispatch->options.monitor);
    const char *note = device_set_note(devices);
    struct buf why;

    buf_init(&why, 1 << 16);
    if (note)
        buf_printf(&why, ": %s", note);
    for (size_t i = 0; i < device_count(devices); i++) {
        buf_puts(&why, i ? "; " : ": ");
        placement_why_unusable(device_get(devices, i), &why);
    }
    dispatch_log(job, LOG_WARNING,
                 tr("本机没有可用的 GPU，改用 CPU 运行%s", "this machine has no usable GPU: running on the CPU%s"),
                 why.data && !why.failed ? why.data : "");
    buf_release(&why);
}

/* `等待CUDA:0资源...`, and a word when a GPU was asked for on a machine without. */
static void announce(struct dispatch *dispatch, struct job *job)
{
    char upper[64];
    size_t i = 0;

    for (; i < sizeof upper - 1 && job->asked_device[i]; i++)
        upper[i] = (char)toupper((unsigned char)job->asked_device[i]);
    upper[i] = 0;
    dispatch_log(job, LOG_INFO, tr("等待%s资源...", "waiting for %s resources..."), upper);
    if (job->placement.ask == ASK_CPU && strncmp(job->asked_device, "cuda", 4) == 0)
        log_no_gpu(dispatch, job);
    dispatch_set_state(job, TASK_QUEUED, job->kind->text(TASK_TEXT_QUEUED));
    job->announced = true;
}

static void tell_reason(struct job *job, const struct sched_task *task, const struct sched_verdict *verdict,
                        const struct sched_device *devices, size_t device_count)
{
    struct buf message;

    buf_init(&message, 4096);
    buf_printf(&message, "%s (", job->kind->text(TASK_TEXT_QUEUED));
    sched_reason(task, verdict, devices, device_count, &message);
    buf_puts(&message, ")");
    if (!message.failed && (!job->reason || strcmp(job->reason, message.data) != 0)) {
        free(job->reason);
        job->reason = strdup(message.data);
        store_change(job->dispatch->options.store, job->seq, STORE_MESSAGE,
                     &(struct store_task){.message = message.data});
    }
    buf_release(&message);
}

/* All that start now share one write to the disk. */
static void start_picked(struct dispatch *dispatch, struct job **jobs, const struct sched_verdict *verdicts, size_t n)
{
    size_t count = 0;

    for (size_t i = 0; i < n; i++) {
        if (verdicts[i].outcome != SCHED_START)
            continue;
        dispatch_jobs_remove(&dispatch->waiting, jobs[i]);
        if (dispatch_assign(dispatch, jobs[i], verdicts[i].device))
            jobs[count++] = jobs[i];
    }
    if (count)
        dispatch_flush(dispatch);
    for (size_t i = 0; i < count; i++)
        dispatch_start(dispatch, jobs[i]);
}

static void pick(struct dispatch *dispatch)
{
    size_t n = dispatch->waiting.count, device_count = dispatch_device_count(dispatch);
    struct sched_task *tasks = calloc(n, sizeof *tasks);
    struct sched_device *devices = calloc(device_count, sizeof *devices);
    struct sched_verdict *verdicts = calloc(n, sizeof *verdicts);
    struct job **jobs = calloc(n, sizeof(struct job *));
    double begun = clock_seconds();

    if (tasks && devices && verdicts && jobs) {
        for (size_t d = 0; d < device_count; d++)
            describe_device(dispatch, d, &devices[d]);
        for (size_t i = 0; i < n; i++) {
            jobs[i] = dispatch->waiting.items[i];
            tasks[i] = (struct sched_task){.id = jobs[i]->id,
                                           .slot = jobs[i]->kind->slot,
                                           .ask = jobs[i]->placement.ask,
                                           .priority = (int)jobs[i]->priority,
                                           .seq = jobs[i]->seq,
                                           .since = jobs[i]->since,
                                           .memory = jobs[i]->placement.memory};
        }
        if (sched_pick(tasks, n, devices, device_count, clock_seconds(), dispatch->options.reserve_after, verdicts) ==
            SIZE_MAX)
            n = 0;
        /* reasons first: they name tasks that a failing start would free */
        for (size_t i = 0; i < n; i++)
            if (verdicts[i].outcome != SCHED_START)
                tell_reason(jobs[i], &tasks[i], &verdicts[i], devices, device_count);
        dispatch->look_seconds = clock_seconds() - begun; /* without the starts, which are not to be put off */
        start_picked(dispatch, jobs, verdicts, n);
    }
    free(tasks);
    free(devices);
    free(verdicts);
    free(jobs);
}

static void look_at_queue(uv_timer_t *timer)
{
    struct dispatch *dispatch = timer->data;

    dispatch_learn_devices(dispatch);
    if (dispatch->stopped && dispatch->running.count == 0) {
        void (*stopped)(void *) = dispatch->stopped;

        dispatch->stopped = NULL;
        dispatch->closed = true;
        stopped(dispatch->stopped_arg);
        return;
    }
    if (dispatch->stopped || dispatch->closed || !dispatch->knows_devices)
        return;
    for (size_t i = 0; i < dispatch->waiting.count;) {
        struct job *job = dispatch->waiting.items[i];

        if (!job->placed && !place(dispatch, job)) /* it has failed and is gone */
            continue;
        if (!job->announced)
            announce(dispatch, job);
        i++;
    }
    if (dispatch->waiting.count)
        pick(dispatch);
}

/* In the next turn; with thousands that wait a look takes milliseconds: then most of the time is for other work. */
void dispatch_soon(struct dispatch *dispatch)
{
    enum { REST = 4, REST_MAX_MS = 100 };
    double rest = 1000 * REST * dispatch->look_seconds;

    if (!uv_is_active((uv_handle_t *)&dispatch->soon))
        uv_timer_start(&dispatch->soon, look_at_queue, rest < REST_MAX_MS ? (uint64_t)rest : REST_MAX_MS, 0);
}
