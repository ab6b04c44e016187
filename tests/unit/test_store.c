/* test_store.c - what was stored is there: after a crash, after a refusing disk, in the right order, counted right */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/random.h"
#include "base/text.h"
#include "server/store.h"

static char folder[64];
static struct store *store;
static struct err err;

static struct store *reopen(int64_t lines_max)
{
    store = store_close(store);
    if (!store_open(&(struct store_options){folder, lines_max}, &store, &err))
        fail_msg("%s", err.message);
    return store;
}

static int setup(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/rfuav-store-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(folder + strlen(folder), sizeof folder - strlen(folder), "/a/b");
    reopen(0);
    return 0;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    store = store_close(store);
    snprintf(command, sizeof command, "rm -rf %.*s", (int)strlen("/tmp/rfuav-store-XXXXXX"), folder);
    return system(command);
}

static struct store_task task_of(const char *id, const char *kind)
{
    return (struct store_task){.id = id,
                               .kind = kind,
                               .state = TASK_PENDING,
                               .message = "等待开始",
                               .device = "cuda",
                               .asked_device = "cuda",
                               .priority = 5,
                               .total_epochs = 3,
                               .request = "{\"model\":\"resnet18\"}"};
}

static int64_t add(const char *id, const char *kind)
{
    struct store_task task = task_of(id, kind);
    int64_t seq = 0;

    if (!store_insert(store, &task, 1, &seq, &err))
        fail_msg("%s", err.message);
    return seq;
}

static void set_state(int64_t seq, enum task_state state, const char *message)
{
    store_change(store, seq, STORE_STATE | STORE_MESSAGE, &(struct store_task){.state = state, .message = message});
}

/* The found task's texts are copied: they end with the callback. */
static struct found {
    int calls;
    enum task_state state;
    char id[64], message[256], metrics[256], request[256], device[32], updated_at[32], created_at[32];
    int progress;
    int64_t epoch, seq;
} found;

static void keep(void *arg, const struct store_task *task)
{
    struct found *to = arg;

    to->calls++;
    to->state = task->state;
    to->progress = task->progress;
    to->epoch = task->current_epoch;
    to->seq = task->seq;
#define KEEP(name) snprintf(to->name, sizeof to->name, "%s", task->name ? task->name : "(null)")
    KEEP(id);
    KEEP(message);
    KEEP(metrics);
    KEEP(request);
    KEEP(device);
    KEEP(updated_at);
    KEEP(created_at);
}

static bool find(const char *id)
{
    memset(&found, 0, sizeof found);
    return store_find(store, id, keep, &found, &err);
}

static void join_ids(void *arg, const struct store_task *task)
{
    char *text = arg;

    snprintf(text + strlen(text), 400 - strlen(text), "%s ", task->id);
}

static const char *list(const char *kind, enum task_state state, int64_t limit)
{
    static char text[400];

    text[0] = 0;
    assert_true(store_list(store, kind, state, limit, join_ids, text, &err));
    return text;
}

static bool join_line(void *arg, int64_t n, const char *line, size_t size)
{
    char *text = arg;

    snprintf(text + strlen(text), 4000 - strlen(text), "%lld:%.*s ", (long long)n, (int)size, line);
    return true;
}

static const char *lines(int64_t seq, int64_t from, int64_t limit)
{
    static char text[4000];

    text[0] = 0;
    assert_true(store_log_read(store, seq, from, limit, join_line, text, &err));
    return text;
}

static void insert_and_find(void **state)
{
    int64_t a = add("a", "training");

    (void)state;
    assert_true(add("b", "inference") > a);
    assert_true(find("a"));
    assert_int_equal(found.seq, a);
    assert_string_equal(found.message, "等待开始");
    assert_string_equal(found.request, "{\"model\":\"resnet18\"}");
    assert_string_equal(found.metrics, "(null)");
    assert_int_equal(strlen(found.created_at), 26);
    assert_string_equal(found.created_at, found.updated_at);
    assert_false(find("c"));
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_int_equal(store_count(store, NULL, TASK_ANY), 2);
    assert_int_equal(store_count(store, "inference", TASK_PENDING), 1);
}

