/* store.c - opening, schema, transactions; see store.h and store_internal.h */
#include "server/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/disk.h"
#include "base/text.h"
#include "server/store_internal.h"

#define COUNT_ONE_MORE                                                                                                 \
    " INSERT INTO counts VALUES (new.kind, new.status, 1) ON CONFLICT (kind, status) DO UPDATE SET n = n + 1;"
#define COUNT_ONE_LESS " UPDATE counts SET n = n - 1 WHERE kind = old.kind AND status = old.status;"

/* migrations[i] turns schema version i into i + 1; released ones are never edited */
static const char *const migrations[] = {
    "CREATE TABLE tasks ("
    " seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, status TEXT NOT NULL,"
    " message TEXT, device TEXT, asked_device TEXT, progress INTEGER, priority INTEGER, created_at TEXT,"
    " updated_at TEXT, current_epoch INTEGER, total_epochs INTEGER, metrics TEXT, stats TEXT, memory INTEGER,"
    " request TEXT);"
    "CREATE INDEX tasks_kind ON tasks (kind);"
    "CREATE INDEX tasks_kind_status ON tasks (kind, status);"
    /* so that a start need not count, however many there are */
    "CREATE TABLE counts (kind TEXT NOT NULL, status TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (kind, status))"
    " WITHOUT ROWID;"
    "CREATE TRIGGER task_added AFTER INSERT ON tasks BEGIN" COUNT_ONE_MORE " END;"
    "CREATE TRIGGER task_moved AFTER UPDATE OF status ON tasks WHEN old.status <> new.status BEGIN" COUNT_ONE_LESS
        COUNT_ONE_MORE " END;"
    "CREATE TRIGGER task_dropped AFTER DELETE ON tasks BEGIN" COUNT_ONE_LESS " END;"
    "CREATE INDEX tasks_unfinished ON tasks (status) WHERE status IN ('pending', 'queued', 'running');"
    "CREATE TABLE logs (task INTEGER NOT NULL, n INTEGER NOT NULL, line TEXT NOT NULL, PRIMARY KEY (task, n))"
    " WITHOUT ROWID;"
    "CREATE TABLE trash (task INTEGER PRIMARY KEY);" /* deleted tasks whose lines are still there */
    "CREATE TABLE limits (device TEXT NOT NULL, kind TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (device, kind))"
    " WITHOUT ROWID;",
};
enum { SCHEMA_VERSION = sizeof migrations / sizeof *migrations };

static const struct {
    const char *name;
    bool final;
} states[] = {
#define X(state, name) [TASK_##state] = {name, TASK_##state >= TASK_COMPLETED},
    TASK_STATES(X)
#undef X
};

const char *task_state_name(enum task_state state)
{
    return states[state].name;
}

bool task_state_find(const char *name, enum task_state *ret)
{
    for (int i = 0; i < TASK_STATE_COUNT; i++)
        if (strcmp(states[i].name, name) == 0) {
            *ret = (enum task_state)i;
            return true;
        }
    return false;
}

bool task_state_is_final(enum task_state state)
{
    return states[state].final;
}

/* ---- statements and transactions ---- */

sqlite3_stmt *store_prepare(struct store *store, enum statement which)
{
    static const char *const sql[] = {
#define X(name, text) [SQL_##name] = (text),
        STATEMENTS(X)
#undef X
    };
    sqlite3_stmt **statement = &store->statements[which];

    if (!*statement &&
        sqlite3_prepare_v3(store->db, sql[which], -1, SQLITE_PREPARE_PERSISTENT, statement, NULL) != SQLITE_OK)
        return NULL;
    sqlite3_reset(*statement);
    sqlite3_clear_bindings(*statement);
    return *statement;
}

bool store_run(sqlite3_stmt *statement)
{
    int status = SQLITE_NOMEM;

    if (statement) {
        do
            status = sqlite3_step(statement);
        while (status == SQLITE_ROW);
        sqlite3_reset(statement);
    }
    return status == SQLITE_DONE;
}

bool store_run_on(struct store *store, enum statement which, int64_t seq)
{
    sqlite3_stmt *statement = store_prepare(store, which);

    if (statement)
        sqlite3_bind_int64(statement, 1, seq);
    return store_run(statement);
}

void store_bind_text(sqlite3_stmt *statement, int at, const char *text)
{
    if (text)
        sqlite3_bind_text(statement, at, text, -1, SQLITE_STATIC);
    else
        sqlite3_bind_null(statement, at);
}

void store_rollback(struct store *store)
{
    if (!sqlite3_get_autocommit(store->db))
        store_run(store_prepare(store, SQL_ROLLBACK));
    store->in_transaction = false;
    store->lines_applied = 0;
    for (size_t i = 0; i < store->record_count; i++)
        store->records[i]->applied = false;
}

