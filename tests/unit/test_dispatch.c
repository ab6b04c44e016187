/* test_dispatch.c - the life of a task over a device file with fake workers: placement, cancelling, restart, records */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/text.h"
#include "fake_worker.h"
#include "server/dispatch.h"
#include "server/journal.h"
#include "server/sched.h"

static char folder[64];
static uv_loop_t loop;
static struct store *store;
static struct monitor *monitor;
static struct dispatch *dispatch;
static struct err err;

static void changed(void *arg)
{
    (void)arg;
    if (dispatch)
        dispatch_devices_changed(dispatch);
}

static void open_all(void)
{
    struct dispatch_options options = {.loop = &loop, .queue_size = 500, .limit_gpu = {1, 3}, .limit_cpu = {2, 4}};
    char devices[96];

    snprintf(devices, sizeof devices, "%s/devices.json", folder);
    uv_loop_init(&loop);
    if (!store_open(&(struct store_options){folder, 0}, &store, &err) ||
        !monitor_open(&loop, devices, changed, NULL, &monitor, &err))
        fail_msg("%s", err.message);
    options.store = store;
    options.monitor = monitor;
    if (!dispatch_open(&options, &dispatch, &err))
        fail_msg("%s", err.message);
}

static void on_stopped(void *arg)
{
    (void)arg;
    dispatch = dispatch_free(dispatch);
    monitor_close(monitor);
}