static void duplicate_id_takes_none_of_the_batch(void **state)
{
    struct store_task batch[] = {task_of("x", "inference"), task_of("y", "inference"), task_of("a", "inference")};

    (void)state;
    add("a", "training");
    assert_false(store_insert(store, batch, 3, NULL, &err));
    assert_int_equal(err.kind, ERR_CONFLICT);
    assert_non_null(strstr(err.message, " a "));
    assert_false(find("x"));
    assert_int_equal(store_count(store, NULL, TASK_ANY), 1);
    batch[2].id = "z";
    assert_true(store_insert(store, batch, 3, NULL, &err));
    assert_string_equal(list("inference", TASK_ANY, 10), "x y z ");
}

/* One transaction for all, but each for itself. */
static void groups_are_refused_one_by_one(void **state)
{
    struct store_task xy[] = {task_of("x", "inference"), task_of("y", "inference")};
    struct store_task va[] = {task_of("v", "inference"), task_of("a", "inference")};
    struct store_task z = task_of("z", "inference"), again = task_of("x", "inference");
    int64_t seqs[2];
    struct store_group groups[] = {{.tasks = xy, .count = 2, .seqs = seqs},
                                   {.tasks = va, .count = 2},
                                   {.tasks = &again, .count = 1},
                                   {.tasks = &z, .count = 1}};

    (void)state;
    add("a", "training");
    store_insert_groups(store, groups, 4);
    assert_true(groups[0].ok && !groups[1].ok && !groups[2].ok && groups[3].ok);
    assert_int_equal(groups[1].err.kind, ERR_CONFLICT);
    assert_non_null(strstr(groups[2].err.message, " x "));
    assert_int_equal(seqs[1], seqs[0] + 1);
    reopen(0);
    assert_string_equal(list("inference", TASK_ANY, 10), "x y z ");
    assert_false(find("v"));
    assert_int_equal(store_count(store, NULL, TASK_ANY), 4);
}

static void lists_the_newest_in_order_of_creation(void **state)
{
    int64_t seq = 0;

    (void)state;
    for (int i = 0; i < 10; i++) {
        char id[8];

        snprintf(id, sizeof id, "t%d", i);
        seq = add(id, i % 3 == 2 ? "inference" : "training");
        if (i % 2)
            set_state(seq, TASK_CANCELLED, "任务已取消");
    }
    assert_string_equal(list("training", TASK_ANY, 3), "t6 t7 t9 ");
    assert_string_equal(list("training", TASK_ANY, 7), "t0 t1 t3 t4 t6 t7 t9 ");
    assert_string_equal(list("training", TASK_ANY, 100), "t0 t1 t3 t4 t6 t7 t9 ");
    assert_string_equal(list("training", TASK_CANCELLED, 2), "t7 t9 ");
    assert_string_equal(list("inference", TASK_PENDING, 9), "t2 t8 ");
    assert_string_equal(list("training", TASK_ANY, 0), "");
    assert_string_equal(list("image_crop", TASK_ANY, 5), "");
    assert_int_equal(store_count(store, "training", TASK_CANCELLED), 4);
    assert_int_equal(store_count(store, NULL, TASK_CANCELLED), 5);
}

/* D1 to D3: over is over. */
static void a_final_state_stays(void **state)
{
    int64_t a = add("a", "training");
    uint64_t generation = store_generation(store);

    (void)state;
    set_state(a, TASK_CANCELLED, "任务已取消");
    assert_true(store_generation(store) != generation);
    set_state(a, TASK_COMPLETED, "训练完成");
    assert_true(find("a"));
    assert_int_equal(found.state, TASK_CANCELLED);
    assert_true(store_flush(store, &err));
    set_state(a, TASK_RUNNING, "again");
    assert_true(find("a"));
    assert_int_equal(found.state, TASK_CANCELLED);
    assert_int_equal(store_count(store, "training", TASK_CANCELLED), 1);
    assert_int_equal(store_count(store, "training", TASK_ANY), 1);
}

