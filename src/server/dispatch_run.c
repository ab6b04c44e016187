/* dispatch_run.c - a task that runs: its worker's start, its messages, its end; see dispatch.h */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "server/dispatch_internal.h"
#include "server/journal.h"

enum { LINE_FLAGS = JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(15), METRICS_MAX = 64, TEXT_MAX = 64 };

/* ---- the task's log and record ---- */

static void write_line(const struct job *job, const char *timestamp, const char *level, json_t *message,
                       json_t *metrics, json_t *stage)
{
    json_t *line = json_pack("{s:s, s:s, s:O, s:O*, s:O*}", "timestamp", timestamp, "level", level, "message", message,
                             "metrics", metrics, "stage", stage);
    char *text = line ? json_dumps(line, LINE_FLAGS) : NULL;

    if (text)
        store_log(job->dispatch->options.store, job->seq, text, strlen(text));
    free(text);
    json_decref(line);
}

void dispatch_log(const struct job *job, enum log_level level, const char *fmt, ...)
{
    char now[CLOCK_ISO_SIZE], *text = NULL;
    json_t *message;
    va_list args;

    va_start(args, fmt);
    if (vasprintf(&text, fmt, args) < 0)
        text = NULL;
    va_end(args);
    message = json_string(text ? text : "");
    clock_iso(now);
    write_line(job, now, log_level_name(level), message, NULL, NULL);
    json_decref(message);
    free(text);
}

void dispatch_set_state(const struct job *job, enum task_state state, const char *message)
{
    store_change(job->dispatch->options.store, job->seq, STORE_STATE | STORE_MESSAGE,
                 &(struct store_task){.state = state, .message = message});
    journal(JOURNAL_INFO, "%s state=%s kind=%s message=\"%s\"", job->id, task_state_name(state), job->kind->name,
            message);
}

/* ---- what a worker says ---- */

static void break_job(struct job *job, const char *why)
{
    if (job->fault)
        return;
    job->fault = strdup(why);
    worker_kill(job->worker);
}

/* Numbers that JSON can hold, or nothing. */
static bool valid_metrics(const json_t *metrics)
{
    const char *key;
    json_t *value;

    if (!json_is_object(metrics) || json_object_size(metrics) > METRICS_MAX)
        return false;
    json_object_foreach((json_t *)metrics, key, value) if (strlen(key) > TEXT_MAX || !json_is_number(value) ||
                                                           !isfinite(json_number_value(value))) return false;
    return true;
}

static void merge_metrics(struct job *job, json_t *metrics)
{
    char *text;

    if (!job->metrics)
        job->metrics = json_object();
    if (!job->metrics || json_object_update(job->metrics, metrics) < 0 ||
        json_object_size(job->metrics) > 2 * METRICS_MAX ||
        !(text = json_dumps(job->metrics, JSON_COMPACT | LINE_FLAGS)))
        return;
    store_change(job->dispatch->options.store, job->seq, STORE_METRICS, &(struct store_task){.metrics = text});
    free(text);
}

static void on_log(struct job *job, const json_t *said)
{
    json_t *message = json_object_get(said, "message"), *metrics = json_object_get(said, "metrics");
    json_t *stage = json_object_get(said, "stage");
    const char *level = json_string_value(json_object_get(said, "level"));
    const char *timestamp = json_string_value(json_object_get(said, "timestamp"));
    char now[CLOCK_ISO_SIZE];
    bool known = false;

    for (enum log_level i = LOG_INFO; i <= LOG_ERROR; i++)
        known = known || (level && strcmp(level, log_level_name(i)) == 0);
    if (!json_is_string(message) || !known || (metrics && !valid_metrics(metrics)) ||
        (stage && (!json_is_string(stage) || json_string_length(stage) > TEXT_MAX))) {
        break_job(job, tr("工作进程发送了错误的日志消息", "the worker sent a broken log message"));
        return;
    }
    if (!timestamp || strlen(timestamp) >= sizeof now) {
        clock_iso(now);
        timestamp = now;
    }
    write_line(job, timestamp, level, message, metrics, stage);
    if (metrics && !job->cancelled)
        merge_metrics(job, metrics);
}

