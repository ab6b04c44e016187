/* dispatch.h - the life of a task: accepted, queued, placed, run by a worker, ended. Every change of state happens here
 * and goes to the store, log first, then state. It owns the queue, the slots and the workers; nobody else starts,
 * stops or counts anything. */
#ifndef RFUAV_SERVER_DISPATCH_H
#define RFUAV_SERVER_DISPATCH_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/err.h"
#include "server/monitor.h"
#include "server/placement.h"
#include "server/store.h"
#include "task/kinds.h"

struct dispatch;

struct dispatch_options {
    uv_loop_t *loop;
    struct store *store;
    struct monitor *monitor;
    const char *program;        /* the worker's executable; NULL: this one */
    const char *weights_folder; /* for the worker; NULL: none */
    int64_t threads;            /* a task may use; 0: all */
    uint64_t cache_bytes;       /* of decoded images a task; 0: a quarter of the memory that is free at its start */
    int64_t queue_size;         /* most tasks waiting at a time */
    int64_t limit_gpu[SLOT_KINDS], limit_cpu[SLOT_KINDS]; /* until changed at run time */
    double reserve_after;                                 /* seconds; 0: 60 */
};

/* Takes up what an earlier run left: waiting tasks wait on, running ones are queued again. */
bool dispatch_open(const struct dispatch_options *options, struct dispatch **ret, struct err *err);

/* To be called after each sample of the monitor. */
void dispatch_devices_changed(struct dispatch *dispatch);

/* Stops all workers (their tasks are queued again at the next start) and calls done(arg) when they are gone, within
 * 4 s; then dispatch_free(). */
void dispatch_stop(struct dispatch *dispatch, void (*done)(void *arg), void *arg);
struct dispatch *dispatch_free(struct dispatch *dispatch); /* accepts and returns NULL */

struct submission {
    const struct task_kind *kind;
    const char *id;     /* NULL or "": a new UUID */
    const char *device; /* as asked */
    struct placement placement;
    int64_t priority, total_epochs;
    const json_t *request; /* with its defaults: what the worker is told */
};

/* Tasks that are accepted together or not at all. */
struct submission_group {
    const struct submission *submissions;
    size_t count;
    store_task_fn *fn; /* called with each record, once it is on disk */
    void *arg;
    bool ok;        /* to be set, */
    struct err err; /* or: ERR_CONFLICT: an id is in use; ERR_BUSY: queue full, stopping, or no disk */
};

/* Accepts the groups, each for itself, with one write to the disk; on return what was accepted is there, `pending`. It
 * is queued in the loop's next turn. */
void dispatch_submit(struct dispatch *dispatch, struct submission_group *groups, size_t count);

/* The record says `cancelled` on return, the process is gone within 2 s. ERR_NOT_FOUND: unknown or over. */
bool dispatch_cancel(struct dispatch *dispatch, const char *id, struct err *err);

/* Drops the record of a task that is over. ERR_NOT_FOUND: unknown or not over. */
bool dispatch_delete(struct dispatch *dispatch, const char *id, struct err *err);

/* ---- who uses what: devices are the GPUs in order, then the CPU ---- */

size_t dispatch_device_count(const struct dispatch *dispatch);
const char *dispatch_device_id(const struct dispatch *dispatch, size_t device);             /* "cuda:0", …, "cpu" */
int64_t dispatch_used(const struct dispatch *dispatch, size_t device, enum slot_kind slot); /* slots held now */
uint64_t dispatch_memory(const struct dispatch *dispatch, size_t device); /* bytes that its tasks have reserved there */
typedef void dispatch_active_fn(void *arg, size_t device, const char *id, const struct task_kind *kind);
void dispatch_each_active(const struct dispatch *dispatch, dispatch_active_fn *fn, void *arg); /* in order of start */
int64_t dispatch_waiting(const struct dispatch *dispatch);

/* A number that changes whenever usage or limits have changed. */
uint64_t dispatch_generation(const struct dispatch *dispatch);

/* ---- limits ---- */

/* Is it a device that limits can be set for: "cuda", "cpu", or a GPU of this machine? */
bool dispatch_knows_device(const struct dispatch *dispatch, const char *device);

/* Persistent, at once, also for tasks that wait; nothing running is stopped. n ≥ 0. */
bool dispatch_limit_set(struct dispatch *dispatch, const char *device, enum slot_kind slot, int64_t n, struct err *err);

/* The map as it is shown: "cuda", "cpu", and with several GPUs each of them: {"cuda":{"training":1,"inference":3},…} */
json_t *dispatch_limits(const struct dispatch *dispatch);

#endif