bool store_fail(struct store *store, struct err *err)
{
    /* the words first: the rollback has words of its own */
    const char *path = sqlite3_db_filename(store->db, "main");

    if (sqlite3_errcode(store->db) == SQLITE_FULL && path)
        err_cannot_write(err, path, ENOSPC);
    else
        err_set(err, ERR_BUSY, "%s", sqlite3_errmsg(store->db));
    if (err) {
        err_prefix(err, "%s", tr("任务数据库无法写入", "the task database cannot be written"));
        err->kind = ERR_BUSY;
    }
    store_rollback(store);
    return false;
}

/* A transaction that must be synced when committed cannot begin inside one that is not: how it is synced is chosen
 * before it begins. */
bool store_begin(struct store *store, bool sync)
{
    if (store->in_transaction && (store->transaction_syncs || !sync))
        return true;
    if (store->in_transaction && !store_commit(store))
        return false;
    if (store->transaction_syncs != sync &&
        sqlite3_exec(store->db, sync ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL", NULL, NULL, NULL) !=
            SQLITE_OK)
        return false;
    store->transaction_syncs = sync;
    if (!store_run(store_prepare(store, SQL_BEGIN)))
        return false;
    store->in_transaction = true;
    return true;
}

bool store_apply(struct store *store)
{
    if (!store_is_dirty(store))
        return true;
    if (store_apply_records(store) && store_apply_lines(store))
        return true;
    return false;
}

bool store_commit(struct store *store)
{
    if (!store->in_transaction)
        return true;
    if (!store_run(store_prepare(store, SQL_COMMIT)))
        return false;
    store->in_transaction = false;
    store_forget_lines(store);
    for (size_t i = 0; i < store->record_count; i++)
        if (store->records[i]->applied)
            store->records[i]->dirty = store->records[i]->applied = store->records[i]->sync = false;
    return true;
}

bool store_is_dirty(const struct store *store)
{
    return store->changed || store->in_transaction || store->trash;
}

bool store_flush(struct store *store, struct err *err)
{
    if (!store_apply(store) || !store_purge_trash(store) || !store_commit(store))
        return store_fail(store, err);
    store->changed = false;
    store_release_records(store);
    return true;
}

/* ---- opening ---- */

static int count_wal_pages(void *arg, sqlite3 *db, const char *name, int pages)
{
    (void)db;
    (void)name;
    ((struct store *)arg)->wal_pages = pages;
    return SQLITE_OK;
}

int store_wal_pages(const struct store *store)
{
    return store->wal_pages;
}

static bool make_folder(const char *folder, struct err *err)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof path, "%s", folder) >= (int)sizeof path)
        return err_set(err, ERR_INVALID, "path too long: %s", folder);
    for (char *p = path + 1;; p++)
        if (*p == '/' || !*p) {
            char was = *p;

            *p = 0;
            if (mkdir(path, 0777) < 0 && errno != EEXIST)
                return err_set(err, ERR_IO, tr("无法创建数据目录 %s: %s", "cannot make the data folder %s: %s"), path,
                               errno_text(errno));
            if (!(*p = was))
                return true;
        }
}

/* The lock is the kernel's and ends with the process; the number in the file is for people. */
static bool take_lock(struct store *store, const char *folder, struct err *err)
{
    char path[PATH_MAX], pid[32] = "?";
    ssize_t size;

    if (snprintf(path, sizeof path, "%s/rfuav.lock", folder) >= (int)sizeof path)
        return err_set(err, ERR_INVALID, "path too long: %s", folder);
    if ((store->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644)) < 0)
        return err_set(err, ERR_IO, tr("无法打开 %s: %s", "cannot open %s: %s"), path, errno_text(errno));
    if (flock(store->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        if (pread(store->lock_fd, pid, sizeof pid - 1, 0) > 0)
            pid[strspn(pid, "0123456789")] = 0;
        return err_set(err, ERR_CONFLICT,
                       tr("数据目录 %s 正被另一个 rfuav 服务使用 (进程 %s)",
                          "the data folder %s is in use by another rfuav service (process %s)"),
                       folder, pid);
    }
    size = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(store->lock_fd, 0) < 0 || pwrite(store->lock_fd, pid, (size_t)size, 0) != size)
        return err_cannot_write(err, path, errno);
    return true;
}

