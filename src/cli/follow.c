/* follow.c - see follow.h */
#include "cli/follow.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "cli/progress.h"
#include "cli/table.h"

enum { LINE_MAX_BYTES = 4096, RECONNECT_SECONDS = 60 };

struct follow {
    struct service *service;
    const char *id;
    struct follow_options options;
    struct progress progress;
    int64_t shown_epoch; /* whose summary was printed */
    bool bar_drawn;
    double asked;           /* when the record was last read */
    double lost;            /* since when there is no connection; 0: there is one */
    char final_status[16];  /* of the final event */
    bool cancelling, leave; /* Ctrl-C was pressed */
};

static volatile sig_atomic_t interrupts;

static void on_interrupt(int signal)
{
    (void)signal;
    interrupts = interrupts + 1;
}

/* The terminal */

static void erase_bar(struct follow *follow)
{
    if (follow->bar_drawn)
        fputs("\r\033[K", stdout);
    follow->bar_drawn = false;
}

static void draw_bar(struct follow *follow)
{
    struct buf line;
    size_t width = terminal_width();

    if (!follow->options.bar)
        return;
    buf_init(&line, LINE_MAX_BYTES);
    progress_line(&follow->progress, clock_seconds(), width > 1 ? width - 1 : 79, &line);
    erase_bar(follow);
    if (line.size > 0) {
        text_print(stdout, line.data);
        follow->bar_drawn = true;
    }
    fflush(stdout);
    buf_release(&line);
}

/* "09:15:02 WARNING message" */
static void print_log_line(struct follow *follow, const json_t *event)
{
    const char *timestamp = json_text(event, "timestamp", ""), *level = json_text(event, "level", "INFO");
    const char *time = strchr(timestamp, 'T');

    erase_bar(follow);
    printf("%.8s ", time ? time + 1 : "--------");
    if (strcmp(level, "INFO") != 0) {
        text_print(stdout, level);
        putchar(' ');
    }
    text_print(stdout, json_text(event, "message", ""));
    putchar('\n');
    fflush(stdout);
}

static void print_epoch(struct follow *follow)
{
    struct buf line;

    if (follow->progress.measured_epoch <= follow->shown_epoch)
        return;
    follow->shown_epoch = follow->progress.measured_epoch;
    buf_init(&line, LINE_MAX_BYTES);
    progress_epoch_line(&follow->progress, &line);
    erase_bar(follow);
    if (line.size > 0) {
        text_print(stdout, line.data);
        putchar('\n');
    }
    buf_release(&line);
}

/* The stream */

/* With a bar, an epoch's summary appears when the next one begins; of the rest of the log only what is wrong. */
static void show_with_bar(struct follow *follow, const json_t *event)
{
    const char *stage = json_text(event, "stage", "");

    if (strcmp(stage, "epoch_start") == 0)
        print_epoch(follow);
    progress_metrics(&follow->progress, json_object_get(event, "metrics"));
    if (strcmp(json_text(event, "level", "INFO"), "INFO") != 0)
        print_log_line(follow, event);
}

static bool on_event(void *arg, const char *data)
{
    struct follow *follow = arg;
    json_t *event = json_loads(data, 0, NULL);
    bool final = json_object_get(event, "status") && !json_object_get(event, "level");

    follow->lost = 0;
    if (!json_is_object(event)) {
        json_decref(event);
        return true;
    }
    if (follow->options.json) {
        puts(data);
        fflush(stdout);
    } else if (!final && follow->options.bar) {
        show_with_bar(follow, event);
    } else if (!final && json_object_get(event, "message")) {
        print_log_line(follow, event);
    }
    if (final)
        snprintf(follow->final_status, sizeof follow->final_status, "%s", json_text(event, "status", ""));
    json_decref(event);
    return !final;
}

/* Reads the record; false with *err set when it is gone or nobody answers. */
static bool read_record(struct follow *follow, struct err *err)
{
    struct buf path;
    json_t *record;

    buf_init(&path, LINE_MAX_BYTES);
    service_task_path(&path, follow->id, "");
    record = service_call(follow->service, "GET", path.data, NULL, err);
    buf_release(&path);
    follow->asked = clock_seconds();
    if (!record)
        return false;
    progress_record(&follow->progress, record, follow->asked);
    json_decref(record);
    return true;
}

