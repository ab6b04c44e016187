/* task.h - a running task as the code that does the work sees it: where to report to, when to stop, what it may use.
 * In a worker the reports become messages on descriptor 3; in tests they go to a callback. */
#ifndef RFUAV_TASK_TASK_H
#define RFUAV_TASK_TASK_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"

enum log_level { LOG_INFO, LOG_WARNING, LOG_ERROR };
const char *log_level_name(enum log_level level); /* "INFO" */

struct task {
    const char *id;
    const char *device;         /* as the user sees it: "cuda:0", "cpu" */
    const char *backend;        /* "cpu", "ref", "cuda" */
    const char *device_uuid;    /* NULL on the CPU */
    const char *asked_device;   /* what the request said */
    int threads;                /* CPU threads to use; 0: all cores */
    uint64_t memory_limit;      /* bytes for caches on the host */
    const char *weights_folder; /* where pretrained weights are looked for first; NULL: none */
    struct arena *arena;        /* lives as long as the task */

    void (*send)(struct task *task, json_t *message); /* takes the reference */
    bool (*cancelled)(struct task *task);             /* cheap: looked at for every batch and every file */
    void *arg;

    /* kept by task_progress() and task_memory() */
    int percent;
    int64_t epoch;
    uint64_t planned;
    bool taken;
};

/* One line of the log; bytes that are no UTF-8 (of file names) become U+FFFD. metrics: the line's own metrics (a JSON
 * object whose reference is taken) or NULL; stage likewise "epoch_start", …, or NULL. NaN and infinity must not be in
 * metrics. */
void task_log(struct task *task, enum log_level level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void task_log_metrics(struct task *task, const char *stage, json_t *metrics, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Tells the daemon how many bytes the task will take on its device at most. */
void task_memory(struct task *task, uint64_t planned);

/* Tells it that the task holds them by now: from here on the driver's figures of the device include them, and they must
 * not be counted twice. Sent once; to be called when a few steps have run. */
void task_memory_taken(struct task *task);

/* 0 to 100, never falling (a lower number counts as the last one); epoch 0: no epochs (inference). Sends only what is
 * news, so that it may be called for every batch. */
void task_progress(struct task *task, int percent, int64_t epoch);

#endif