static bool execute(struct store *store, const char *sql)
{
    return sqlite3_exec(store->db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

static int schema_version(struct store *store)
{
    sqlite3_stmt *statement = NULL;
    int version = -1;

    if (sqlite3_prepare_v2(store->db, "PRAGMA user_version", -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        version = sqlite3_column_int(statement, 0);
    sqlite3_finalize(statement);
    return version;
}

static bool migrate(struct store *store, struct err *err)
{
    int version = schema_version(store);
    char set_version[48];

    if (version < 0)
        return store_fail(store, err);
    if (version > SCHEMA_VERSION)
        return err_set(err, ERR_CONFLICT,
                       tr("任务数据库来自更新的版本 (格式 %d，本程序支持到 %d)",
                          "the task database was written by a newer version (its format is %d, this program knows %d)"),
                       version, SCHEMA_VERSION);
    for (; version < SCHEMA_VERSION; version++) {
        snprintf(set_version, sizeof set_version, "PRAGMA user_version = %d", version + 1);
        if (!execute(store, "BEGIN IMMEDIATE") || !execute(store, migrations[version]) ||
            !execute(store, set_version) || !execute(store, "COMMIT"))
            return store_fail(store, err);
    }
    return true;
}

static bool open_database(struct store *store, const char *folder, struct err *err)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof path, "%s/rfuav.db", folder) >= (int)sizeof path)
        return err_set(err, ERR_INVALID, "path too long: %s", folder);
    if (sqlite3_open_v2(path, &store->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL) !=
        SQLITE_OK)
        return err_set(err, ERR_IO, tr("无法打开任务数据库 %s: %s", "cannot open the task database %s: %s"), path,
                       store->db ? sqlite3_errmsg(store->db) : "out of memory");
    sqlite3_extended_result_codes(store->db, 1);
    sqlite3_busy_timeout(store->db, 2000);
    /* checkpoints are made beside the loop, see store_checkpoint() */
    if (!execute(store, "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -1024;"
                        "PRAGMA synchronous = FULL"))
        return store_fail(store, err) || err_prefix(err, "%s", path);
    sqlite3_wal_hook(store->db, count_wal_pages, store);
    return migrate(store, err) || err_prefix(err, "%s", path);
}

bool store_open(const struct store_options *options, struct store **ret, struct err *err)
{
    struct store *store = calloc(1, sizeof *store);

    if (!store)
        return err_set(err, ERR_MEMORY, "no memory for the store");
    store->lock_fd = -1;
    store->generation = 1;
    store->transaction_syncs = true;
    store->trash = true; /* looked for at the first flush */
    store->log_lines_max = options->log_lines_max > 0 ? options->log_lines_max : 100000;
    if (!make_folder(options->folder, err) || !take_lock(store, options->folder, err) ||
        !open_database(store, options->folder, err) || !(store_load_counts(store) || store_fail(store, err))) {
        store_close(store);
        return false;
    }
    *ret = store;
    return true;
}

struct store *store_close(struct store *store)
{
    if (!store)
        return NULL;
    if (store->db && store->counts)
        store_flush(store, NULL);
    for (int i = 0; i < STATEMENT_COUNT; i++)
        sqlite3_finalize(store->statements[i]);
    sqlite3_close(store->db);
    while (store->record_count)
        store_free_record(store->records[--store->record_count]);
    for (size_t i = 0; i < store->line_count; i++)
        free(store->lines[i].text);
    free(store->records);
    free(store->lines);
    free(store->counts);
    if (store->lock_fd >= 0)
        close(store->lock_fd);
    free(store);
    return NULL;
}

void store_checkpoint(const char *folder)
{
    char path[PATH_MAX];
    sqlite3 *db = NULL;

    /* a connection knows of the log only after it has read */
    if (snprintf(path, sizeof path, "%s/rfuav.db", folder) < (int)sizeof path &&
        sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) == SQLITE_OK &&
        sqlite3_exec(db, "SELECT 1 FROM tasks LIMIT 1", NULL, NULL, NULL) == SQLITE_OK)
        sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    sqlite3_close(db);
}

/* ---- limits ---- */

bool store_limit_set(struct store *store, const char *device, const char *kind, int64_t n, struct err *err)
{
    sqlite3_stmt *statement;

    if (!store_begin(store, true) || !(statement = store_prepare(store, SQL_LIMIT_SET)))
        return store_fail(store, err);
    store_bind_text(statement, 1, device);
    store_bind_text(statement, 2, kind);
    sqlite3_bind_int64(statement, 3, n);
    if (!store_run(statement) || !store_commit(store))
        return store_fail(store, err);
    return true;
}

bool store_each_limit(struct store *store, store_limit_fn *fn, void *arg, struct err *err)
{
    sqlite3_stmt *statement = store_prepare(store, SQL_LIMITS);
    int status = SQLITE_NOMEM;

    while (statement && (status = sqlite3_step(statement)) == SQLITE_ROW) {
        const char *device = (const char *)sqlite3_column_text(statement, 0);
        const char *kind = (const char *)sqlite3_column_text(statement, 1);

        if (device && kind)
            fn(arg, device, kind, sqlite3_column_int64(statement, 2));
    }
    if (status != SQLITE_DONE)
        return store_fail(store, err);
    sqlite3_reset(statement);
    return true;
}
