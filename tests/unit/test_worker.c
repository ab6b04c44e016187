/* test_worker.c - worker processes: their messages, their deaths, how they are ended. The worker is this binary. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>

#include "base/clock.h"
#include "base/text.h"
#include "fake_worker.h"
#include "server/worker.h"

static struct seen {
    int messages, lines, gone, exit_status, signal;
    char last_type[32], last_message[64], last_line[256], fault[600];
    bool act_on_log;
    double at;
} seen;
static struct worker *worker;
static void (*act)(void);

static void on_message(void *arg, const json_t *message)
{
    (void)arg;
    seen.messages++;
    snprintf(seen.last_type, sizeof seen.last_type, "%s", json_string_value(json_object_get(message, "type")));
    if (json_object_get(message, "message"))
        snprintf(seen.last_message, sizeof seen.last_message, "%s",
                 json_string_value(json_object_get(message, "message")));
    if (act) {
        act();
        act = NULL;
        seen.at = clock_seconds();
    }
}

static void on_line(void *arg, const char *line)
{
    (void)arg;
    assert_true(text_is_utf8(line, strlen(line)));
    seen.lines++;
    snprintf(seen.last_line, sizeof seen.last_line, "%s", line);
}

static void on_gone(void *arg, int exit_status, int number, const char *fault)
{
    (void)arg;
    assert_int_equal(kill(worker_pid(worker), 0), -1); /* gone for real */
    seen.gone++;
    seen.exit_status = exit_status;
    seen.signal = number;
    snprintf(seen.fault, sizeof seen.fault, "%s", fault ? fault : "");
    seen.at = clock_seconds() - seen.at;
}

static const struct worker_events events = {on_message, on_line, on_gone};

static size_t open_descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    size_t n = 0;

    while (readdir(folder))
        n++;
    closedir(folder);
    return n;
}

/* Runs one worker to its end. */
static void run(const char *behaviour, void (*on_first_message)(void))
{
    json_t *start = json_pack("{s:s, s:{s:s}}", "type", "start", "request", "behave", behaviour);
    size_t before;
    uv_loop_t loop;
    struct err err;

    memset(&seen, 0, sizeof seen);
    act = on_first_message;
    before = open_descriptors();
    uv_loop_init(&loop);
    if (!worker_spawn(&loop, "/proc/self/exe", start, &events, NULL, &worker, &err))
        fail_msg("%s", err.message);
    json_decref(start);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_int_equal(seen.gone, 1);
    /* libuv keeps its signal pipe */
    assert_in_range(open_descriptors(), before, before + 2);
}

static void messages_arrive_in_order_and_before_the_end(void **state)
{
    (void)state;
    run("ok", NULL);
    assert_int_equal(seen.messages, 6);
    assert_string_equal(seen.last_type, "end");
    assert_string_equal(seen.last_message, "训练完成！");
    assert_string_equal(seen.fault, "");
    run("flood", NULL);
    assert_int_equal(seen.messages, 20001);
}

static void cancel(void)
{
    worker_cancel(worker);
}

static void terminate(void)
{
    worker_stop(worker, 0.3);
}

static void cancel_is_a_message_then_a_signal_then_a_kill(void **state)
{
    (void)state;
    run("wait", cancel);
    assert_string_equal(seen.last_type, "end");
    assert_int_equal(seen.signal, 0);
    assert_true(seen.at < 0.9);
    run("term", cancel);
    assert_int_equal(seen.signal, SIGTERM);
    assert_string_equal(seen.fault, ""); /* we did it */
    assert_true(seen.at > 0.9 && seen.at < 1.55);
    run("deaf", cancel);
    assert_int_equal(seen.signal, SIGKILL);
    assert_string_equal(seen.fault, "");
    assert_true(seen.at > 1.5 && seen.at < 2);
    run("deaf", terminate);
    assert_int_equal(seen.signal, SIGKILL);
    assert_true(seen.at > 0.25 && seen.at < 0.8);
}

static void deaths_are_told(void **state)
{
    (void)state;
    run("segv", NULL);
    assert_int_equal(seen.signal, SIGSEGV);
    assert_non_null(strstr(seen.fault, "signal SIGSEGV (11)"));
    run("kill", NULL);
    assert_non_null(strstr(seen.fault, "signal SIGKILL (9); out of memory? see dmesg"));
    assert_int_equal(seen.lines, 2);
    assert_string_equal(seen.last_line, "and a half");
    run("exit", NULL);
    assert_int_equal(seen.exit_status, 3);
    assert_string_equal(seen.fault, "");
}

static void nonsense_breaks_the_worker_off(void **state)
{
    (void)state;
    run("garbage", NULL);
    assert_non_null(strstr(seen.fault, "the worker sent a broken message: a message that is no JSON"));
    assert_int_equal(seen.messages, 0);
    run("huge", NULL);
    assert_non_null(strstr(seen.fault, "at most 131072 are allowed"));
}

static void standard_error_is_bounded(void **state)
{
    (void)state;
    run("stderr", NULL);
    assert_in_range(seen.lines, 400, 500);
    assert_string_equal(seen.last_type, "end");
}

static void a_program_that_is_not_there(void **state)
{
    json_t *start = json_pack("{s:s}", "type", "start");
    size_t before = open_descriptors();
    uv_loop_t loop;
    struct err err;

    (void)state;
    uv_loop_init(&loop);
    assert_false(worker_spawn(&loop, "/nonexistent/rfuav", start, &events, NULL, &worker, &err));
    assert_non_null(strstr(err.message, "/nonexistent/rfuav"));
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_in_range(open_descriptors(), before, before + 2);
    json_decref(start);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_arrive_in_order_and_before_the_end),
        cmocka_unit_test(cancel_is_a_message_then_a_signal_then_a_kill),
        cmocka_unit_test(deaths_are_told),
        cmocka_unit_test(nonsense_breaks_the_worker_off),
        cmocka_unit_test(standard_error_is_bounded),
        cmocka_unit_test(a_program_that_is_not_there),
    };

    fake_worker_main(argc, argv);
    text_set_language("en");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
