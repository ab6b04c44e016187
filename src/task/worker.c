/* worker.c - `rfuav worker`: the process that carries one task out. The daemon starts it with a socket on descriptor 3
 * (task/message.h); it reads the start message, runs the kind's function on the main thread and sends what happens.
 * A second thread listens: a cancel sets a flag that the work looks at, and when the socket closes the process ends at
 * once, whatever it is doing. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fields.h"
#include "base/text.h"
#include "commands.h"
#include "data/image.h"
#include "task/kinds.h"
#include "task/message.h"

/* Below the daemon, so that it answers at once while all cores are at work here. */
enum { NICENESS = 5 };

static atomic_bool cancel_wanted; /* lock-free: set by the listening thread and by SIGTERM */
static atomic_bool work_done;     /* from here on nobody need listen */

static void on_term(int signal_number)
{
    (void)signal_number;
    atomic_store(&cancel_wanted, true);
}

static bool is_cancelled(struct task *task)
{
    (void)task;
    return atomic_load(&cancel_wanted);
}

/* Without a daemon that listens there is no task. */
static _Noreturn void leave(const char *why)
{
    fprintf(stderr, "rfuav worker: %s\n", why);
    _exit(1);
}

static void send_message(struct task *task, json_t *message)
{
    struct err err;

    (void)task;
    if (!message_send(MESSAGE_DESCRIPTOR, message, &err) && err.kind == ERR_IO)
        leave(err.message);
    json_decref(message);
}

/* Waits for the next packet; returns its size, or 0 when the socket is closed. */
static size_t receive(char *packet)
{
    ssize_t size;

    do
        size = recv(MESSAGE_DESCRIPTOR, packet, MESSAGE_MAX, 0);
    while (size < 0 && errno == EINTR);
    return size > 0 ? (size_t)size : 0;
}

static void *listen_to_daemon(void *packet)
{
    size_t size;

    while ((size = receive(packet)) > 0) {
        struct err err;
        json_t *message = message_parse(packet, size, &err);

        if (message && strcmp(json_string_value(json_object_get(message, "type")), "cancel") == 0)
            atomic_store(&cancel_wanted, true);
        json_decref(message);
    }
    if (!atomic_load(&work_done))
        _exit(1);
    return NULL;
}

/* Nothing of the daemon's but the socket and the standard streams; death with the daemon; a place behind it in the
 * queue for the processor. */
static void become_worker(void)
{
    struct sigaction action = {.sa_handler = on_term, .sa_flags = SA_RESTART};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "rfuav-worker");
    close_range(MESSAGE_DESCRIPTOR + 1, ~0u, 0);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGINT, SIG_IGN); /* a terminal's Ctrl-C reaches the whole group; the daemon decides what it means */
    signal(SIGPIPE, SIG_IGN);
    setpriority(PRIO_PROCESS, 0, NICENESS);
}

static const char *text_of(const json_t *start, const char *key)
{
    return json_string_value(json_object_get(start, key));
}

/* Fills the task from the start message, whose strings it borrows. */
static void read_task(const json_t *start, struct task *task)
{
    const json_t *limit = json_object_get(start, "memory_limit");

    task->id = text_of(start, "task_id");
    task->device = text_of(start, "device") ? text_of(start, "device") : "cpu";
    task->backend = text_of(start, "backend") ? text_of(start, "backend") : "cpu";
    task->device_uuid = text_of(start, "device_uuid");
    task->asked_device = text_of(start, "asked_device");
    task->threads = (int)json_integer_value(json_object_get(start, "threads"));
    task->memory_limit = json_integer_value(limit) > 0 ? (uint64_t)json_integer_value(limit) : 0;
    task->weights_folder = text_of(start, "weights_folder");
    task->send = send_message;
    task->cancelled = is_cancelled;
}

/* The request as the kind's struct; the API has checked it, so a fault here is a bug. */
static void *read_request(const struct task_kind *kind, const json_t *start, struct arena *arena, struct err *err)
{
    void *request = arena_alloc(arena, kind->request->size);
    json_t *faults = json_array();

    if (!request || !faults) {
        err_set(err, ERR_MEMORY, "out of memory");
        request = NULL;
    } else if (!fields_read(kind->request, json_object_get(start, "request"), "request", request, arena, faults)) {
        char *text = json_dumps(faults, JSON_COMPACT);

        err_set(err, ERR_BUG, "the worker was sent a faulty request: %s", text ? text : "");
        free(text);
        request = NULL;
    }
    json_decref(faults);
    return request;
}

static bool run_task(const json_t *start, struct arena *arena, struct err *err)
{
    const struct task_kind *kind = task_kind_find(text_of(start, "kind"));
    struct task task = {.arena = arena};
    void *request;

    if (strcmp(text_of(start, "type"), "start") != 0 || !kind)
        return err_set(err, ERR_BUG, "the worker was sent no task that it knows");
    read_task(start, &task);
    request = read_request(kind, start, arena, err);
    return request && kind->run(&task, request, err);
}

static void send_end(bool ok, const struct err *err)
{
    const char *status = ok ? "completed" : err->kind == ERR_CANCELLED ? "cancelled" : "failed";
    json_t *end = json_pack("{s:s, s:s}", "type", "end", "status", status);

    if (end && !ok)
        json_object_set_new(end, "kind", json_string(err_kind_name(err->kind)));
    /* a path that is no UTF-8 can make the sentence unfit for JSON */
    if (end && !ok && json_object_set_new(end, "error", json_string(err->message)) < 0)
        json_object_set_new(end, "error", json_string(err_kind_name(err->kind)));
    if (!end)
        leave("out of memory");
    send_message(NULL, end);
}

int command_worker(int argc, char **argv)
{
    static char first[MESSAGE_MAX], later[MESSAGE_MAX];
    struct arena *arena = arena_new(0);
    struct err err = {0};
    pthread_t listener;
    json_t *start;
    size_t size;
    bool ok;

    (void)argc;
    (void)argv;
    become_worker();
    if (!arena)
        leave("out of memory");
    if ((size = receive(first)) == 0)
        leave("no start message: only the daemon starts a worker");
    if (!(start = message_parse(first, size, &err)))
        leave(err.message);
    text_set_language(text_of(start, "language"));
    image_find_fonts();
    if (pthread_create(&listener, NULL, listen_to_daemon, later) != 0)
        leave("cannot start the listening thread");
    ok = run_task(start, arena, &err);
    atomic_store(&work_done, true);
    shutdown(MESSAGE_DESCRIPTOR, SHUT_RD); /* wakes the listener */
    pthread_join(listener, NULL);
    send_end(ok, &err);
    json_decref(start);
    arena_free(arena);
    return 0;
}
