/* dispatch_internal.h - the inside of the dispatcher, shared by dispatch*.c only.
 *
 * A job is a task that is not over, or whose worker is not gone. It is in `waiting` until it is given a device, then in
 * `running` until its process is gone; that list is what slots and memory are counted from, so nothing can be given
 * back twice or not at all. */
#ifndef RFUAV_SERVER_DISPATCH_INTERNAL_H
#define RFUAV_SERVER_DISPATCH_INTERNAL_H

#include "server/dispatch.h"
#include "server/sched.h"
#include "server/worker.h"

struct job {
    struct dispatch *dispatch;
    int64_t seq;
    char *id, *asked_device;
    const struct task_kind *kind;
    json_t *request;
    int64_t priority;
    struct placement placement;
    bool placed;    /* placement is known: not yet for one taken up from an earlier run */
    bool announced; /* queued, its first line written */
    double since;   /* clock_seconds() when it began to wait */
    char *reason;   /* why it waits, as last told */

    /* once running */
    int device; /* index: the GPUs in order, then the CPU */
    struct worker *worker;
    uint64_t memory, allocated; /* planned bytes on the device; those it holds already */
    double allocated_at;        /* clock_seconds() of that report */
    double ended_at;            /* clock_seconds(); of one in `unexplained` */
    int progress;
    json_t *metrics; /* merged; NULL: none yet */
    json_t *end;     /* its last message; NULL: none */
    char *fault;     /* it broke the protocol: why */
    bool cancelled;  /* by the user: the record is final, the process on its way out */
    bool deleted;    /* even the record is gone */
};

struct jobs {
    struct job **items;
    size_t count, capacity;
};

struct dispatch {
    struct dispatch_options options;
    uv_timer_t soon;     /* queueing and picking, in the loop's next turn */
    double look_seconds; /* that the last choice among those that wait took */
    struct jobs waiting, running;
    struct jobs unexplained; /* over for want of memory; the driver is being asked what there is */
    struct limits limits;
    bool knows_devices; /* the driver has answered and the limits are loaded */
    double *broke_at;   /* (GPUs) clock_seconds() when a task last failed by the device's fault; 0: it works */
    uint64_t generation;
    void (*stopped)(void *arg); /* not NULL: stopping */
    void *stopped_arg;
    bool closed;
};

/* ---- dispatch.c ---- */
void dispatch_flush(struct dispatch *dispatch); /* what has gathered goes to disk now, if it takes it */
bool dispatch_jobs_add(struct jobs *jobs, struct job *job);
void dispatch_jobs_remove(struct jobs *jobs, const struct job *job);
void dispatch_free_job(struct job *job);

/* ---- dispatch_queue.c ---- */
void dispatch_soon(struct dispatch *dispatch); /* look at the queue in the loop's next turn */

/* ---- dispatch_limits.c ---- */
size_t dispatch_gpus(const struct dispatch *dispatch);
void dispatch_learn_devices(struct dispatch *dispatch); /* once the driver has answered: the limits of each GPU */

/* ---- dispatch_run.c ---- */

/* A start is two steps. dispatch_assign() gives the job, no longer in `waiting`, the device and makes it `running`;
 * once that is on disk (so that a restart knows that there was a run), dispatch_start() starts its worker. A failure
 * ends the task; false: at once, the job is gone. */
bool dispatch_assign(struct dispatch *dispatch, struct job *job, int device);
void dispatch_start(struct dispatch *dispatch, struct job *job);

/* Ends a task that has no worker (any more): log first, then state; frees the job. */
void dispatch_fail(struct dispatch *dispatch, struct job *job, const char *error);

/* Writes a line to the task's log. */
void dispatch_log(const struct job *job, enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

void dispatch_set_state(const struct job *job, enum task_state state, const char *message);

/* ---- dispatch_memory.c ---- */

/* Has it failed for want of memory on a GPU? Then its last words are to be completed by what there is now. */
bool dispatch_wants_explaining(const struct job *job);
void dispatch_explain_later(struct dispatch *dispatch, struct job *job);
void dispatch_explain(struct dispatch *dispatch, bool now); /* those that a sample was taken for, or all */

/* ---- dispatch_run.c again ---- */

/* Tells the devices of a file what our tasks take there. */
void dispatch_occupy(struct dispatch *dispatch);

#endif
