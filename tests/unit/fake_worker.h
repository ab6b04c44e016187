/* fake_worker.h - this test's own binary as the worker process: does what the start message's request says.
 * Call fake_worker_main() first thing in main(). */
#ifndef TESTS_FAKE_WORKER_H
#define TESTS_FAKE_WORKER_H

#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "task/message.h"

static inline void fake_send(json_t *message)
{
    message_send(MESSAGE_DESCRIPTOR, message, NULL);
    json_decref(message);
}

static inline void fake_log(const char *text)
{
    fake_send(json_pack("{s:s, s:s, s:s, s:s}", "type", "log", "timestamp", "2025-01-31T09:15:02.123456", "level",
                        "INFO", "message", text));
}

static inline void fake_end(const char *status, const char *error)
{
    fake_send(json_pack("{s:s, s:s, s:s*}", "type", "end", "status", status, "error", error));
}

/* The next message's type, or "" when the daemon has gone. */
static inline const char *fake_receive(json_t **ret)
{
    static char packet[MESSAGE_MAX];
    ssize_t size = recv(MESSAGE_DESCRIPTOR, packet, sizeof packet, 0);

    *ret = size > 0 ? message_parse(packet, (size_t)size, NULL) : NULL;
    return *ret ? json_string_value(json_object_get(*ret, "type")) : "";
}

static inline void fake_metrics(void)
{
    fake_send(json_pack("{s:s, s:s, s:s, s:{s:i, s:f}, s:s}", "type", "log", "level", "INFO", "message", "Epoch [1/2]",
                        "metrics", "epoch", 1, "train_loss", 0.25, "stage", "training"));
    fake_send(json_pack("{s:s, s:i, s:i}", "type", "progress", "progress", 50, "current_epoch", 1));
    fake_send(json_pack("{s:s, s:s, s:s, s:{s:f}}", "type", "log", "level", "INFO", "message", "Validation", "metrics",
                        "val_loss", 0.5));
}

static inline void fake_behave(const char *behaviour)
{
    json_t *message;

    if (strcmp(behaviour, "nomemory") == 0) {
        fake_send(
            json_pack("{s:s, s:s, s:s, s:s}", "type", "end", "status", "failed", "error", "no room", "kind", "MEMORY"));
    } else if (strcmp(behaviour, "ok") == 0) {
        fake_log("开始训练...");
        fake_metrics();
        fake_log("训练完成！");
        fake_end("completed", NULL);
    } else if (strcmp(behaviour, "fail") == 0) {
        fake_end("failed", "no such class");
    } else if (strcmp(behaviour, "wait") == 0) { /* for the cancel */
        fake_log("waiting");
        while (strcmp(fake_receive(&message), "cancel") != 0)
            if (!message)
                exit(1);
        fake_end("cancelled", NULL);
    } else if (strcmp(behaviour, "deaf") == 0) {
        signal(SIGTERM, SIG_IGN);
        fake_log("deaf");
        for (;;)
            pause();
    } else if (strcmp(behaviour, "term") == 0) { /* hears SIGTERM only */
        fake_log("term");
        for (;;)
            pause();
    } else if (strcmp(behaviour, "segv") == 0) {
        signal(SIGSEGV, SIG_DFL);
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        raise(SIGSEGV);
    } else if (strcmp(behaviour, "kill") == 0) {
        fprintf(stderr, "last words\nand a half");
        raise(SIGKILL);
    } else if (strcmp(behaviour, "exit") == 0) {
        exit(3);
    } else if (strcmp(behaviour, "garbage") == 0) {
        send(MESSAGE_DESCRIPTOR, "{\"type\":", 8, 0);
        for (;;)
            pause();
    } else if (strcmp(behaviour, "huge") == 0) {
        char *big = calloc(1, MESSAGE_MAX + 100);

        memset(big, ' ', MESSAGE_MAX + 100);
        send(MESSAGE_DESCRIPTOR, big, MESSAGE_MAX + 100, 0);
        for (;;)
            pause();
    } else if (strcmp(behaviour, "nonsense") == 0) { /* well-formed, but wrong */
        fake_send(json_pack("{s:s, s:s}", "type", "progress", "progress", "half"));
        for (;;)
            pause();
    } else if (strcmp(behaviour, "stderr") == 0) {
        for (int i = 0; i < 5000; i++)
            fprintf(stderr, "line %d \xff\n", i);
        fake_end("completed", NULL);
    } else if (strcmp(behaviour, "flood") == 0) {
        for (int i = 0; i < 20000; i++)
            fake_log("one of many");
        fake_end("completed", NULL);
    }
}

static inline void fake_worker_main(int argc, char **argv)
{
    json_t *start;

    if (argc != 2 || strcmp(argv[1], "worker") != 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (strcmp(fake_receive(&start), "start") == 0)
        fake_behave(json_string_value(json_object_get(json_object_get(start, "request"), "behave")));
    _exit(0);
}

#endif