static void changes_are_read_before_they_are_flushed(void **state)
{
    int64_t a = add("a", "training");

    (void)state;
    store_change(
        store, a, STORE_PROGRESS | STORE_EPOCH | STORE_METRICS | STORE_DEVICE,
        &(struct store_task){.progress = 33, .current_epoch = 1, .metrics = "{\"epoch\":1}", .device = "cuda:0"});
    store_log(store, a, "one", 3);
    assert_true(store_is_dirty(store));
    assert_true(find("a"));
    assert_int_equal(found.progress, 33);
    assert_string_equal(found.metrics, "{\"epoch\":1}");
    assert_string_equal(found.device, "cuda:0");
    assert_true(strcmp(found.updated_at, found.created_at) > 0);
    assert_string_equal(lines(a, 1, 10), "1:one ");
    for (int i = 0; i < 3 && store_is_dirty(store); i++)
        assert_true(store_flush(store, &err));
    assert_false(store_is_dirty(store));
    reopen(0);
    assert_true(find("a"));
    assert_int_equal(found.progress, 33);
    assert_string_equal(lines(a, 1, 10), "1:one ");
}

/* D35: kill -9 at any moment; what insert and flush had said is there. */
static void survives_kill(void **state)
{
    int status;
    pid_t child;

    (void)state;
    store = store_close(store);
    if ((child = fork()) == 0) {
        reopen(0);
        for (int i = 0; i < 50; i++) {
            char id[16];
            int64_t seq;

            snprintf(id, sizeof id, "t%d", i);
            seq = add(id, "training");
            store_log(store, seq, "line", 4);
            set_state(seq, TASK_RUNNING, "训练中...");
            if (i < 49)
                store_flush(store, &err);
        }
        kill(getpid(), SIGKILL);
    }
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    reopen(0);
    assert_int_equal(store_count(store, "training", TASK_ANY), 50);
    assert_int_equal(store_count(store, "training", TASK_RUNNING), 49);
    memset(&found, 0, sizeof found);
    assert_true(store_each_unfinished(store, keep, &found, &err));
    assert_int_equal(found.calls, 50);
    assert_string_equal(found.request, "{\"model\":\"resnet18\"}");
    assert_true(find("t7"));
    assert_string_equal(lines(found.seq, 1, 5), "1:line ");
    store_log(store, found.seq, "more", 4);
    assert_string_equal(lines(found.seq, 2, 5), "2:more ");
}

/* The disk refuses: a request that needs it is told, all else goes on and is written later. */
static void full_disk(void **state)
{
    struct rlimit was, small;
    struct store_task task = task_of("late", "training");
    int64_t a = add("a", "training");
    char big[2000];

    (void)state;
    memset(big, 'x', sizeof big);
    getrlimit(RLIMIT_FSIZE, &was);
    signal(SIGXFSZ, SIG_IGN);
    small = was;
    small.rlim_cur = 40000;
    setrlimit(RLIMIT_FSIZE, &small);
    for (int i = 0; i < 200; i++) {
        store_log(store, a, big, sizeof big);
        store_flush(store, &err);
    }
    assert_false(store_flush(store, &err));
    assert_int_equal(err.kind, ERR_BUSY);
    assert_false(store_insert(store, &task, 1, NULL, &err));
    assert_int_equal(err.kind, ERR_BUSY);
    assert_false(store_delete(store, "a", &err));
    set_state(a, TASK_FAILED, "训练失败: disk");
    assert_true(find("a"));
    assert_int_equal(found.state, TASK_FAILED);
    assert_string_equal(list("training", TASK_ANY, 5), "a ");
    store_log(store, a, "last", 4);
    assert_string_equal(lines(a, 201, 5), "201:last ");
    setrlimit(RLIMIT_FSIZE, &was);
    signal(SIGXFSZ, SIG_DFL);
    assert_true(store_flush(store, &err));
    assert_true(store_insert(store, &task, 1, NULL, &err));
    reopen(0);
    assert_true(find("a"));
    assert_int_equal(found.state, TASK_FAILED);
    assert_string_equal(lines(a, 201, 5), "201:last ");
    assert_int_equal(store_count(store, NULL, TASK_ANY), 2);
}

