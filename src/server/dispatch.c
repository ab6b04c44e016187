/* dispatch.c - the queue: accepting, placing, cancelling, limits; see dispatch.h and dispatch_internal.h */
#include "server/dispatch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/text.h"
#include "server/dispatch_internal.h"
#include "server/journal.h"

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

void dispatch_devices_changed(struct dispatch *dispatch)
{
    if (dispatch->running.count || dispatch->waiting.count)
        monitor_touch(dispatch->options.monitor);
    dispatch_occupy(dispatch);
    dispatch_explain(dispatch, false);
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
    char message[200];

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
    snprintf(message, sizeof message, "%s (%s)", kind->text(TASK_TEXT_QUEUED),
             tr("服务已重启", "the service was restarted"));
    dispatch_set_state(job, TASK_QUEUED, message);
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
    dispatch_explain(dispatch, true);
    for (size_t i = 0; i < dispatch->running.count; i++) {
        struct job *job = dispatch->running.items[i];

        if (!job->cancelled)
            dispatch_log(job, LOG_WARNING, "%s",
                         tr("服务正在停止，任务将在下次启动时重新排队",
                            "the service is stopping: the task will be queued again at its next start"));
        worker_stop(job->worker, 3.0);
    }
    dispatch_soon(dispatch);
}

static void on_closed(uv_handle_t *handle)
{
    struct dispatch *dispatch = handle->data;

    for (size_t i = 0; i < dispatch->waiting.count; i++)
        dispatch_free_job(dispatch->waiting.items[i]);
    for (size_t i = 0; i < dispatch->running.count; i++)
        dispatch_free_job(dispatch->running.items[i]);
    for (size_t i = 0; i < dispatch->unexplained.count; i++)
        dispatch_free_job(dispatch->unexplained.items[i]);
    free(dispatch->waiting.items);
    free(dispatch->running.items);
    free(dispatch->unexplained.items);
    limits_release(&dispatch->limits);
    free(dispatch->broke_at);
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

/* A group on its way to the store. */
struct entry {
    struct submission_group *group;
    struct job **jobs;          /* (count), in `waiting` */
    struct store_task *records; /* (count) */
    int64_t *seqs;              /* (count) */
};

static bool make_record(const struct job *job, int64_t total_epochs, struct store_task *ret, struct err *err)
{
    *ret = (struct store_task){.id = job->id,
                               .kind = job->kind->name,
                               .state = TASK_PENDING,
                               .message = job->kind->text(TASK_TEXT_PENDING),
                               .device = job->asked_device,
                               .asked_device = job->asked_device,
                               .priority = (int)job->priority,
                               .total_epochs = total_epochs,
                               .memory = job->placement.memory,
                               .request = json_dumps(job->request, JSON_COMPACT)};
    return ret->request || err_set(err, ERR_MEMORY, "no memory for task %s", job->id);
}

/* Jobs and records of a group, with all the memory they need: after the insert nothing may fail. */
static bool open_entry(struct dispatch *dispatch, struct submission_group *group, struct entry *ret)
{
    size_t n = group->count;
    struct err *err = &group->err;

    *ret = (struct entry){.group = group};
    if (!may_accept(dispatch, n, err))
        return false;
    ret->jobs = calloc(n, sizeof(struct job *));
    ret->records = calloc(n, sizeof *ret->records);
    ret->seqs = calloc(n, sizeof *ret->seqs);
    if (!ret->jobs || !ret->records || !ret->seqs)
        return err_set(err, ERR_MEMORY, "no memory for %zu tasks", n);
    for (size_t i = 0; i < n; i++) {
        if (!(ret->jobs[i] = job_of(dispatch, &group->submissions[i])) ||
            !dispatch_jobs_add(&dispatch->waiting, ret->jobs[i]))
            return err_set(err, ERR_MEMORY, "no memory for %zu tasks", n);
        if (!make_record(ret->jobs[i], group->submissions[i].total_epochs, &ret->records[i], err))
            return false;
    }
    return true;
}

/* It is on disk, or refused: then its jobs were never there. */
static void close_entry(struct dispatch *dispatch, struct entry *entry)
{
    const struct submission_group *group = entry->group;

    for (size_t i = 0; entry->records && i < group->count; i++)
        free((char *)entry->records[i].request);
    for (size_t i = 0; entry->jobs && i < group->count && entry->jobs[i]; i++) {
        struct job *job = entry->jobs[i];

        if (!group->ok) {
            dispatch_jobs_remove(&dispatch->waiting, job);
            dispatch_free_job(job);
            continue;
        }
        job->seq = entry->seqs[i];
        journal(JOURNAL_INFO, "%s accepted kind=%s device=%s priority=%lld", job->id, job->kind->name,
                job->asked_device, (long long)job->priority);
        store_find(dispatch->options.store, job->id, group->fn, group->arg, NULL);
    }
    free(entry->jobs);
    free(entry->records);
    free(entry->seqs);
}

void dispatch_submit(struct dispatch *dispatch, struct submission_group *groups, size_t count)
{
    struct entry *entries = calloc(count, sizeof *entries);
    struct store_group *stored = calloc(count, sizeof *stored);
    size_t n = 0;

    for (size_t g = 0; g < count; g++) {
        groups[g].ok = false;
        if (!entries || !stored)
            err_set(&groups[g].err, ERR_MEMORY, "no memory for %zu tasks", groups[g].count);
        else if (!open_entry(dispatch, &groups[g], &entries[n]))
            close_entry(dispatch, &entries[n]);
        else
            n++;
    }
    for (size_t i = 0; i < n; i++)
        stored[i] = (struct store_group){
            .tasks = entries[i].records, .count = entries[i].group->count, .seqs = entries[i].seqs};
    if (n)
        store_insert_groups(dispatch->options.store, stored, n);
    for (size_t i = 0; i < n; i++) {
        entries[i].group->ok = stored[i].ok;
        entries[i].group->err = stored[i].err;
    }
    for (size_t i = 0; i < n; i++)
        close_entry(dispatch, &entries[i]);
    free(entries);
    free(stored);
    if (n)
        dispatch_soon(dispatch);
}

void dispatch_flush(struct dispatch *dispatch)
{
    struct err err;

    /* work is started and stopped whether the disk takes the news or not; the store keeps it and tries again */
    if (!store_flush(dispatch->options.store, &err))
        journal(JOURNAL_ERROR, "%s", err.message);
}

bool dispatch_cancel(struct dispatch *dispatch, const char *id, struct err *err)
{
    struct job *job = find_job(&dispatch->waiting, id);

    if (!job)
        job = find_job(&dispatch->unexplained, id);
    if (!job)
        job = find_job(&dispatch->running, id);

    if (!job || job->cancelled)
        return err_set(err, ERR_NOT_FOUND, tr("任务 %s 不存在或无法取消", "task %s does not exist or is over"), id);
    job->cancelled = true;
    dispatch_log(job, LOG_WARNING, "%s", tr("任务已被用户取消", "the task was cancelled by the user"));
    dispatch_set_state(job, TASK_CANCELLED, job->kind->text(TASK_TEXT_CANCELLED));
    if (!job->worker) {
        dispatch_jobs_remove(&dispatch->waiting, job);
        dispatch_jobs_remove(&dispatch->unexplained, job);
        store_log_end(dispatch->options.store, job->seq);
        dispatch_free_job(job);
        dispatch_soon(dispatch); /* others may wait for other reasons now */
    } else {
        worker_cancel(job->worker);
    }
    dispatch_flush(dispatch);
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
