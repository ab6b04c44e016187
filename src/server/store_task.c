/* store_task.c - the tasks of the store: records in memory, rows on disk, counters; see store_internal.h */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "server/store.h"
#include "server/store_internal.h"

/* ---- records ---- */

/* Where the record of `seq` is, or would be. */
static size_t record_index(const struct store *store, int64_t seq)
{
    size_t low = 0, high = store->record_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (store->records[middle]->task.seq < seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct record *store_record(const struct store *store, int64_t seq)
{
    size_t i = record_index(store, seq);

    return i < store->record_count && store->records[i]->task.seq == seq ? store->records[i] : NULL;
}

void store_free_record(struct record *record)
{
    const char *const texts[] = {record->task.id,         record->task.kind,         record->task.message,
                                 record->task.device,     record->task.asked_device, record->task.created_at,
                                 record->task.updated_at, record->task.metrics,      record->task.stats};

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free((char *)texts[i]);
    free(record);
}

static void drop_record(struct store *store, struct record *record)
{
    size_t i = record_index(store, record->task.seq);

    memmove(&store->records[i], &store->records[i + 1], (store->record_count - i - 1) * sizeof *store->records);
    store->record_count--;
    store_free_record(record);
}

/* Gives *text a copy of `value`; without memory it keeps the old one. */
static void set_text(const char **text, const char *value)
{
    char *copy = value ? strdup(value) : NULL;

    if (value && !copy)
        return;
    free((char *)*text);
    *text = copy;
}

/* Room for one more; so that after a commit nothing can fail. */
static bool reserve_records(struct store *store, size_t more)
{
    size_t capacity = store->record_capacity;
    struct record **records;

    while (capacity < store->record_count + more)
        capacity = capacity ? 2 * capacity : 64;
    if (capacity == store->record_capacity)
        return true;
    if (!(records = realloc(store->records, capacity * sizeof *records)))
        return false;
    store->records = records;
    store->record_capacity = capacity;
    return true;
}

static struct record *new_record(const struct store_task *task)
{
    struct record *record = calloc(1, sizeof *record);

    if (!record)
        return NULL;
    record->task = *task;
    record->task.request = NULL;
    record->task.id = record->task.kind = record->task.message = record->task.device = record->task.asked_device = NULL;
    record->task.created_at = record->task.updated_at = record->task.metrics = record->task.stats = NULL;
    set_text(&record->task.id, task->id);
    set_text(&record->task.kind, task->kind);
    set_text(&record->task.message, task->message);
    set_text(&record->task.device, task->device);
    set_text(&record->task.asked_device, task->asked_device);
    set_text(&record->task.created_at, task->created_at);
    set_text(&record->task.updated_at, task->updated_at);
    set_text(&record->task.metrics, task->metrics);
    set_text(&record->task.stats, task->stats);
    record->log_open = true;
    if (record->task.id && record->task.kind && record->task.created_at && record->task.updated_at)
        return record;
    store_free_record(record);
    return NULL;
}

static void add_record(struct store *store, struct record *record)
{
    size_t i = record_index(store, record->task.seq);

    memmove(&store->records[i + 1], &store->records[i], (store->record_count - i) * sizeof *store->records);
    store->records[i] = record;
    store->record_count++;
}

void store_release_records(struct store *store)
{
    for (size_t i = store->record_count; i-- > 0;) {
        struct record *record = store->records[i];

        if (!record->log_open && !record->dirty && !record->trim_to && task_state_is_final(record->task.state))
            drop_record(store, record);
    }
}

/* ---- counters ---- */

static struct kind_count *count_of(struct store *store, const char *kind)
{
    struct kind_count *counts;

    for (size_t i = 0; i < store->count_kinds; i++)
        if (strcmp(store->counts[i].kind, kind) == 0)
            return &store->counts[i];
    if (strlen(kind) >= sizeof counts->kind ||
        !(counts = realloc(store->counts, (store->count_kinds + 1) * sizeof *counts)))
        return NULL;
    store->counts = counts;
    counts += store->count_kinds++;
    memset(counts, 0, sizeof *counts);
    memcpy(counts->kind, kind, strlen(kind));
    return counts;
}

static void count(struct store *store, const char *kind, enum task_state state, int64_t by)
{
    struct kind_count *counts = count_of(store, kind);

    if (counts)
        counts->n[state] += by;
    store->generation++;
}

bool store_load_counts(struct store *store)
{
    sqlite3_stmt *statement = store_prepare(store, SQL_COUNT);
    enum task_state state;
    int status = SQLITE_NOMEM;

    count(store, "training", TASK_PENDING, 0); /* so that there is always a table */
    while (statement && (status = sqlite3_step(statement)) == SQLITE_ROW) {
        const char *kind = (const char *)sqlite3_column_text(statement, 0);
        const char *name = (const char *)sqlite3_column_text(statement, 1);

        if (kind && name && task_state_find(name, &state))
            count(store, kind, state, sqlite3_column_int64(statement, 2));
    }
    sqlite3_reset(statement);
    return status == SQLITE_DONE;
}

int64_t store_count(const struct store *store, const char *kind, enum task_state state)
{
    int64_t sum = 0;

    for (size_t i = 0; i < store->count_kinds; i++)
        if (!kind || strcmp(store->counts[i].kind, kind) == 0)
            for (int s = 0; s < TASK_STATE_COUNT; s++)
                if (state == TASK_ANY || (int)state == s)
                    sum += store->counts[i].n[s];
    return sum;
}

uint64_t store_generation(const struct store *store)
{
    return store->generation;
}

/* ---- writing ---- */

static void bind_insert(sqlite3_stmt *statement, const struct store_task *task)
{
    store_bind_text(statement, 1, task->id);
    store_bind_text(statement, 2, task->kind);
    store_bind_text(statement, 3, task_state_name(task->state));
    store_bind_text(statement, 4, task->message);
    store_bind_text(statement, 5, task->device);
    store_bind_text(statement, 6, task->asked_device);
    sqlite3_bind_int(statement, 7, task->progress);
    sqlite3_bind_int(statement, 8, task->priority);
    store_bind_text(statement, 9, task->created_at);
    store_bind_text(statement, 10, task->updated_at);
    sqlite3_bind_int64(statement, 11, task->current_epoch);
    sqlite3_bind_int64(statement, 12, task->total_epochs);
    store_bind_text(statement, 13, task->metrics);
    store_bind_text(statement, 14, task->stats);
    sqlite3_bind_int64(statement, 15, (int64_t)task->memory);
    store_bind_text(statement, 16, task->request);
}

/* One row; on a failure *broken tells whether the transaction is gone, or only this row refused. */
static bool insert_one(struct store *store, const struct store_task *given, struct record **ret, bool *broken,
                       struct err *err)
{
    char now[CLOCK_ISO_SIZE];
    struct store_task task = *given;
    sqlite3_stmt *statement = store_prepare(store, SQL_INSERT);

    if (!statement) {
        *broken = true;
        return store_fail(store, err);
    }
    clock_iso(now);
    task.created_at = task.updated_at = now;
    bind_insert(statement, &task);
    if (!store_run(statement)) {
        *broken = sqlite3_extended_errcode(store->db) != SQLITE_CONSTRAINT_UNIQUE;
        return *broken ? store_fail(store, err)
                       : err_set(err, ERR_CONFLICT, tr("任务 %s 已存在", "task %s exists already"), task.id);
    }
    task.seq = sqlite3_last_insert_rowid(store->db);
    return (*ret = new_record(&task)) || err_set(err, ERR_MEMORY, "no memory for task %s", task.id);
}

static bool run_simple(struct store *store, enum statement which)
{
    return store_run(store_prepare(store, which));
}

/* The rows of a group inside the open transaction, or none of them. False: the transaction is gone, group->err says
 * why.
 */
static bool insert_group(struct store *store, struct store_group *group, struct record **records)
{
    bool broken = false, ok = run_simple(store, SQL_GROUP);

    if (!ok)
        return store_fail(store, &group->err);
    for (size_t i = 0; ok && i < group->count; i++)
        ok = insert_one(store, &group->tasks[i], &records[i], &broken, &group->err);
    if (broken)
        return false;
    if ((!ok && !run_simple(store, SQL_GROUP_UNDO)) || !run_simple(store, SQL_GROUP_DONE))
        return store_fail(store, &group->err);
    group->ok = ok;
    return true;
}

/* After the commit: the new tasks are there for everybody; or they never were. */
static void publish_group(struct store *store, const struct store_group *group, struct record **records)
{
    for (size_t i = 0; i < group->count && records[i]; i++) {
        if (!group->ok) {
            store_free_record(records[i]);
            continue;
        }
        if (group->seqs)
            group->seqs[i] = records[i]->task.seq;
        count(store, records[i]->task.kind, records[i]->task.state, 1);
        add_record(store, records[i]);
    }
}

void store_insert_groups(struct store *store, struct store_group *groups, size_t group_count)
{
    struct record **records;
    size_t total = 0, done = 0, at = 0;
    struct err err;
    bool ok;

    for (size_t g = 0; g < group_count; g++) {
        groups[g].ok = false;
        total += groups[g].count;
    }
    records = calloc(total ? total : 1, sizeof *records);
    ok = records && reserve_records(store, total);
    if (!ok)
        err_set(&err, ERR_MEMORY, "no memory for %zu tasks", total);
    else if (!store_commit(store) || !store_begin(store, true))
        ok = store_fail(store, &err);
    for (; ok && done < group_count; at += groups[done++].count)
        if (!(ok = insert_group(store, &groups[done], records + at)))
            err = groups[done].err;
    if (ok && !store_commit(store))
        ok = store_fail(store, &err);
    at = 0;
    for (size_t g = 0; g < group_count; at += groups[g++].count) {
        /* what was refused for a reason of its own keeps that reason */
        if (!ok && (groups[g].ok || g >= done))
            groups[g].err = err;
        groups[g].ok = groups[g].ok && ok;
        if (records)
            publish_group(store, &groups[g], records + at);
    }
    free(records);
}

bool store_insert(struct store *store, const struct store_task *tasks, size_t n, int64_t *ret_seqs, struct err *err)
{
    struct store_group group = {.tasks = tasks, .count = n, .seqs = ret_seqs};

    store_insert_groups(store, &group, 1);
    if (!group.ok && err)
        *err = group.err;
    return group.ok;
}

void store_change(struct store *store, int64_t seq, unsigned set, const struct store_task *values)
{
    struct record *record = store_record(store, seq);
    char now[CLOCK_ISO_SIZE];

    if (!record)
        return;
    if ((set & STORE_STATE) && !task_state_is_final(record->task.state) && record->task.state != values->state) {
        count(store, record->task.kind, record->task.state, -1);
        count(store, record->task.kind, values->state, 1);
        record->task.state = values->state;
        record->sync = true;
    }
    if (set & STORE_MESSAGE)
        set_text(&record->task.message, values->message);
    if (set & STORE_DEVICE)
        set_text(&record->task.device, values->device);
    if (set & STORE_PROGRESS)
        record->task.progress = values->progress;
    if (set & STORE_EPOCH)
        record->task.current_epoch = values->current_epoch;
    if (set & STORE_METRICS)
        set_text(&record->task.metrics, values->metrics);
    if (set & STORE_STATS)
        set_text(&record->task.stats, values->stats);
    if (set & STORE_MEMORY)
        record->task.memory = values->memory;
    if (set & (STORE_STATE | STORE_MESSAGE | STORE_PROGRESS)) {
        clock_iso(now);
        set_text(&record->task.updated_at, now);
    }
    record->dirty = store->changed = true;
    record->applied = false;
    store->generation++;
}

static bool update_row(struct store *store, const struct record *record)
{
    const struct store_task *task = &record->task;
    sqlite3_stmt *statement;

    if (!store_begin(store, record->sync) || !(statement = store_prepare(store, SQL_UPDATE)))
        return false;
    sqlite3_bind_int64(statement, 1, task->seq);
    store_bind_text(statement, 2, task_state_name(task->state));
    store_bind_text(statement, 3, task->message);
    store_bind_text(statement, 4, task->device);
    sqlite3_bind_int(statement, 5, task->progress);
    store_bind_text(statement, 6, task->updated_at);
    sqlite3_bind_int64(statement, 7, task->current_epoch);
    store_bind_text(statement, 8, task->metrics);
    store_bind_text(statement, 9, task->stats);
    sqlite3_bind_int64(statement, 10, (int64_t)task->memory);
    return store_run(statement);
}

/* Those whose commit is synced go first: their transaction then takes the others along. */
bool store_apply_records(struct store *store)
{
    for (int sync = 1; sync >= 0; sync--)
        for (size_t i = 0; i < store->record_count; i++) {
            struct record *record = store->records[i];

            if (!record->dirty || record->applied || record->sync != (bool)sync)
                continue;
            if (!update_row(store, record))
                return false;
            record->applied = true;
        }
    return true;
}

/* ---- reading ---- */

static void read_row(sqlite3_stmt *row, struct store_task *task)
{
    const char *name = (const char *)sqlite3_column_text(row, 3);

#define TEXT(i) ((const char *)sqlite3_column_text(row, (i)))
    *task = (struct store_task){
        .seq = sqlite3_column_int64(row, 0),
        .id = TEXT(1),
        .kind = TEXT(2),
        .state = TASK_FAILED,
        .message = TEXT(4),
        .device = TEXT(5),
        .asked_device = TEXT(6),
        .progress = sqlite3_column_int(row, 7),
        .priority = sqlite3_column_int(row, 8),
        .created_at = TEXT(9),
        .updated_at = TEXT(10),
        .current_epoch = sqlite3_column_int64(row, 11),
        .total_epochs = sqlite3_column_int64(row, 12),
        .metrics = TEXT(13),
        .stats = TEXT(14),
        .memory = (uint64_t)sqlite3_column_int64(row, 15),
        .request = TEXT(16),
    };
#undef TEXT
    if (name)
        task_state_find(name, &task->state);
}

/* The row as it stands, were the disk to refuse what changed since. */
static void overlay(const struct store *store, struct store_task *task)
{
    const struct record *record = store_record(store, task->seq);
    const char *request = task->request;

    if (!record)
        return;
    *task = record->task;
    task->request = request;
}

/* Makes changes visible to SELECT. A disk that refuses does not stop reading: overlay() then shows what is in memory.
 */
static void make_visible(struct store *store)
{
    if (!store_apply(store))
        store_rollback(store);
}

static bool reading_failed(struct store *store, struct err *err)
{
    return err_set(err, ERR_BUSY, tr("任务数据库无法读取: %s", "the task database cannot be read: %s"),
                   sqlite3_errmsg(store->db));
}

bool store_find(struct store *store, const char *id, store_task_fn *fn, void *arg, struct err *err)
{
    sqlite3_stmt *statement = store_prepare(store, SQL_FIND);
    struct store_task task;
    int status;

    if (!statement)
        return reading_failed(store, err);
    store_bind_text(statement, 1, id);
    if ((status = sqlite3_step(statement)) == SQLITE_ROW) {
        read_row(statement, &task);
        overlay(store, &task);
        fn(arg, &task);
    }
    sqlite3_reset(statement);
    if (status == SQLITE_ROW)
        return true;
    if (status != SQLITE_DONE)
        return reading_failed(store, err);
    return err_set(err, ERR_NOT_FOUND, tr("任务 %s 不存在", "task %s does not exist"), id);
}

/* seq of the limit-th newest; 0: there are no more than `limit`. */
static bool first_of_list(struct store *store, const char *kind, enum task_state state, int64_t limit, int64_t *ret)
{
    sqlite3_stmt *statement = store_prepare(store, state == TASK_ANY ? SQL_FIRST : SQL_FIRST_STATE);
    int status;

    if (!statement)
        return false;
    store_bind_text(statement, 1, kind);
    sqlite3_bind_int64(statement, 2, limit - 1);
    if (state != TASK_ANY)
        store_bind_text(statement, 3, task_state_name(state));
    status = sqlite3_step(statement);
    *ret = status == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
    sqlite3_reset(statement);
    return status == SQLITE_ROW || status == SQLITE_DONE;
}

bool store_list(struct store *store, const char *kind, enum task_state state, int64_t limit, store_task_fn *fn,
                void *arg, struct err *err)
{
    sqlite3_stmt *statement;
    struct store_task task;
    int64_t first;
    int status;

    if (limit <= 0)
        return true;
    make_visible(store);
    if (!first_of_list(store, kind, state, limit, &first) ||
        !(statement = store_prepare(store, state == TASK_ANY ? SQL_LIST : SQL_LIST_STATE)))
        return reading_failed(store, err);
    store_bind_text(statement, 1, kind);
    sqlite3_bind_int64(statement, 2, first);
    if (state != TASK_ANY)
        store_bind_text(statement, 3, task_state_name(state));
    while ((status = sqlite3_step(statement)) == SQLITE_ROW) {
        read_row(statement, &task);
        overlay(store, &task);
        if (state == TASK_ANY || task.state == state)
            fn(arg, &task);
    }
    sqlite3_reset(statement);
    return status == SQLITE_DONE || reading_failed(store, err);
}

/* Called at the start: puts them into memory as well. */
bool store_each_unfinished(struct store *store, store_task_fn *fn, void *arg, struct err *err)
{
    sqlite3_stmt *statement = store_prepare(store, SQL_UNFINISHED);
    struct store_task task;
    int status = SQLITE_NOMEM;

    while (statement && (status = sqlite3_step(statement)) == SQLITE_ROW) {
        struct record *record;

        read_row(statement, &task);
        if (!store_record(store, task.seq)) {
            if (!reserve_records(store, 1) || !(record = new_record(&task))) {
                sqlite3_reset(statement);
                return err_set(err, ERR_MEMORY, "no memory for task %s", task.id);
            }
            store_load_line_range(store, record);
            add_record(store, record);
        }
        fn(arg, &task);
    }
    sqlite3_reset(statement);
    return status == SQLITE_DONE || reading_failed(store, err);
}

/* ---- deleting ---- */

bool store_delete(struct store *store, const char *id, struct err *err)
{
    struct store_task task = {0};
    sqlite3_stmt *statement;
    struct record *record;
    char kind[32] = "";

    if (!store_apply(store) || !store_begin(store, true) || !(statement = store_prepare(store, SQL_FIND)))
        return store_fail(store, err);
    store_bind_text(statement, 1, id);
    if (sqlite3_step(statement) == SQLITE_ROW) {
        read_row(statement, &task);
        snprintf(kind, sizeof kind, "%s", task.kind);
    }
    sqlite3_reset(statement);
    if (!task.seq)
        return err_set(err, ERR_NOT_FOUND, tr("任务 %s 不存在", "task %s does not exist"), id);
    if (!store_run_on(store, SQL_DELETE, task.seq) || !store_run_on(store, SQL_TRASH, task.seq) || !store_commit(store))
        return store_fail(store, err);
    store->trash = true;
    count(store, kind, task.state, -1);
    if ((record = store_record(store, task.seq))) {
        store_end_watches(store, record, true);
        drop_record(store, record);
    }
    return true;
}
