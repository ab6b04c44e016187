/* store_log.c - the logs of the store: lines waiting for a commit, lines on disk, watchers; see store_internal.h */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/text.h"
#include "server/store.h"
#include "server/store_internal.h"

/* what memory may hold of lines that the disk refuses */
enum { LINES_MAX = 50000, LINE_BYTES_MAX = 16 << 20 };

/* ---- writing ---- */

/* Room in memory for a line; notes it as lost when there is none. */
static struct line *reserve_line(struct store *store, size_t size)
{
    struct line *lines;

    if (store->line_count >= LINES_MAX || store->line_bytes + size > LINE_BYTES_MAX)
        return NULL;
    if (store->line_count == store->line_capacity) {
        size_t capacity = store->line_capacity ? 2 * store->line_capacity : 64;

        if (!(lines = realloc(store->lines, capacity * sizeof *lines)))
            return NULL;
        store->lines = lines;
        store->line_capacity = capacity;
    }
    return &store->lines[store->line_count];
}

static void tell_watches(struct store *store, const struct record *record, const struct line *line)
{
    for (struct store_watch *watch = record->watches; watch; watch = store->next_watch) {
        store->next_watch = watch->next;
        watch->line(watch, line->n, line->text, line->size);
    }
    store->next_watch = NULL;
}

/* A note of our own in the log's form. */
static void format_note(struct buf *line, const char *text)
{
    char now[CLOCK_ISO_SIZE];

    clock_iso(now);
    buf_printf(line, "{\"timestamp\": \"%s\", \"level\": \"WARNING\", \"message\": ", now);
    buf_json_string(line, text);
    buf_puts(line, "}");
}

static void note_lost_lines(struct store *store, int64_t seq)
{
    char text[200];
    struct buf line;
    int64_t lost = store->lines_lost;

    snprintf(text, sizeof text,
             tr("磁盘无法写入时丢失了 %lld 行日志", "%lld lines of logs were lost while the disk could not be written"),
             (long long)lost);
    buf_init(&line, 1024);
    format_note(&line, text);
    store->lines_lost = 0;
    if (!line.failed)
        store_log(store, seq, line.data, line.size);
    buf_release(&line);
}

void store_log(struct store *store, int64_t seq, const char *text, size_t size)
{
    struct record *record = store_record(store, seq);
    struct line *line, told;
    char *copy;

    if (!record || !record->log_open)
        return;
    if (store->lines_lost && store->line_count < LINES_MAX / 2 && store->line_bytes < LINE_BYTES_MAX / 2)
        note_lost_lines(store, seq);
    line = reserve_line(store, size);
    copy = line ? malloc(size + 1) : NULL;
    if (!copy) {
        store->lines_lost++;
        return;
    }
    memcpy(copy, text, size);
    copy[size] = 0;
    *line = (struct line){.seq = seq, .n = ++record->last_line, .size = size, .text = copy};
    store->line_count++;
    store->line_bytes += size;
    store->changed = true;
    if (!record->first_line)
        record->first_line = 1;
    /* a tenth more than wanted, so that dropping is done in portions */
    if (record->last_line - record->first_line + 1 > store->log_lines_max + store->log_lines_max / 10)
        record->trim_to = record->last_line - store->log_lines_max + 1;
    told = *line;
    tell_watches(store, record, &told);
}

static bool insert_line(struct store *store, const struct line *line)
{
    sqlite3_stmt *statement = store_prepare(store, SQL_LINE);

    if (!statement)
        return false;
    sqlite3_bind_int64(statement, 1, line->seq);
    sqlite3_bind_int64(statement, 2, line->n);
    sqlite3_bind_text(statement, 3, line->text, (int)line->size, SQLITE_STATIC);
    return store_run(statement);
}

/* Drops the lines before `trim_to` and puts a note in the place of the last of them. */
static bool trim_log(struct store *store, struct record *record)
{
    int64_t dropped = record->trim_to - 1;
    sqlite3_stmt *statement;
    char text[200];
    struct buf note;
    bool ok;

    if (!store_begin(store, false) || !(statement = store_prepare(store, SQL_LINES_DROP)))
        return false;
    sqlite3_bind_int64(statement, 1, record->task.seq);
    sqlite3_bind_int64(statement, 2, dropped);
    if (!store_run(statement))
        return false;
    snprintf(text, sizeof text,
             tr("日志过长，最早的 %lld 行已删除", "the log is long: its first %lld lines were dropped"),
             (long long)dropped);
    buf_init(&note, 1024);
    format_note(&note, text);
    ok =
        !note.failed &&
        insert_line(store, &(struct line){.seq = record->task.seq, .n = dropped, .size = note.size, .text = note.data});
    buf_release(&note);
    if (ok) {
        record->first_line = dropped;
        record->trim_to = 0;
    }
    return ok;
}

