/* dispatch.c - the queue: accepting, placing, cancelling, limits; see dispatch.h and dispatch_internal.h */
#include "server/dispatch.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/text.h"
#include "server/dispatch_internal.h"
#include "server/journal.h"

static const char *const slot_names[SLOT_KINDS] = {[SLOT_TRAINING] = "training", [SLOT_INFERENCE] = "inference"};

/* ---- jobs ---- */

bool dispatch_jobs_add(struct jobs *jobs, struct job *job)
{
    if (jobs->count == jobs->capacity) {
        size_t capacity = jobs->capacity ? 2 * jobs->capacity : 16;
        struct job **items = realloc(jobs->items, capacity * sizeof *items);

        if (!items)
            return false;
        jobs->items = items;
        jobs->capacity = capacity;
    }
    jobs->items[jobs->count++] = job;
    return true;
}

void dispatch_jobs_remove(struct jobs *jobs, const struct job *job)
{
    size_t i = 0;

    while (i < jobs->count && jobs->items[i] != job)
        i++;
    if (i == jobs->count)
        return;
    memmove(&jobs->items[i], &jobs->items[i + 1], (jobs->count - i - 1) * sizeof(struct job *));
    jobs->count--;
}

static struct job *find_job(const struct jobs *jobs, const char *id)
{
    for (size_t i = 0; i < jobs->count; i++)
        if (strcmp(jobs->items[i]->id, id) == 0 && !jobs->items[i]->deleted)
            return jobs->items[i];
    return NULL;
}

void dispatch_free_job(struct job *job)
{
    if (!job)
        return;
    free(job->id);
    free(job->asked_device);
    free(job->reason);
    free(job->fault);
    json_decref(job->request);
    json_decref(job->metrics);
    json_decref(job->end);
    free(job);
}

static struct job *new_job(struct dispatch *dispatch, const struct task_kind *kind, const char *id, const char *device,
                           int64_t priority, const json_t *request)
{
    struct job *job = calloc(1, sizeof *job);

    if (!job)
        return NULL;
    job->dispatch = dispatch;
    job->kind = kind;
    job->id = strdup(id);
    job->asked_device = strdup(device ? device : "");
    job->priority = priority;
    job->request = json_incref((json_t *)request);
    job->since = clock_seconds();
    if (job->id && job->asked_device && job->request)
        return job;
    dispatch_free_job(job);
    return NULL;
}

/* ---- devices ---- */

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

    *ret = (struct sched_device){
        .id = gpu ? gpu->id : "cpu", .gpu = gpu, .memory_free = gpu ? gpu->memory_free : host->memory_available};
    if (gpu && !(gpu->has & DEVICE_HAS_MEMORY))
        ret->memory_free = UINT64_MAX / 2;
    for (int k = 0; k < SLOT_KINDS; k++)
        ret->limit[k] = limits_get(&dispatch->limits, gpu ? (int)d : ASK_CPU, (enum slot_kind)k);
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

/* `等待CUDA:0资源...`, and a word when a GPU was asked for on a machine without. */
static void announce(struct dispatch *dispatch, struct job *job)
{
    const char *note = device_set_note(monitor_devices(dispatch->options.monitor));
    char upper[64];
    size_t i = 0;

    for (; job->asked_device[i] && i < sizeof upper - 1; i++)
        upper[i] = (char)toupper((unsigned char)job->asked_device[i]);
    upper[i] = 0;
    dispatch_log(job, LOG_INFO, tr("等待%s资源...", "waiting for %s resources..."), upper);
    if (job->placement.ask == ASK_CPU && strncmp(job->asked_device, "cuda", 4) == 0)
        dispatch_log(
            job, LOG_WARNING,
            tr("没有可用的GPU，任务将在CPU上运行%s%s", "no GPU is available, the task will run on the CPU%s%s"),
            note ? ": " : "", note ? note : "");
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

static void pick(struct dispatch *dispatch)
{
    size_t n = dispatch->waiting.count, device_count = dispatch_device_count(dispatch);
    struct sched_task *tasks = calloc(n, sizeof *tasks);
    struct sched_device *devices = calloc(device_count, sizeof *devices);
    struct sched_verdict *verdicts = calloc(n, sizeof *verdicts);
    struct job **jobs = calloc(n, sizeof(struct job *));

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
        for (size_t i = 0; i < n; i++)
            if (verdicts[i].outcome == SCHED_START) {
                dispatch_jobs_remove(&dispatch->waiting, jobs[i]);
                dispatch_start(dispatch, jobs[i], verdicts[i].device);
            }
    }
    free(tasks);
    free(devices);
    free(verdicts);
    free(jobs);
}