/* D38: bounded, with a note in the place of what was dropped. */
static void long_logs_are_bounded(void **state)
{
    int64_t a, n = 0;
    char text[64];

    (void)state;
    reopen(100);
    a = add("a", "training");
    for (int i = 1; i <= 1000; i++) {
        snprintf(text, sizeof text, "l%d", i);
        store_log(store, a, text, strlen(text));
        if (i % 7 == 0)
            assert_true(store_flush(store, &err));
    }
    assert_true(store_flush(store, &err));
    assert_non_null(strstr(lines(a, 1, 1), text_language()[0] == 'z' ? "已删除" : "dropped"));
    sscanf(lines(a, 1, 1), "%lld", (long long *)&n);
    assert_in_range(n, 1000 - 111, 1000 - 99);
    snprintf(text, sizeof text, "%lld:l%lld ", (long long)n + 1, (long long)n + 1);
    assert_string_equal(lines(a, n + 1, 1), text);
    assert_string_equal(lines(a, 1000, 5), "1000:l1000 ");
}

static void delete_takes_the_log_along(void **state)
{
    int64_t a = add("a", "training"), b;

    (void)state;
    for (int i = 0; i < 5000; i++)
        store_log(store, a, "line", 4);
    set_state(a, TASK_COMPLETED, "训练完成");
    store_log_end(store, a);
    assert_true(store_flush(store, &err));
    assert_true(store_delete(store, "a", &err));
    assert_false(find("a"));
    assert_false(store_delete(store, "a", &err));
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_int_equal(store_count(store, NULL, TASK_ANY), 0);
    for (int i = 0; i < 10 && store_is_dirty(store); i++)
        assert_true(store_flush(store, &err));
    assert_false(store_is_dirty(store));
    assert_string_equal(lines(a, 1, 5), "");
    store_log(store, a, "late", 4); /* a worker that still talks */
    b = add("a", "inference");
    assert_true(b > a);
    assert_string_equal(lines(b, 1, 5), "");
}

struct follower {
    struct store_watch watch; /* first */
    char text[200];
    int ended;
    bool deleted, leave;
};

static void on_line(struct store_watch *watch, int64_t n, const char *line, size_t size)
{
    struct follower *follower = (struct follower *)watch;

    join_line(follower->text, n, line, size);
    if (follower->leave)
        store_unwatch(watch);
}

static void on_ended(struct store_watch *watch, bool deleted)
{
    struct follower *follower = (struct follower *)watch;

    follower->ended++;
    follower->deleted = deleted;
}

/* D10: each reader gets each line. */
static void watchers(void **state)
{
    struct follower followers[3];
    int64_t a = add("a", "training");

    (void)state;
    memset(followers, 0, sizeof followers);
    for (int i = 0; i < 3; i++) {
        followers[i].watch.line = on_line;
        followers[i].watch.ended = on_ended;
        followers[i].leave = i == 1;
        assert_true(store_watch(store, a, &followers[i].watch));
    }
    store_log(store, a, "x", 1);
    store_log(store, a, "y", 1);
    assert_string_equal(followers[0].text, "1:x 2:y ");
    assert_string_equal(followers[1].text, "1:x ");
    assert_string_equal(followers[2].text, "1:x 2:y ");
    store_unwatch(&followers[0].watch);
    store_unwatch(&followers[0].watch);
    set_state(a, TASK_COMPLETED, "训练完成");
    store_log_end(store, a);
    assert_int_equal(followers[0].ended, 0);
    assert_int_equal(followers[2].ended, 1);
    assert_false(followers[2].deleted);
    assert_false(store_log_is_open(store, a));
    assert_false(store_watch(store, a, &followers[0].watch));
    a = add("b", "training");
    assert_true(store_watch(store, a, &followers[0].watch));
    set_state(a, TASK_CANCELLED, "任务已取消");
    assert_true(store_delete(store, "b", &err));
    assert_true(followers[0].ended == 1 && followers[0].deleted);
}

static void limits_and_lock(void **state)
{
    struct store *second = NULL;
    char pid[32];

    (void)state;
    assert_true(store_limit_set(store, "cuda:0", "training", 0, &err));
    assert_true(store_limit_set(store, "cuda:0", "training", 2, &err));
    assert_false(store_open(&(struct store_options){folder, 0}, &second, &err));
    assert_int_equal(err.kind, ERR_CONFLICT);
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    assert_non_null(strstr(err.message, pid));
}

