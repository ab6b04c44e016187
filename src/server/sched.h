/* sched.h - which waiting task starts where: pure functions of (queue, devices, limits, now), no clock, no state.
 *
 * Order is priority (1 first), then age. A task that can run is not held up by one that cannot. But a task that has
 * waited `reserve_after` seconds and finds a slot without enough memory has the device kept free of later tasks until
 * it starts, so that small ones cannot starve it - if it will fit there once our own tasks end: for the memory of
 * other programs nothing is kept idle.
 *
 * A GPU that fails its tasks at once would always be the least loaded one and draw the whole queue. So a suspect one is
 * passed over as long as there is another that the task can start on or wait for. */
#ifndef RFUAV_SERVER_SCHED_H
#define RFUAV_SERVER_SCHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "task/kinds.h"

/* what a task asks for: a GPU's index ≥ 0, or */
enum { ASK_ANY_GPU = -1, ASK_CPU = -2 };

/* "cuda", "cuda:3" or "cpu"; false for anything else. Whether the GPU exists is not looked at. */
bool sched_parse_device(const char *text, int *ret_ask);

struct sched_task {
    const char *id;
    enum slot_kind slot; /* SLOT_NONE: takes no slot */
    int ask;
    int priority;
    int64_t seq;     /* age: lower is older */
    double since;    /* when it began to wait, seconds */
    uint64_t memory; /* bytes it will take on its device; 0: not known, taken as fitting */
};

struct sched_device {
    const char *id; /* "cuda:0", "cpu" */
    bool gpu, lost; /* lost: nothing starts there until it answers again */
    bool suspect;   /* it has just failed a task: only for tasks that name it, or that have no better to wait for */
    int64_t limit[SLOT_KINDS], used[SLOT_KINDS];
    const char *holder[SLOT_KINDS]; /* id of a task that holds a slot, or NULL */
    uint64_t memory_free;           /* bytes a new task may have: free, less what admitted tasks have yet to take */
    uint64_t memory_ours;           /* bytes that come back when our tasks there end */
    uint64_t memory_other;          /* bytes held by other processes */
};

enum sched_outcome {
    SCHED_START,         /* on `device` */
    SCHED_WAIT_SLOT,     /* every device it may use has its slots taken; `device`: one of them */
    SCHED_WAIT_MEMORY,   /* a slot is there, the memory is not */
    SCHED_WAIT_RESERVED, /* it would fit, but the device is kept for `holder` */
    SCHED_WAIT_LIMIT,    /* the limit is 0 everywhere it may run */
    SCHED_WAIT_SUSPECT,  /* (internal) it would fit there, but there are better ones */
    SCHED_WAIT_LOST,     /* the device does not answer */
    SCHED_WAIT_DEVICE,   /* no such device on this machine now */
};

struct sched_verdict {
    enum sched_outcome outcome;
    int device;         /* index into devices; -1: none */
    const char *holder; /* id of the task that is in the way, or NULL */
};

/* Decides for all n tasks at once: verdicts[i] is for tasks[i]. devices: the GPUs in order, then the CPU; each verdict
 * to start is entered in `used`, `memory_free` and `memory_ours` of its device before the next task is looked at.
 * Returns how many start; false memory is an error of its own: (size_t)-1. */
size_t sched_pick(const struct sched_task *tasks, size_t n, struct sched_device *devices, size_t device_count,
                  double now, double reserve_after, struct sched_verdict *verdicts);

/* Appends the reason why a task waits, in the language in use: "cuda:0: 训练 1/1, {id}", "cuda:1: 5.2 GB needed, 3.1 GB
 * free, 4.0 GB held by other processes", and for want of memory on any GPU that of each. Nothing for SCHED_START. */
void sched_reason(const struct sched_task *task, const struct sched_verdict *verdict,
                  const struct sched_device *devices, size_t device_count, struct buf *out);

/* ---- limits by device and kind ---- */

/* n < 0: not set. `cuda` holds for every GPU without a value of its own. */
struct limits {
    int64_t cuda[SLOT_KINDS], cpu[SLOT_KINDS];
    struct gpu_limit {
        int64_t max[SLOT_KINDS];
    } * gpus; /* (gpu_count) */
    size_t gpu_count;
};

bool limits_init(struct limits *limits,
                 size_t gpu_count); /* nothing set for single GPUs, zeros else; false: no memory */
void limits_release(struct limits *limits);

/* device: "cuda", "cpu", "cuda:N"; false when this machine has no such device. */
bool limits_set(struct limits *limits, const char *device, enum slot_kind slot, int64_t n);

/* ask: a GPU's index, ASK_ANY_GPU for the entry "cuda", ASK_CPU. */
int64_t limits_get(const struct limits *limits, int ask, enum slot_kind slot);

#endif