/* The driver has answered: now the limits can be told apart. */
static void learn_limit(void *arg, const char *device, const char *kind, int64_t n)
{
    struct dispatch *dispatch = arg;

    for (int k = 0; k < SLOT_KINDS; k++)
        if (strcmp(kind, slot_names[k]) == 0)
            limits_set(&dispatch->limits, device, (enum slot_kind)k,
                       n); /* of a GPU that is not there now: kept on disk */
}

static void learn_devices(struct dispatch *dispatch)
{
    struct limits limits;
    struct err err;

    if (dispatch->knows_devices || !monitor_ready(dispatch->options.monitor) ||
        !limits_init(&limits, dispatch_gpus(dispatch)))
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

static void look_at_queue(uv_timer_t *timer)
{
    struct dispatch *dispatch = timer->data;

    learn_devices(dispatch);
    if (dispatch->stopped && dispatch->running.count == 0) {
        void (*stopped)(void *) = dispatch->stopped;

        dispatch->stopped = NULL;
        dispatch->closed = true;
        stopped(dispatch->stopped_arg);
        return;
    }
    if (dispatch->stopped || dispatch->closed || !dispatch->knows_devices)
        return;
    for (size_t i = 0; i < dispatch->waiting.count; i++) {
        struct job *job = dispatch->waiting.items[i];

        if (!job->placed && !place(dispatch, job)) {
            i--;
            continue;
        }
        if (!job->announced)
            announce(dispatch, job);
    }
    if (dispatch->waiting.count)
        pick(dispatch);
}

void dispatch_soon(struct dispatch *dispatch)
{
    uv_timer_start(&dispatch->soon, look_at_queue, 0, 0);
}

void dispatch_devices_changed(struct dispatch *dispatch)
{
    if (dispatch->running.count || dispatch->waiting.count)
        monitor_touch(dispatch->options.monitor);
    dispatch_occupy(dispatch);
    dispatch->generation++;
    if (dispatch->waiting.count || !dispatch->knows_devices)
        dispatch_soon(dispatch);
}

/* ---- taking up, stopping ---- */

static void take_up(void *arg, const struct store_task *task)
{
    struct dispatch *dispatch = arg;
    const struct task_kind *kind = task_kind_find(task->kind);
    json_t *request = task->request ? json_loads(task->request, 0, NULL) : NULL;
    struct job *job = NULL;

    if (kind && request)
        job = new_job(dispatch, kind, task->id, task->asked_device, task->priority, request);
    json_decref(request);
    if (!job || !dispatch_jobs_add(&dispatch->waiting, job)) {
        dispatch_free_job(job);
        journal(JOURNAL_ERROR, "%s cannot be taken up: kind=%s", task->id, task->kind);
        return;
    }
    job->seq = task->seq;
    job->announced = task->state == TASK_QUEUED;
    if (task->state != TASK_RUNNING)
        return;
    job->announced = true;
    dispatch_log(job, LOG_WARNING, "%s",
                 tr("服务已重启，任务重新排队并将重新开始",
                    "the service was restarted: the task is queued again and will "
                    "start again"));
    store_change(dispatch->options.store, job->seq, STORE_PROGRESS | STORE_EPOCH | STORE_METRICS | STORE_DEVICE,
                 &(struct store_task){.device = job->asked_device});
    dispatch_set_state(job, TASK_QUEUED, job->kind->text(TASK_TEXT_QUEUED));
}

bool dispatch_open(const struct dispatch_options *options, struct dispatch **ret, struct err *err)
{
    struct dispatch *dispatch = calloc(1, sizeof *dispatch);

    if (!dispatch || !limits_init(&dispatch->limits, 0)) {
        free(dispatch);
        return err_set(err, ERR_MEMORY, "no memory for the queue");
    }
    dispatch->options = *options;
    if (!(dispatch->options.reserve_after > 0))
        dispatch->options.reserve_after = 60;
    dispatch->options.program = options->program ? options->program : "/proc/self/exe";
    dispatch->generation = 1;
    memcpy(dispatch->limits.cuda, options->limit_gpu, sizeof dispatch->limits.cuda);
    memcpy(dispatch->limits.cpu, options->limit_cpu, sizeof dispatch->limits.cpu);
    uv_timer_init(options->loop, &dispatch->soon);
    dispatch->soon.data = dispatch;
    if (!store_each_unfinished(options->store, take_up, dispatch, err)) {
        dispatch_free(dispatch);
        return false;
    }
    dispatch_soon(dispatch);
    *ret = dispatch;
    return true;
}

void dispatch_stop(struct dispatch *dispatch, void (*done)(void *arg), void *arg)
{
    dispatch->stopped = done;
    dispatch->stopped_arg = arg;
    for (size_t i = 0; i < dispatch->running.count; i++)
        worker_stop(dispatch->running.items[i]->worker, 3.0);
    dispatch_soon(dispatch);
}

static void on_closed(uv_handle_t *handle)
{
    struct dispatch *dispatch = handle->data;

    for (size_t i = 0; i < dispatch->waiting.count; i++)
        dispatch_free_job(dispatch->waiting.items[i]);
    for (size_t i = 0; i < dispatch->running.count; i++)
        dispatch_free_job(dispatch->running.items[i]);
    free(dispatch->waiting.items);
    free(dispatch->running.items);
    limits_release(&dispatch->limits);
    free(dispatch);
}

struct dispatch *dispatch_free(struct dispatch *dispatch)
{
    if (dispatch)
        uv_close((uv_handle_t *)&dispatch->soon, on_closed);
    return NULL;
}

/* ---- requests ---- */

/* A random UUID of version 4. */
static void make_id(char id[37])
{
    unsigned char b[16];

    if (getrandom(b, sizeof b, 0) != (ssize_t)sizeof b)
        abort(); /* a kernel without random numbers */
    b[6] = (unsigned char)((b[6] & 0x0F) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3F) | 0x80);
    snprintf(id, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2], b[3],
             b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

static struct job *job_of(struct dispatch *dispatch, const struct submission *submission)
{
    struct job *job;
    char id[37];

    make_id(id);
    job = new_job(dispatch, submission->kind, submission->id && *submission->id ? submission->id : id,
                  submission->device, submission->priority, submission->request);
    if (job) {
        job->placement = submission->placement;
        job->placed = true;
    }
    return job;
}

static bool insert_jobs(struct dispatch *dispatch, struct job **jobs, const struct submission *submissions, size_t n,
                        struct err *err)
{
    struct store_task *records = calloc(n, sizeof *records);
    int64_t *seqs = calloc(n, sizeof *seqs);
    bool ok = records && seqs;

    if (!ok)
        err_set(err, ERR_MEMORY, "no memory for %zu tasks", n);
    for (size_t i = 0; ok && i < n; i++) {
        records[i] = (struct store_task){.id = jobs[i]->id,
                                         .kind = jobs[i]->kind->name,
                                         .state = TASK_PENDING,
                                         .message = jobs[i]->kind->text(TASK_TEXT_PENDING),
                                         .device = jobs[i]->asked_device,
                                         .asked_device = jobs[i]->asked_device,
                                         .priority = (int)jobs[i]->priority,
                                         .total_epochs = submissions[i].total_epochs,
                                         .memory = jobs[i]->placement.memory,
                                         .request = json_dumps(jobs[i]->request, JSON_COMPACT)};
        if (!records[i].request)
            ok = err_set(err, ERR_MEMORY, "no memory for task %s", jobs[i]->id);
    }
    ok = ok && store_insert(dispatch->options.store, records, n, seqs, err);
    for (size_t i = 0; i < n; i++) {
        if (ok)
            jobs[i]->seq = seqs[i];
        if (records)
            free((char *)records[i].request);
    }
    free(records);
    free(seqs);
    return ok;
}

static bool may_accept(const struct dispatch *dispatch, size_t n, struct err *err)
{
    if (dispatch->stopped || dispatch->closed)
        return err_set(err, ERR_BUSY, "%s", tr("服务正在停止", "the service is stopping"));
    if ((int64_t)(dispatch->waiting.count + n) > dispatch->options.queue_size)
        return err_set(
            err, ERR_BUSY,
            tr("任务队列已满 (等待中 %zu，上限 %lld)", "the queue is full (%zu tasks wait, at most %lld may)"),
            dispatch->waiting.count, (long long)dispatch->options.queue_size);
    return true;
}

bool dispatch_submit(struct dispatch *dispatch, const struct submission *submissions, size_t n, store_task_fn *fn,
                     void *arg, struct err *err)
{
    struct job **jobs;
    bool ok = true;

    if (n == 0)
        return true;
    if (!may_accept(dispatch, n, err))
        return false;
    if (!(jobs = calloc(n, sizeof(struct job *))))
        return err_set(err, ERR_MEMORY, "no memory for %zu tasks", n);
    for (size_t i = 0; ok && i < n; i++) /* room first: after the insert nothing may fail */
        if (!(jobs[i] = job_of(dispatch, &submissions[i])) || !dispatch_jobs_add(&dispatch->waiting, jobs[i]))
            ok = err_set(err, ERR_MEMORY, "no memory for %zu tasks", n);
    ok = ok && insert_jobs(dispatch, jobs, submissions, n, err);
    for (size_t i = 0; i < n; i++)
        if (ok) {
            journal(JOURNAL_INFO, "%s accepted kind=%s device=%s priority=%lld", jobs[i]->id, jobs[i]->kind->name,
                    jobs[i]->asked_device, (long long)jobs[i]->priority);
            store_find(dispatch->options.store, jobs[i]->id, fn, arg, NULL);
        } else if (jobs[i]) {
            dispatch_jobs_remove(&dispatch->waiting, jobs[i]);
            dispatch_free_job(jobs[i]);
        }
    free(jobs);
    if (ok)
        dispatch_soon(dispatch);
    return ok;
}

static void flush_now(struct dispatch *dispatch)
{
    struct err err;

    /* the work is stopped whether the disk takes the news or not; the store keeps it and tries again */
    if (!store_flush(dispatch->options.store, &err))
        journal(JOURNAL_ERROR, "%s", err.message);
}

bool dispatch_cancel(struct dispatch *dispatch, const char *id, struct err *err)
{
    struct job *waiting = find_job(&dispatch->waiting, id), *running = find_job(&dispatch->running, id);
    struct job *job = waiting ? waiting : running;

    if (!job || job->cancelled)
        return err_set(err, ERR_NOT_FOUND, tr("任务 %s 不存在或无法取消", "task %s does not exist or is over"), id);
    job->cancelled = true;
    dispatch_log(job, LOG_WARNING, "%s", tr("任务已被用户取消", "the task was cancelled by the user"));
    dispatch_set_state(job, TASK_CANCELLED, job->kind->text(TASK_TEXT_CANCELLED));
    if (waiting) {
        dispatch_jobs_remove(&dispatch->waiting, job);
        store_log_end(dispatch->options.store, job->seq);
        dispatch_free_job(job);
        dispatch_soon(dispatch); /* others may wait for other reasons now */
    } else {
        worker_cancel(job->worker);
    }
    flush_now(dispatch);
    return true;
}

static void note_state(void *arg, const struct store_task *task)
{
    *(enum task_state *)arg = task->state;
}

bool dispatch_delete(struct dispatch *dispatch, const char *id, struct err *err)
{
    struct job *job = find_job(&dispatch->running, id);
    enum task_state state = TASK_PENDING;

    if (!store_find(dispatch->options.store, id, note_state, &state, err))
        return false;
    if (!task_state_is_final(state))
        return err_set(err, ERR_NOT_FOUND, tr("任务 %s 不存在或无法删除", "task %s does not exist or is not over"), id);
    if (!store_delete(dispatch->options.store, id, err))
        return false;
    if (job) { /* cancelled, and its process still on the way out: it keeps its slot until it is gone */
        job->deleted = true;
        worker_kill(job->worker);
    }
    journal(JOURNAL_INFO, "%s deleted", id);
    return true;
}

/* ---- limits ---- */

bool dispatch_knows_device(const struct dispatch *dispatch, const char *device)
{
    int ask;

    return sched_parse_device(device, &ask) && (ask < 0 || (size_t)ask < dispatch_gpus(dispatch));
}

bool dispatch_limit_set(struct dispatch *dispatch, const char *device, enum slot_kind slot, int64_t n, struct err *err)
{
    if (!dispatch_knows_device(dispatch, device) || slot >= SLOT_KINDS || n < 0)
        return err_set(err, ERR_INVALID, "no limit of %lld can be set for %s", (long long)n, device);
    learn_devices(dispatch);
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
