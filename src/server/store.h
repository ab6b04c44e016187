/* store.h - every task, log line and limit, on disk. One SQLite database (WAL) in the data folder, one owner.
 *
 * What must survive an answer (a new task, a deletion, a limit) is written and synced before the call returns. All else
 * (states, progress, log lines) is seen by the next read at once and reaches the disk in groups: store_flush() commits
 * what has gathered in one transaction. Log lines alone are not synced at once (a power failure may take the last
 * seconds of a log, a crash of the daemon takes nothing). When the disk refuses, all stays in memory (bounded) and the
 * next flush tries again.
 *
 * In memory: the tasks that are not over, counters by kind and state, and what is not flushed yet. All calls come from
 * one thread. Texts passed to a callback live until it returns. */
#ifndef RFUAV_SERVER_STORE_H
#define RFUAV_SERVER_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define TASK_STATES(X)                                                                                                 \
    X(PENDING, "pending")                                                                                              \
    X(QUEUED, "queued")                                                                                                \
    X(RUNNING, "running")                                                                                              \
    X(COMPLETED, "completed")                                                                                          \
    X(FAILED, "failed")                                                                                                \
    X(CANCELLED, "cancelled")

enum task_state {
#define X(state, name) TASK_##state,
    TASK_STATES(X)
#undef X
        TASK_STATE_COUNT,
    TASK_ANY = TASK_STATE_COUNT, /* as a filter */
};

const char *task_state_name(enum task_state state);
bool task_state_find(const char *name, enum task_state *ret);
bool task_state_is_final(enum task_state state); /* completed, failed, cancelled */

struct store;

/* One record as it stands. */
struct store_task {
    int64_t seq; /* order of creation, never used twice */
    const char *id, *kind;
    enum task_state state;
    const char *message;
    const char *device;       /* as shown: as asked, then the one really given */
    const char *asked_device; /* as asked */
    int progress, priority;
    const char *created_at, *updated_at; /* ISO 8601, local */
    int64_t current_epoch, total_epochs; /* 0: null */
    const char *metrics;                 /* JSON object: the merged latest metrics; NULL: none yet */
    const char *stats;                   /* JSON object; NULL: none */
    const char *request;                 /* JSON object: the request with its defaults; NULL in lists */
    uint64_t memory;                     /* planned bytes on its device; 0: not known */
};

struct store_options {
    const char *folder;    /* made if missing; holds rfuav.db and rfuav.lock */
    int64_t log_lines_max; /* kept for each task; 0: 100 000. Older ones give way to a note */
};

/* Opens or makes the database; refuses (ERR_CONFLICT, naming the process) a folder that another daemon uses. */
bool store_open(const struct store_options *options, struct store **ret, struct err *err);
struct store *store_close(struct store *store); /* flushes; accepts and returns NULL */

typedef void store_task_fn(void *arg, const struct store_task *task);

/* Tasks that are added together or not at all; seq, created_at and updated_at are given by the store. */
struct store_group {
    const struct store_task *tasks;
    size_t count;
    int64_t *seqs;  /* (count), to be filled; may be NULL */
    bool ok;        /* to be set, */
    struct err err; /* or: ERR_CONFLICT when an id is in use, ERR_BUSY when the disk refuses */
};

/* Adds the groups, each for itself, with one sync for all of them. */
void store_insert_groups(struct store *store, struct store_group *groups, size_t count);

/* The same for one group of n. */
bool store_insert(struct store *store, const struct store_task *tasks, size_t n, int64_t *ret_seqs, struct err *err);

/* Calls fn with the task, request included; ERR_NOT_FOUND when there is none of that id. */
bool store_find(struct store *store, const char *id, store_task_fn *fn, void *arg, struct err *err);

/* Calls fn for the newest `limit` tasks of a kind (and a state, or TASK_ANY), in the order of creation. */
bool store_list(struct store *store, const char *kind, enum task_state state, int64_t limit, store_task_fn *fn,
                void *arg, struct err *err);

/* Calls fn, with the request, for all tasks that are not over, in the order of creation. */
bool store_each_unfinished(struct store *store, store_task_fn *fn, void *arg, struct err *err);

/* How many there are of a kind (NULL: all kinds) and state (TASK_ANY: all); at once, whatever is stored. */
int64_t store_count(const struct store *store, const char *kind, enum task_state state);

/* A number that changes whenever anything that store_find(), store_list() or store_count() shows has changed. */
uint64_t store_generation(const struct store *store);

enum store_set {
    STORE_STATE = 1 << 0,
    STORE_MESSAGE = 1 << 1,
    STORE_DEVICE = 1 << 2,
    STORE_PROGRESS = 1 << 3,
    STORE_EPOCH = 1 << 4,
    STORE_METRICS = 1 << 5,
    STORE_STATS = 1 << 6,
    STORE_MEMORY = 1 << 7,
};

/* Changes the fields named in `set` of a task whose log is open; updated_at follows state, message and progress. A task
 * that is over keeps its state (but may get another message). Never fails: see above. */
void store_change(struct store *store, int64_t seq, unsigned set, const struct store_task *values);

/* Removes a task and its log, and syncs. Watchers of its log are told. */
bool store_delete(struct store *store, const char *id, struct err *err);

/* ---- logs: lines of a task, counted from 1; a line is the JSON object of the event as it is sent to readers ---- */

void store_log(struct store *store, int64_t seq, const char *line, size_t size);

/* No line will follow: the task is over and its worker gone. Watchers are told. */
void store_log_end(struct store *store, int64_t seq);

/* Can more lines follow? false for ended logs and unknown tasks. */
bool store_log_is_open(const struct store *store, int64_t seq);

typedef bool store_line_fn(void *arg, int64_t n, const char *line, size_t size); /* false: enough */

/* Calls fn for at most `limit` lines with a number ≥ from, in order. Where old lines were dropped, the first is a note.
 */
bool store_log_read(struct store *store, int64_t seq, int64_t from, int64_t limit, store_line_fn *fn, void *arg,
                    struct err *err);

/* Somebody who follows a log. Callbacks must not close the store; they may unwatch themselves or others. */
struct store_watch {
    void (*line)(struct store_watch *watch, int64_t n, const char *line, size_t size); /* a new one, right now */
    void (*ended)(struct store_watch *watch, bool deleted); /* the last call; already unwatched */
    struct store *store;                                    /* these are the store's */
    struct store_watch *next, **link;
};
bool store_watch(struct store *store, int64_t seq, struct store_watch *watch); /* false: the log is not open */
void store_unwatch(struct store_watch *watch);                                 /* harmless when not watching */

/* ---- limits that were changed at run time ---- */

bool store_limit_set(struct store *store, const char *device, const char *kind, int64_t n, struct err *err);
typedef void store_limit_fn(void *arg, const char *device, const char *kind, int64_t n);
bool store_each_limit(struct store *store, store_limit_fn *fn, void *arg, struct err *err);

/* ---- to disk ---- */

bool store_is_dirty(const struct store *store); /* is there anything to flush? */

/* Commits what has gathered, synced when a task's state is among it. ERR_BUSY: the disk refuses, all is kept. */
bool store_flush(struct store *store, struct err *err);

/* Pages in the write-ahead log since the last checkpoint. */
int store_wal_pages(const struct store *store);

/* Moves the write-ahead log into the database and syncs it. Slow: made for a thread of its own; uses a connection of
 * its own, so it may run beside everything else. */
void store_checkpoint(const char *folder);

#endif
