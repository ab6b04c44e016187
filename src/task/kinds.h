/* kinds.h - the kinds of work: one row adds a start route, a subcommand, a scheduler class and the code that runs. */
#ifndef RFUAV_TASK_KINDS_H
#define RFUAV_TASK_KINDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/fields.h"
#include "task/task.h"

/* which limit a task counts against */
enum slot_kind { SLOT_TRAINING, SLOT_INFERENCE, SLOT_KINDS, SLOT_NONE = SLOT_KINDS };

/* the states of a task's life, section 10 of the contract */
enum task_text {
    TASK_TEXT_PENDING,
    TASK_TEXT_QUEUED,
    TASK_TEXT_RUNNING,
    TASK_TEXT_COMPLETED,
    TASK_TEXT_FAILED,
    TASK_TEXT_CANCELLED, /* at the moment of the cancel */
    TASK_TEXT_RELEASED,  /* cancelled, and the worker of a running task has let go */
    TASK_TEXTS
};

struct task_kind {
    const char *name;       /* "training": task_type, and what a worker is told */
    const char *command;    /* subcommand: "train" */
    const char *start_path; /* "/api/v2/training/start" */
    enum slot_kind slot;
    const struct field_table *request;
    size_t device_offset, task_id_offset, priority_offset; /* of the members in the request's struct */

    /* The contract's checks of a request that has the right form: model, paths (ERR_REQUEST, answered 400). Also
     * makes paths absolute, so that the daemon's folder does not matter. Runs in the daemon: no slow work. */
    bool (*check)(void *request, struct arena *arena, struct err *err);

    /* Bytes that the run will take on a device of backend "cpu" or "cuda", and in *advice (may be NULL) a sentence with
     * what would fit in `available` bytes ("the largest batch_size that fits is 24"). 0 bytes: not known before the
     * start. Runs in the daemon. */
    uint64_t (*memory)(const void *request, const char *backend, uint64_t available, char *advice, size_t advice_size);

    /* For trainings num_epochs, else 0: total_epochs of the record. */
    int64_t (*total_epochs)(const void *request);

    /* The work, in the worker. Logs, progress and metrics go through `task`. On cancel it returns false with
     * ERR_CANCELLED. */
    bool (*run)(struct task *task, const void *request, struct err *err);

    /* The message of a state, in the language in use; FAILED ends in ": %s"-ready prefix ("训练失败: "). */
    const char *(*text)(enum task_text which);
};

extern const struct task_kind task_kinds[];
extern const size_t task_kind_count;

const struct task_kind *task_kind_find(const char *name); /* NULL: unknown */

/* Can this build compute with the backend ("cpu", "cuda")? */
bool task_backend_exists(const char *name);

/* Can it use a GPU of this major compute capability (0: not known)? *ret_oldest: the oldest that it can. */
bool task_backend_supports(const char *name, int compute_major, int *ret_oldest);

/* What computes, in one line: "rfuav 3.0.0, oneDNN 2.6.3". */
const char *task_engine_version(void);

#endif