static void on_progress(struct job *job, const json_t *said)
{
    const json_t *progress = json_object_get(said, "progress"), *epoch = json_object_get(said, "current_epoch");
    struct store_task values = {.progress = (int)json_integer_value(progress),
                                .current_epoch = json_integer_value(epoch)};

    if (!json_is_integer(progress) || json_integer_value(progress) < 0 || json_integer_value(progress) > 100 ||
        (epoch && (!json_is_integer(epoch) || json_integer_value(epoch) < 1))) {
        break_job(job, tr("工作进程发送了错误的进度", "the worker sent a broken progress"));
        return;
    }
    if (job->cancelled)
        return;
    if (values.progress < job->progress)
        values.progress = job->progress;
    job->progress = values.progress;
    store_change(job->dispatch->options.store, job->seq, STORE_PROGRESS | (epoch ? STORE_EPOCH : 0u), &values);
}

static void on_memory(struct job *job, const json_t *said)
{
    json_int_t planned = json_integer_value(json_object_get(said, "planned"));
    json_int_t allocated = json_integer_value(json_object_get(said, "allocated"));

    if (planned > 0) {
        job->memory = (uint64_t)planned;
        store_change(job->dispatch->options.store, job->seq, STORE_MEMORY, &(struct store_task){.memory = job->memory});
        dispatch_occupy(job->dispatch);
    }
    if (allocated > 0) {
        job->allocated = (uint64_t)allocated;
        job->allocated_at = clock_seconds();
    }
}

static void on_end(struct job *job, const json_t *said)
{
    const char *status = json_string_value(json_object_get(said, "status"));
    const json_t *error = json_object_get(said, "error"), *stats = json_object_get(said, "stats");

    if (job->end || !status ||
        (strcmp(status, "completed") != 0 && strcmp(status, "failed") != 0 && strcmp(status, "cancelled") != 0) ||
        (error && !json_is_string(error)) || (stats && !json_is_object(stats))) {
        break_job(job, tr("工作进程发送了错误的结束消息", "the worker sent a broken end message"));
        return;
    }
    job->end = json_deep_copy(said);
}

static void on_message(void *arg, const json_t *said)
{
    static const struct {
        const char *type;
        void (*take)(struct job *job, const json_t *said);
    } types[] = {{"log", on_log}, {"progress", on_progress}, {"memory", on_memory}, {"end", on_end}};
    const char *type = json_string_value(json_object_get(said, "type"));
    struct job *job = arg;

    for (size_t i = 0; i < sizeof types / sizeof *types && !job->fault; i++)
        if (strcmp(type, types[i].type) == 0)
            types[i].take(job, said);
}

static void on_stderr_line(void *arg, const char *line)
{
    dispatch_log(arg, LOG_WARNING, "%s", line);
    journal(JOURNAL_WARNING, "%s stderr: %s", ((struct job *)arg)->id, line);
}

/* ---- the end ---- */

static void finish(struct job *job)
{
    struct dispatch *dispatch = job->dispatch;

    store_log_end(dispatch->options.store, job->seq);
    dispatch_free_job(job);
}

void dispatch_fail(struct dispatch *dispatch, struct job *job, const char *error)
{
    struct buf message;

    buf_init(&message, 1 << 16);
    buf_printf(&message, "%s%s", job->kind->text(TASK_TEXT_FAILED), error);
    dispatch_log(job, LOG_ERROR, "%s", message.data ? message.data : error);
    dispatch_set_state(job, TASK_FAILED, message.data ? message.data : error);
    store_change(dispatch->options.store, job->seq, STORE_PROGRESS, &(struct store_task){.progress = 0});
    buf_release(&message);
    finish(job);
}