bool store_apply_lines(struct store *store)
{
    for (; store->lines_applied < store->line_count; store->lines_applied++) {
        const struct line *line = &store->lines[store->lines_applied];

        if (!store_record(store, line->seq)) /* deleted meanwhile */
            continue;
        if (!store_begin(store, false) || !insert_line(store, line))
            return false;
    }
    for (size_t i = 0; i < store->record_count; i++)
        if (store->records[i]->trim_to && !trim_log(store, store->records[i]))
            return false;
    return true;
}

/* Only those that were executed: a transaction may end (see store_begin()) before all are. */
void store_forget_lines(struct store *store)
{
    size_t n = store->lines_applied;

    for (size_t i = 0; i < n; i++) {
        store->line_bytes -= store->lines[i].size;
        free(store->lines[i].text);
    }
    store->line_count -= n;
    if (n && store->line_count)
        memmove(store->lines, store->lines + n, store->line_count * sizeof *store->lines);
    store->lines_applied = 0;
}

bool store_purge_trash(struct store *store)
{
    sqlite3_stmt *statement;
    int64_t seq = 0;
    int status;

    if (!store->trash)
        return true;
    if (!(statement = store_prepare(store, SQL_TRASH_NEXT)))
        return false;
    if ((status = sqlite3_step(statement)) == SQLITE_ROW)
        seq = sqlite3_column_int64(statement, 0);
    sqlite3_reset(statement);
    if (status != SQLITE_ROW) {
        store->trash = false;
        return status == SQLITE_DONE;
    }
    if (!store_begin(store, false) || !store_run_on(store, SQL_TRASH_LINES, seq))
        return false;
    return sqlite3_changes(store->db) > 0 || store_run_on(store, SQL_TRASH_DONE, seq);
}

/* ---- reading ---- */

void store_load_line_range(struct store *store, struct record *record)
{
    sqlite3_stmt *statement = store_prepare(store, SQL_LINE_RANGE);

    if (!statement)
        return;
    sqlite3_bind_int64(statement, 1, record->task.seq);
    if (sqlite3_step(statement) == SQLITE_ROW) {
        record->first_line = sqlite3_column_int64(statement, 0);
        record->last_line = sqlite3_column_int64(statement, 1);
    }
    sqlite3_reset(statement);
}

bool store_log_read(struct store *store, int64_t seq, int64_t from, int64_t limit, store_line_fn *fn, void *arg,
                    struct err *err)
{
    sqlite3_stmt *statement;
    bool more = true, visible = store_apply(store);
    int status = SQLITE_NOMEM;

    if (!visible)
        store_rollback(store);
    if ((statement = store_prepare(store, SQL_LINES))) {
        sqlite3_bind_int64(statement, 1, seq);
        sqlite3_bind_int64(statement, 2, from);
        sqlite3_bind_int64(statement, 3, limit);
        while (more && limit > 0 && (status = sqlite3_step(statement)) == SQLITE_ROW) {
            from = sqlite3_column_int64(statement, 0);
            more = fn(arg, from++, (const char *)sqlite3_column_text(statement, 1),
                      (size_t)sqlite3_column_bytes(statement, 1));
            limit--;
        }
        sqlite3_reset(statement);
    }
    if (limit > 0 && more && status != SQLITE_DONE)
        return err_set(err, ERR_BUSY, tr("任务日志无法读取: %s", "the task's log cannot be read: %s"),
                       sqlite3_errmsg(store->db));
    for (size_t i = 0; !visible && more && limit > 0 && i < store->line_count; i++)
        if (store->lines[i].seq == seq && store->lines[i].n >= from) {
            more = fn(arg, store->lines[i].n, store->lines[i].text, store->lines[i].size);
            limit--;
        }
    return true;
}

/* ---- watchers ---- */

bool store_log_is_open(const struct store *store, int64_t seq)
{
    const struct record *record = store_record(store, seq);

    return record && record->log_open;
}

bool store_watch(struct store *store, int64_t seq, struct store_watch *watch)
{
    struct record *record = store_record(store, seq);

    watch->link = NULL;
    if (!record || !record->log_open)
        return false;
    watch->store = store;
    watch->next = record->watches;
    watch->link = &record->watches;
    if (watch->next)
        watch->next->link = &watch->next;
    record->watches = watch;
    return true;
}

void store_unwatch(struct store_watch *watch)
{
    if (!watch->link)
        return;
    if (watch->store->next_watch == watch)
        watch->store->next_watch = watch->next;
    *watch->link = watch->next;
    if (watch->next)
        watch->next->link = watch->link;
    watch->link = NULL;
}

void store_end_watches(struct store *store, struct record *record, bool deleted)
{
    struct store_watch *watch;

    (void)store;
    record->log_open = false;
    while ((watch = record->watches)) {
        store_unwatch(watch);
        watch->ended(watch, deleted);
    }
}

void store_log_end(struct store *store, int64_t seq)
{
    struct record *record = store_record(store, seq);

    if (!record || !record->log_open)
        return;
    record->dirty = store->changed = true; /* so that the next flush looks whether memory may forget it */
    record->applied = false;
    store_end_watches(store, record, false);
}