/* The write-ahead log goes into the database while the store is open, and is used anew. */
static void checkpoints(void **state)
{
    int64_t a = add("a", "training");
    struct stat status;
    char path[96], text[1000];
    int pages;

    (void)state;
    memset(text, 'x', sizeof text);
    for (int i = 0; i < 500; i++) {
        store_log(store, a, text, sizeof text);
        if (i % 10 == 0)
            assert_true(store_flush(store, &err));
    }
    assert_true(store_flush(store, &err));
    pages = store_wal_pages(store);
    assert_true(pages > 100);
    store_log(store, a, "in the open transaction", 23);
    lines(a, 501, 1);
    store_checkpoint(folder);
    snprintf(path, sizeof path, "%s/rfuav.db", folder);
    assert_int_equal(stat(path, &status), 0);
    assert_true(status.st_size > 500000);
    assert_true(store_flush(store, &err));
    store_checkpoint(folder);
    store_log(store, a, "last", 4);
    assert_true(store_flush(store, &err));
    assert_true(store_wal_pages(store) < pages);
    assert_string_equal(lines(a, 502, 1), "502:last ");
}

/* Random changes against a plain model of what must be there. */
static void random_walk(void **state)
{
    enum { N = 60 };
    struct {
        enum task_state state;
        int64_t seq;
        int lines;
        bool there;
    } model[N] = {0};
    struct random random;
    char id[8];

    (void)state;
    random_init(&random, 7, 1);
    for (int step = 0; step < 4000; step++) {
        unsigned i = random_below(&random, N);

        snprintf(id, sizeof id, "r%u", i);
        switch (random_below(&random, 8)) {
        case 0:
            if (!model[i].there) {
                model[i].seq = add(id, "training");
                model[i].there = true;
                model[i].state = TASK_PENDING;
                model[i].lines = 0;
            }
            break;
        case 1: {
            enum task_state next = (enum task_state)random_below(&random, TASK_STATE_COUNT);

            if (model[i].there) {
                set_state(model[i].seq, next, "m");
                if (!task_state_is_final(model[i].state))
                    model[i].state = next;
                if (task_state_is_final(model[i].state))
                    store_log_end(store, model[i].seq);
            }
            break;
        }
        case 2:
            if (model[i].there && task_state_is_final(model[i].state)) {
                assert_true(store_delete(store, id, &err));
                model[i].there = false;
            }
            break;
        case 3:
            assert_true(store_flush(store, &err));
            break;
        case 4:
            if (random_below(&random, 40) == 0) {
                memset(&found, 0, sizeof found);
                reopen(0);
                store_each_unfinished(store, keep, &found, &err);
            }
            break;
        case 5:
            list("training", TASK_ANY, 5);
            break;
        default:
            if (model[i].there && !task_state_is_final(model[i].state)) {
                store_log(store, model[i].seq, "l", 1);
                model[i].lines++;
            }
        }
    }
    int64_t there = 0;
    for (int i = 0; i < N; i++) {
        const char *text;
        int n = 0;

        snprintf(id, sizeof id, "r%d", i);
        assert_int_equal(find(id), model[i].there);
        if (!model[i].there)
            continue;
        there++;
        assert_int_equal(found.state, model[i].state);
        for (text = lines(model[i].seq, 1, 1000); (text = strchr(text, ':')); text++)
            n++;
        assert_int_equal(n, model[i].lines);
    }
    assert_int_equal(store_count(store, NULL, TASK_ANY), there);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(insert_and_find),
        T(duplicate_id_takes_none_of_the_batch),
        T(groups_are_refused_one_by_one),
        T(lists_the_newest_in_order_of_creation),
        T(a_final_state_stays),
        T(changes_are_read_before_they_are_flushed),
        T(survives_kill),
        T(full_disk),
        T(long_logs_are_bounded),
        T(delete_takes_the_log_along),
        T(watchers),
        T(limits_and_lock),
        T(checkpoints),
        T(random_walk),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