static void complete(struct dispatch *dispatch, struct job *job)
{
    const json_t *stats = json_object_get(job->end, "stats");
    char *text = stats ? json_dumps(stats, JSON_COMPACT | LINE_FLAGS) : NULL;

    if (text)
        store_change(dispatch->options.store, job->seq, STORE_STATS, &(struct store_task){.stats = text});
    free(text);
    store_change(dispatch->options.store, job->seq, STORE_PROGRESS, &(struct store_task){.progress = 100});
    dispatch_set_state(job, TASK_COMPLETED, job->kind->text(TASK_TEXT_COMPLETED));
    finish(job);
}

/* The record has been final since the cancel; some kinds say when the worker has let go. */
static void release(struct dispatch *dispatch, struct job *job)
{
    const char *text = job->kind->text(TASK_TEXT_RELEASED);

    if (!job->deleted && strcmp(text, job->kind->text(TASK_TEXT_CANCELLED)) != 0) {
        dispatch_log(job, LOG_INFO, "%s", text);
        store_change(dispatch->options.store, job->seq, STORE_MESSAGE, &(struct store_task){.message = text});
    }
    finish(job);
}

static void end_unsaid(struct dispatch *dispatch, struct job *job, int exit_status, int number)
{
    char text[200];

    if (number)
        snprintf(text, sizeof text, tr("工作进程被信号 SIG%s (%d) 终止", "the worker was ended by signal SIG%s (%d)"),
                 sigabbrev_np(number) ? sigabbrev_np(number) : "?", number);
    else
        snprintf(text, sizeof text,
                 tr("工作进程意外退出 (状态 %d)", "the worker ended with status %d without saying why"), exit_status);
    dispatch_fail(dispatch, job, text);
}

/* Was it the device's fault, or does it work? */
static void judge_device(struct dispatch *dispatch, const struct job *job)
{
    const char *status = json_string_value(json_object_get(job->end, "status"));
    const char *kind = json_string_value(json_object_get(job->end, "kind"));

    if (status && strcmp(status, "completed") == 0)
        dispatch->broke_at[job->device] = 0;
    if (kind && strcmp(kind, err_kind_name(ERR_DEVICE)) == 0) {
        dispatch->broke_at[job->device] = clock_seconds();
        journal(JOURNAL_WARNING, "%s has failed %s: others are preferred for a while",
                dispatch_device_id(dispatch, (size_t)job->device), job->id);
    }
}

static void on_gone(void *arg, int exit_status, int number, const char *fault)
{
    struct job *job = arg;
    struct dispatch *dispatch = job->dispatch;
    const char *status = json_string_value(json_object_get(job->end, "status"));
    const char *error = json_string_value(json_object_get(job->end, "error"));

    journal(JOURNAL_DEBUG, "%s worker gone pid=%d status=%d signal=%d", job->id, worker_pid(job->worker), exit_status,
            number);
    job->worker = NULL;
    judge_device(dispatch, job);
    dispatch_jobs_remove(&dispatch->running, job);
    dispatch->generation++;
    dispatch_occupy(dispatch);
    if (job->cancelled)
        release(dispatch, job);
    else if (status && strcmp(status, "completed") == 0 && !job->fault)
        complete(dispatch, job);
    else if (job->fault)
        dispatch_fail(dispatch, job, job->fault);
    else if (status && strcmp(status, "failed") == 0 && dispatch_wants_explaining(job))
        dispatch_explain_later(dispatch, job);
    else if (status && strcmp(status, "failed") == 0)
        dispatch_fail(dispatch, job, error ? error : "?");
    else if (dispatch->stopped) /* stays `running` on disk: the next start queues it again */
        dispatch_free_job(job);
    else if (fault)
        dispatch_fail(dispatch, job, fault);
    else if (status)
        dispatch_fail(dispatch, job, tr("工作进程被外部停止", "the worker was stopped from outside"));
    else
        end_unsaid(dispatch, job, exit_status, number);
    dispatch_soon(dispatch);
}

/* ---- the start ---- */

