/* store_internal.h - the inside of the store, shared by store*.c only.
 *
 * A change goes to the record in memory (`dirty`) and a log line to `lines`; store_apply() executes what is not yet
 * executed inside the open transaction, so that the next SELECT sees it; store_commit() ends the transaction. When any
 * statement fails the transaction is rolled back and everything counts as not executed again: no change is forgotten
 * before COMMIT has succeeded. */
#ifndef RFUAV_SERVER_STORE_INTERNAL_H
#define RFUAV_SERVER_STORE_INTERNAL_H

#include <sqlite3.h>

#include "server/store.h"

/* name, SQL: prepared at first use */
#define TASK_COLUMNS                                                                                                   \
    "seq, id, kind, status, message, device, asked_device, progress, priority, created_at, updated_at, "               \
    "current_epoch, "                                                                                                  \
    "total_epochs, metrics, stats, memory"
#define STATEMENTS(X)                                                                                                  \
    X(BEGIN, "BEGIN IMMEDIATE")                                                                                        \
    X(COMMIT, "COMMIT")                                                                                                \
    X(ROLLBACK, "ROLLBACK")                                                                                            \
    X(GROUP, "SAVEPOINT one_group")                                                                                    \
    X(GROUP_UNDO, "ROLLBACK TO one_group")                                                                             \
    X(GROUP_DONE, "RELEASE one_group")                                                                                 \
    X(INSERT, "INSERT INTO tasks (id, kind, status, message, device, asked_device, progress, priority, created_at, "   \
              "updated_at, current_epoch, total_epochs, metrics, stats, memory, request) "                             \
              "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)")                        \
    X(UPDATE, "UPDATE tasks SET status = ?2, message = ?3, device = ?4, progress = ?5, updated_at = ?6, "              \
              "current_epoch = ?7, metrics = ?8, stats = ?9, memory = ?10 WHERE seq = ?1")                             \
    X(FIND, "SELECT " TASK_COLUMNS ", request FROM tasks WHERE id = ?1")                                               \
    X(UNFINISHED, "SELECT " TASK_COLUMNS ", request FROM tasks WHERE status IN ('pending', 'queued', 'running') "      \
                  "ORDER BY seq")                                                                                      \
    X(LIST, "SELECT " TASK_COLUMNS ", NULL FROM tasks WHERE kind = ?1 AND seq >= ?2 ORDER BY seq")                     \
    X(LIST_STATE, "SELECT " TASK_COLUMNS ", NULL FROM tasks WHERE kind = ?1 AND status = ?3 AND seq >= ?2 "            \
                  "ORDER BY seq")                                                                                      \
    X(FIRST, "SELECT seq FROM tasks WHERE kind = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2")                              \
    X(FIRST_STATE, "SELECT seq FROM tasks WHERE kind = ?1 AND status = ?3 ORDER BY seq DESC LIMIT 1 OFFSET ?2")        \
    X(COUNT, "SELECT kind, status, n FROM counts")                                                                     \
    X(DELETE, "DELETE FROM tasks WHERE seq = ?1")                                                                      \
    X(TRASH, "INSERT OR IGNORE INTO trash (task) VALUES (?1)")                                                         \
    X(TRASH_NEXT, "SELECT task FROM trash LIMIT 1")                                                                    \
    X(TRASH_LINES, "DELETE FROM logs WHERE task = ?1 AND n < (SELECT min(n) FROM logs WHERE task = ?1) + 2000")        \
    X(TRASH_DONE, "DELETE FROM trash WHERE task = ?1")                                                                 \
    X(LINE, "INSERT INTO logs (task, n, line) VALUES (?1, ?2, ?3)")                                                    \
    X(LINES, "SELECT n, line FROM logs WHERE task = ?1 AND n >= ?2 ORDER BY n LIMIT ?3")                               \
    X(LINE_RANGE, "SELECT min(n), max(n) FROM logs WHERE task = ?1")                                                   \
    X(LINES_DROP, "DELETE FROM logs WHERE task = ?1 AND n <= ?2")                                                      \
    X(LIMIT_SET, "INSERT OR REPLACE INTO limits (device, kind, n) VALUES (?1, ?2, ?3)")                                \
    X(LIMITS, "SELECT device, kind, n FROM limits")

enum statement {
#define X(name, sql) SQL_##name,
    STATEMENTS(X)
#undef X
        STATEMENT_COUNT
};

/* A task that is not over, or whose log is open, or that is not on disk as it stands. */
struct record {
    struct store_task task; /* texts are owned; request is not kept */
    int64_t first_line, last_line, trim_to;
    bool log_open, dirty, applied, sync; /* sync: its commit must reach the platter */
    struct store_watch *watches;
};

struct line {
    int64_t seq, n;
    size_t size;
    char *text;
};

struct kind_count {
    char kind[32];
    int64_t n[TASK_STATE_COUNT];
};

struct store {
    sqlite3 *db;
    sqlite3_stmt *statements[STATEMENT_COUNT];
    int lock_fd;
    int64_t log_lines_max;

    struct record **records; /* by seq, ascending */
    size_t record_count, record_capacity;
    struct line *lines; /* not committed yet, in order */
    size_t line_count, line_capacity, lines_applied, line_bytes;
    int64_t lines_lost;             /* while the disk refused and memory was at its bound */
    struct store_watch *next_watch; /* where the walk over the watches goes on */

    struct kind_count *counts;
    size_t count_kinds;
    uint64_t generation;
    bool changed; /* since the last flush: a record or a line */
    bool in_transaction, transaction_syncs, trash;
    int wal_pages;
};

/* ---- store.c ---- */
sqlite3_stmt *store_prepare(struct store *store, enum statement which); /* reset and unbound; NULL on error */
bool store_fail(struct store *store, struct err *err);                  /* rolls back, ERR_BUSY with SQLite's words */
bool store_run(sqlite3_stmt *statement); /* to the end, no rows wanted; resets; NULL is an error */
bool store_run_on(struct store *store, enum statement which, int64_t seq); /* the same with ?1 = seq */
bool store_begin(struct store *store, bool sync);
bool store_apply(struct store *store); /* on failure everything is rolled back */
bool store_commit(struct store *store);
void store_rollback(struct store *store);
void store_bind_text(sqlite3_stmt *statement, int at, const char *text); /* NULL: null; not copied */

/* ---- store_task.c ---- */
struct record *store_record(const struct store *store, int64_t seq); /* NULL: not in memory */
bool store_apply_records(struct store *store);
void store_release_records(struct store *store); /* forgets those that memory has no use for; all when closing */
bool store_load_counts(struct store *store);
void store_free_record(struct record *record);

/* ---- store_log.c ---- */
bool store_apply_lines(struct store *store);
void store_load_line_range(struct store *store, struct record *record);
void store_forget_lines(struct store *store); /* after COMMIT */
void store_end_watches(struct store *store, struct record *record, bool deleted);
bool store_purge_trash(struct store *store); /* a bounded part of the lines of deleted tasks */

#endif