static void ask_to_cancel(struct follow *follow)
{
    struct err err;
    struct buf path;
    json_t *answer;

    buf_init(&path, LINE_MAX_BYTES);
    service_task_path(&path, follow->id, "/cancel");
    answer = service_call(follow->service, "POST", path.data, NULL, &err);
    buf_release(&path);
    erase_bar(follow);
    if (answer)
        fprintf(stderr, "%s\n", tr("正在取消任务...", "cancelling the task ..."));
    else
        service_fail(follow->options.command, &err);
    json_decref(answer);
    follow->cancelling = true;
}

static bool on_tick(void *arg)
{
    struct follow *follow = arg;
    struct err err;

    if (interrupts > 0) {
        if (!follow->options.cancel_on_interrupt || follow->cancelling) {
            follow->leave = true;
            return false;
        }
        interrupts = 0;
        ask_to_cancel(follow);
    }
    if (follow->options.bar && clock_seconds() - follow->asked >= 1) {
        read_record(follow, &err); /* a failure shows itself in the stream, too */
        draw_bar(follow);
    }
    return true;
}

/* After a broken or ended connection: is it worth another try? Waits a moment before it says yes. */
static bool try_again(struct follow *follow, const struct err *err)
{
    double now = clock_seconds();

    if (follow->lost <= 0) {
        follow->lost = now;
        erase_bar(follow);
        fprintf(stderr, "%s\n", tr("连接中断，正在重试...", "the connection is lost, trying again ..."));
    }
    if (now - follow->lost > RECONNECT_SECONDS) {
        service_fail(follow->options.command, err);
        return false;
    }
    usleep(500 * 1000);
    return on_tick(follow);
}

/* Reads the stream until the final event, the user leaves, or there is no hope. Returns false in the last case. */
static bool read_stream(struct follow *follow)
{
    const struct http_stream_reader reader = {.event = on_event, .tick = on_tick, .arg = follow};
    struct buf path, body;
    struct sse sse;
    bool ok = true, more = true;

    buf_init(&path, LINE_MAX_BYTES);
    buf_init(&body, 1 << 20);
    sse_init(&sse);
    service_task_path(&path, follow->id, "/logs");
    while (more && !follow->final_status[0] && !follow->leave) {
        struct err err = {.kind = ERR_IO};
        int status = 0;

        if (!http_client_stream(follow->service->client, path.data, &sse, &reader, &status, &body, &err)) {
            service_hint(follow->service, &err);
            ok = more = try_again(follow, &err);
        } else if (status != 200) {
            service_explain(status, body.data, &err);
            service_fail(follow->options.command, &err);
            ok = more = false;
        } else if (!follow->final_status[0] &&
                   !follow->leave) { /* ended early: the service stops, or a record is gone */
            err_set(&err, ERR_IO, tr("日志流提前结束", "the stream of the log ended early"));
            ok = more = try_again(follow, &err);
        }
        ok = ok || follow->leave;
    }
    sse_release(&sse);
    buf_release(&body);
    buf_release(&path);
    return ok;
}

static int finish(struct follow *follow)
{
    const struct follow_options *options = &follow->options;
    struct err err;
    bool completed = strcmp(follow->final_status, "completed") == 0;

    if (follow->leave) {
        erase_bar(follow);
        fprintf(stderr,
                tr("任务 %s 继续运行: rfuav logs %s 查看日志，rfuav cancel %s 取消\n",
                   "task %s goes on: rfuav logs %s shows its log, rfuav cancel %s ends it\n"),
                follow->id, follow->id, follow->id);
        return EXIT_INTERRUPTED;
    }
    if (options->bar)
        print_epoch(follow);
    erase_bar(follow);
    if (!options->json && read_record(follow, &err)) {
        text_print(completed ? stdout : stderr, follow->progress.message);
        fputc('\n', completed ? stdout : stderr);
    }
    fflush(stdout);
    return completed ? 0 : 1;
}

int follow_task(struct service *service, const char *id, const struct follow_options *options)
{
    struct follow follow = {.service = service, .id = id, .options = *options};
    struct sigaction action = {.sa_handler = on_interrupt}, before;
    struct err err;
    int status = 1;

    progress_init(&follow.progress);
    interrupts = 0;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, &before); /* without SA_RESTART, so that a waiting poll() returns */
    if (!read_record(&follow, &err))
        service_fail(options->command, &err);
    else if (read_stream(&follow))
        status = finish(&follow);
    erase_bar(&follow);
    sigaction(SIGINT, &before, NULL);
    return status;
}