static const struct device_info *gpu_of(const struct dispatch *dispatch, int device)
{
    return device_get(monitor_devices(dispatch->options.monitor), (size_t)device);
}

uint64_t dispatch_memory(const struct dispatch *dispatch, size_t device)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < dispatch->running.count; i++)
        if ((size_t)dispatch->running.items[i]->device == device)
            bytes += dispatch->running.items[i]->memory;
    return bytes;
}

void dispatch_occupy(struct dispatch *dispatch)
{
    struct device_set *devices = monitor_devices(dispatch->options.monitor);

    for (size_t i = 0; i < device_count(devices); i++)
        device_set_occupy(devices, i, dispatch_memory(dispatch, i));
}

/* For decoded pictures of a task: the setting, or a part of what is free now, so that several tasks have room. */
static uint64_t cache_bytes(const struct dispatch *dispatch)
{
    enum { PART = 4 };
    const struct host_info *host = device_host(monitor_devices(dispatch->options.monitor));

    return dispatch->options.cache_bytes ? dispatch->options.cache_bytes : host->memory_available / PART;
}

static json_t *start_message(const struct dispatch *dispatch, const struct job *job)
{
    const struct device_info *gpu = gpu_of(dispatch, job->device);
    const struct dispatch_options *options = &dispatch->options;

    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s*, s:s, s:I, s:I, s:s*, s:s, s:O}", "type", "start", "task_id",
                     job->id, "kind", job->kind->name, "device", gpu ? gpu->id : "cpu", "backend",
                     placement_backend(gpu), "device_uuid", gpu ? gpu->uuid : NULL, "asked_device", job->asked_device,
                     "threads", (json_int_t)options->threads, "memory_limit", (json_int_t)cache_bytes(dispatch),
                     "weights_folder",
                     options->weights_folder && *options->weights_folder ? options->weights_folder : NULL, "language",
                     text_language(), "request", job->request);
}

bool dispatch_assign(struct dispatch *dispatch, struct job *job, int device)
{
    const char *name = dispatch_device_id(dispatch, (size_t)device);
    const struct device_info *gpu = gpu_of(dispatch, device);

    if (!dispatch_jobs_add(&dispatch->running, job)) {
        dispatch_fail(dispatch, job, tr("内存不足", "no memory"));
        return false;
    }
    job->device = device;
    job->memory = job->placement.memory;
    dispatch_log(job, LOG_INFO, tr("资源已分配，使用设备: %s", "resources allocated, using device: %s"), name);
    if (gpu && !gpu->fake && strcmp(placement_backend(gpu), "cuda") != 0)
        dispatch_log(
            job, LOG_WARNING, "%s",
            tr("本程序不含CUDA支持，任务由CPU计算", "this build has no CUDA support: the CPU computes the task"));
    dispatch->generation++;
    dispatch_occupy(dispatch);
    store_change(dispatch->options.store, job->seq, STORE_DEVICE | STORE_MEMORY,
                 &(struct store_task){.device = name, .memory = job->memory});
    dispatch_set_state(job, TASK_RUNNING, job->kind->text(TASK_TEXT_RUNNING));
    return true;
}

void dispatch_start(struct dispatch *dispatch, struct job *job)
{
    static const struct worker_events events = {on_message, on_stderr_line, on_gone};
    struct err err = {.message = "out of memory"};
    json_t *start = start_message(dispatch, job);

    if (!start ||
        !worker_spawn(dispatch->options.loop, dispatch->options.program, start, &events, job, &job->worker, &err)) {
        json_decref(start);
        dispatch_jobs_remove(&dispatch->running, job);
        dispatch->generation++;
        dispatch_occupy(dispatch);
        dispatch_fail(dispatch, job, err.message);
        return;
    }
    json_decref(start);
    journal(JOURNAL_INFO, "%s worker started pid=%d device=%s", job->id, worker_pid(job->worker),
            dispatch_device_id(dispatch, (size_t)job->device));
}