static void close_all(void)
{
    dispatch_stop(dispatch, on_stopped, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    store = store_close(store);
}

static int setup(void **state)
{
    char path[96];
    FILE *file;

    (void)state;
    snprintf(folder, sizeof folder, "/tmp/rfuav-dispatch-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/devices.json", folder);
    file = fopen(path, "w");
    fputs("{\"devices\":[{\"name\":\"A\",\"memory_mb\":10240},{\"name\":\"B\",\"memory_mb\":10240}]}", file);
    fclose(file);
    open_all();
    return 0;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    close_all();
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static void nothing(void *arg, const struct store_task *task)
{
    (void)arg;
    assert_int_equal(task->state, TASK_PENDING);
}

static bool submit(const char *id, const char *kind, const char *device, const char *behaviour, int priority,
                   double gigabytes)
{
    json_t *request = json_pack("{s:s}", "behave", behaviour);
    struct submission submission = {.kind = task_kind_find(kind),
                                    .id = id,
                                    .device = device,
                                    .placement = {.memory = (uint64_t)(gigabytes * (1 << 30))},
                                    .priority = priority,
                                    .total_epochs = 2,
                                    .request = request};
    struct submission_group group = {.submissions = &submission, .count = 1, .fn = nothing};

    sched_parse_device(device, &submission.placement.ask);
    dispatch_submit(dispatch, &group, 1);
    err = group.err;
    json_decref(request);
    return group.ok;
}

static struct record_copy {
    enum task_state state;
    int64_t seq, epoch;
    int progress;
    char device[16], message[300], metrics[200];
} got;

static void copy(void *arg, const struct store_task *task)
{
    (void)arg;
    got = (struct record_copy){
        .state = task->state, .seq = task->seq, .epoch = task->current_epoch, .progress = task->progress};
    snprintf(got.device, sizeof got.device, "%s", task->device);
    snprintf(got.message, sizeof got.message, "%s", task->message);
    snprintf(got.metrics, sizeof got.metrics, "%s", task->metrics ? task->metrics : "");
}

static enum task_state state_of(const char *id)
{
    assert_true(store_find(store, id, copy, NULL, &err));
    return got.state;
}

static void on_tick(uv_timer_t *timer)
{
    (void)timer;
}

/* Lets the loop run until the task is in a state. */
static void until(const char *id, enum task_state wanted)
{
    uv_timer_t tick;
    double end = clock_seconds() + 20;

    uv_timer_init(&loop, &tick); /* so that a turn waits 5 ms at most */
    uv_timer_start(&tick, on_tick, 5, 5);
    while (state_of(id) != wanted) {
        if (clock_seconds() > end)
            fail_msg("%s is %s (%s), not %s", id, task_state_name(got.state), got.message, task_state_name(wanted));
        uv_run(&loop, UV_RUN_ONCE);
    }
    uv_close((uv_handle_t *)&tick, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
}

static bool append_line(void *arg, int64_t n, const char *line, size_t size)
{
    json_t *event = json_loadb(line, size, 0, NULL);
    char *text = arg;

    (void)n;
    assert_non_null(event);
    snprintf(text + strlen(text), 2000 - strlen(text), "%s|", json_string_value(json_object_get(event, "message")));
    json_decref(event);
    return true;
}

static const char *log_of(const char *id)
{
    static char text[2000];

    text[0] = 0;
    state_of(id);
    assert_true(store_log_read(store, got.seq, 1, 100, append_line, text, &err));
    return text;
}

static void a_training_from_start_to_end(void **state)
{
    (void)state;
    assert_true(submit("a", "training", "cuda", "ok", 5, 1));
    assert_int_equal(state_of("a"), TASK_PENDING);
    assert_string_equal(got.message, "等待开始");
    until("a", TASK_COMPLETED);
    assert_string_equal(got.message, "训练完成");
    assert_string_equal(got.device, "cuda:0");
    assert_int_equal(got.progress, 100);
    assert_int_equal(got.epoch, 1);
    assert_string_equal(got.metrics, "{\"epoch\":1,\"train_loss\":0.25,\"val_loss\":0.5}");
    assert_string_equal(log_of("a"), "等待CUDA资源...|资源已分配，使用设备: cuda:0|开始训练...|Epoch [1/2]|Validation|"
                                     "训练完成！|");
    assert_false(store_log_is_open(store, got.seq));
    assert_int_equal(dispatch_used(dispatch, 0, SLOT_TRAINING), 0);
    assert_true(dispatch_delete(dispatch, "a", &err));
    assert_false(store_find(store, "a", copy, NULL, &err));
}

/* D27: whatever goes wrong, the end is `failed` with a text, and the slot is free again. */
static void failures(void **state)
{
    static const struct {
        const char *behaviour, *message;
    } cases[] = {
        {"fail", "推理失败: no such class"},
        {"segv", "推理失败: 工作进程被信号 SIGSEGV (11) 终止；这是程序错误"},
        {"exit", "推理失败: 工作进程意外退出 (状态 3)"},
        {"nonsense", "推理失败: 工作进程发送了错误的进度"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char last[400];

        assert_true(submit(cases[i].behaviour, "inference", "cuda:1", cases[i].behaviour, 5, 1));
        until(cases[i].behaviour, TASK_FAILED);
        assert_string_equal(got.message, cases[i].message);
        assert_int_equal(got.progress, 0);
        snprintf(last, sizeof last, "%s|", cases[i].message);
        assert_non_null(strstr(log_of(cases[i].behaviour), last));
        assert_int_equal(dispatch_used(dispatch, 1, SLOT_INFERENCE), 0);
    }
    assert_true(submit("kill", "inference", "cpu", "kill", 5, 1));
    until("kill", TASK_FAILED);
    assert_non_null(strstr(log_of("kill"), "last words|and a half|推理失败: "));
}

/* The last words of a task that found no memory on a GPU say what there is now; its slot is free meanwhile. */
static void no_memory_is_explained(void **state)
{
    (void)state;
    assert_true(submit("a", "training", "cuda:1", "nomemory", 5, 1));
    assert_true(submit("b", "training", "cuda:1", "ok", 5, 1));
    until("a", TASK_FAILED);
    assert_string_equal(got.message, "训练失败: no room；任务在 cuda:1 上需要 1.0 GB，现在空闲 9.0 "
                                     "GB；可等待其他程序结束后重试，或改用: cuda:0, cpu");
    until("b", TASK_COMPLETED);
    assert_true(submit("c", "training", "cpu", "nomemory", 5, 1));
    until("c", TASK_FAILED);
    assert_string_equal(got.message, "训练失败: no room");
    assert_true(submit("d", "training", "cuda:0", "nomemory", 5, 1));
    until("d", TASK_RUNNING);
    while (dispatch_used(dispatch, 0, SLOT_TRAINING))
        uv_run(&loop, UV_RUN_ONCE);
    assert_true(dispatch_cancel(dispatch, "d", &err));
    assert_int_equal(state_of("d"), TASK_CANCELLED);
}

static void cancel_running(void **state)
{
    (void)state;
    assert_true(submit("a", "training", "cuda:1", "wait", 5, 1));
    until("a", TASK_RUNNING);
    assert_false(dispatch_delete(dispatch, "a", &err));
    assert_true(dispatch_cancel(dispatch, "a", &err));
    assert_int_equal(state_of("a"), TASK_CANCELLED);
    assert_string_equal(got.message, "任务已取消");
    assert_false(dispatch_cancel(dispatch, "a", &err));
    assert_int_equal(dispatch_used(dispatch, 1, SLOT_TRAINING), 1); /* until the process is gone */
    while (dispatch_used(dispatch, 1, SLOT_TRAINING))
        uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(state_of("a"), TASK_CANCELLED);
    assert_string_equal(got.message, "训练已被用户取消");
    assert_non_null(strstr(log_of("a"), "任务已被用户取消|"));
    assert_non_null(strstr(strstr(log_of("a"), "任务已被用户取消|"), "|训练已被用户取消|"));
}

/* D2: it never starts, and others move up. */
static void cancel_waiting(void **state)
{
    (void)state;
    assert_true(submit("a", "training", "cuda:0", "wait", 5, 1));
    assert_true(submit("b", "training", "cuda:0", "ok", 5, 1));
    assert_true(submit("c", "training", "cuda:0", "ok", 6, 1));
    until("a", TASK_RUNNING);
    until("c", TASK_QUEUED);
    assert_string_equal(got.message, "等待资源... (cuda:0: 训练 1/1, a)");
    assert_true(dispatch_cancel(dispatch, "b", &err));
    assert_int_equal(state_of("b"), TASK_CANCELLED);
    assert_true(dispatch_cancel(dispatch, "a", &err));
    until("c", TASK_COMPLETED);
    assert_int_equal(state_of("b"), TASK_CANCELLED);
    assert_null(strstr(log_of("b"), "资源已分配"));
}

/* D3: the record goes at once, the process too, the slot when it is gone. */
static void delete_while_the_worker_lets_go(void **state)
{
    (void)state;
    assert_true(submit("a", "inference", "cuda:0", "deaf", 5, 1));
    until("a", TASK_RUNNING);
    assert_true(dispatch_cancel(dispatch, "a", &err));
    assert_true(dispatch_delete(dispatch, "a", &err));
    assert_false(store_find(store, "a", copy, NULL, &err));
    assert_int_equal(dispatch_used(dispatch, 0, SLOT_INFERENCE), 1);
    assert_true(submit("a", "training", "cuda:0", "ok", 5, 1)); /* the id is free again */
    until("a", TASK_COMPLETED);
    while (dispatch_used(dispatch, 0, SLOT_INFERENCE))
        uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(store_count(store, NULL, TASK_ANY), 1);
    assert_null(strstr(log_of("a"), "deaf"));
}

static void memory_is_never_over_committed(void **state)
{
    (void)state;
    assert_true(submit("a", "inference", "cuda:0", "wait", 3, 6));
    assert_true(submit("b", "inference", "cuda:0", "wait", 3, 6));
    assert_true(submit("c", "inference", "cuda:0", "wait", 3, 3));
    until("a", TASK_RUNNING);
    until("c", TASK_RUNNING);
    until("b", TASK_QUEUED);
    assert_string_equal(got.message, "等待资源... (cuda:0: 需要 6.0 GB, 空闲 1.0 GB, 其他进程占用 0.0 GB)");
    assert_int_equal(device_get(monitor_devices(monitor), 0)->memory_free, (uint64_t)1 << 30);
    assert_true(dispatch_cancel(dispatch, "a", &err));
    until("b", TASK_RUNNING);
    assert_true(dispatch_cancel(dispatch, "b", &err));
    assert_true(dispatch_cancel(dispatch, "c", &err));
}

static void limits_at_run_time(void **state)
{
    json_t *limits;

    (void)state;
    assert_true(dispatch_limit_set(dispatch, "cuda", SLOT_TRAINING, 0, &err));
    assert_true(submit("a", "training", "cuda", "wait", 5, 1));
    until("a", TASK_QUEUED);
    uv_run(&loop, UV_RUN_NOWAIT);
    state_of("a");
    assert_string_equal(got.message, "等待资源... (cuda: 训练 上限为 0)");
    assert_true(dispatch_limit_set(dispatch, "cuda:1", SLOT_TRAINING, 2, &err));
    until("a", TASK_RUNNING);
    assert_string_equal(got.device, "cuda:1");
    assert_true(dispatch_limit_set(dispatch, "cuda:1", SLOT_TRAINING, 0, &err)); /* nothing running is stopped */
    assert_int_equal(state_of("a"), TASK_RUNNING);
    assert_false(dispatch_limit_set(dispatch, "cuda:2", SLOT_TRAINING, 1, &err));
    assert_false(dispatch_limit_set(dispatch, "cuda:1", SLOT_TRAINING, -1, &err));
    close_all(); /* they are kept */
    open_all();
    until("a", TASK_QUEUED);
    limits = dispatch_limits(dispatch);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(limits, "cuda:0"), "training")), 0);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(limits, "cuda:1"), "inference")), 3);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(limits, "cpu"), "training")), 2);
    json_decref(limits);
}

static void queue_is_bounded(void **state)
{
    (void)state;
    for (int i = 0; i < 500; i++)
        assert_true(submit(NULL, "training", "cuda", "ok", 5, 1));
    assert_false(submit(NULL, "training", "cuda", "ok", 5, 1));
    assert_int_equal(err.kind, ERR_BUSY);
    assert_int_equal(store_count(store, NULL, TASK_ANY), 500);
}

/* Section 0, 7: what ran is queued again and says so, what waited waits, what is over is as it was. */
static void taken_up_after_kill(void **state)
{
    int status;
    pid_t child;

    (void)state;
    close_all();
    if ((child = fork()) == 0) {
        open_all();
        assert_true(submit("over", "training", "cuda:0", "ok", 5, 1));
        until("over", TASK_COMPLETED);
        assert_true(submit("ran", "training", "cuda:0", "wait", 5, 1));
        assert_true(submit("waited", "training", "cuda:0", "wait", 5, 1));
        until("ran", TASK_RUNNING);
        until("waited", TASK_QUEUED);
        assert_true(store_flush(store, &err));
        assert_true(submit("new", "inference", "cuda:0", "wait", 5, 1));
        raise(SIGKILL);
    }
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    open_all();
    assert_int_equal(state_of("over"), TASK_COMPLETED);
    assert_int_equal(state_of("ran"), TASK_QUEUED);
    assert_string_equal(got.device, "cuda:0");
    assert_non_null(strstr(log_of("ran"), "服务已重启"));
    assert_int_equal(state_of("waited"), TASK_QUEUED);
    assert_int_equal(state_of("new"), TASK_PENDING);
    assert_int_equal(dispatch_waiting(dispatch), 3);
    for (int i = 0; i < 3; i++) /* the fake requests are none, so each ends in failed when it is placed */
        until(i == 0 ? "ran" : i == 1 ? "waited" : "new", TASK_FAILED);
}

static void stop_leaves_what_ran_for_the_next_start(void **state)
{
    double begun;

    (void)state;
    assert_true(submit("a", "training", "cuda:0", "wait", 5, 1));
    assert_true(submit("b", "training", "cuda:1", "deaf", 5, 1));
    until("a", TASK_RUNNING);
    until("b", TASK_RUNNING);
    begun = clock_seconds();
    close_all();
    assert_true(clock_seconds() - begun < 4.5);
    open_all();
    assert_int_equal(state_of("a"), TASK_QUEUED);
    assert_int_equal(state_of("b"), TASK_QUEUED);
}

int main(int argc, char **argv)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_training_from_start_to_end),
        T(failures),
        T(no_memory_is_explained),
        T(cancel_running),
        T(cancel_waiting),
        T(delete_while_the_worker_lets_go),
        T(memory_is_never_over_committed),
        T(limits_at_run_time),
        T(queue_is_bounded),
        T(taken_up_after_kill),
        T(stop_leaves_what_ran_for_the_next_start),
    };

    fake_worker_main(argc, argv);
    text_set_language("zh");
    journal_open("/dev/null", "ERROR", &err);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
