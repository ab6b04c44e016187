/* worker.c - see worker.h. The socket and the pipe of the standard streams are read with polls of our own rather than
 * libuv's streams: a packet must stay a packet, and after the process has ended both are read to the last byte at once,
 * whoever may still hold their other ends. */
#include "server/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/text.h"
#include "task/message.h"

enum {
    PACKETS_A_TURN = 64, /* so that a talkative worker does not keep others waiting */
    STDERR_LINE_MAX = 2000,
    STDERR_LINES_MAX = 500,
};

enum stage { WORKER_RUNNING, WORKER_ASKED, WORKER_TERMINATED, WORKER_KILLED };

struct worker {
    uv_process_t process;
    uv_poll_t socket_poll, stderr_poll;
    uv_timer_t timer;
    int socket, stderr_pipe; /* our ends; -1: not there */
    int handles;             /* of libuv, still open; the last one frees */
    enum stage stage;
    const struct worker_events *events;
    void *arg;
    char line[STDERR_LINE_MAX + 1]; /* of standard error, so far */
    size_t line_size, lines;
    struct err fault;
    bool faulty;
};

/* ---- the end of a worker ---- */

static void on_closed(uv_handle_t *handle)
{
    struct worker *worker = handle->data;

    if (--worker->handles > 0)
        return;
    if (worker->socket >= 0)
        close(worker->socket);
    if (worker->stderr_pipe >= 0)
        close(worker->stderr_pipe);
    free(worker);
}

static void close_all(struct worker *worker)
{
    uv_handle_t *const handles[] = {(uv_handle_t *)&worker->process, (uv_handle_t *)&worker->socket_poll,
                                    (uv_handle_t *)&worker->stderr_poll, (uv_handle_t *)&worker->timer};

    for (size_t i = 0; i < sizeof handles / sizeof *handles; i++)
        if (handles[i]->loop && !uv_is_closing(handles[i]))
            uv_close(handles[i], on_closed);
}

static void signal_worker(struct worker *worker, int number)
{
    if (uv_is_active((uv_handle_t *)&worker->process))
        uv_process_kill(&worker->process, number);
}

/* It talks nonsense: nothing it says counts any more. */
static void break_off(struct worker *worker, const struct err *why)
{
    if (worker->faulty)
        return;
    worker->fault = *why;
    err_prefix(&worker->fault, "%s", tr("工作进程发送了错误的消息", "the worker sent a broken message"));
    worker->faulty = true;
    worker_kill(worker);
}

/* ---- what it says ---- */

/* Reads one packet; false: no more for now. */
static bool read_packet(struct worker *worker)
{
    static char packet[MESSAGE_MAX + 1]; /* one thread, and done with on return */
    ssize_t size;
    json_t *message;
    struct err err;

    do
        size = recv(worker->socket, packet, sizeof packet, MSG_DONTWAIT);
    while (size < 0 && errno == EINTR);
    if (size <= 0) {
        if (size == 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
            uv_poll_stop(&worker->socket_poll);
        return false;
    }
    if (worker->faulty)
        return true;
    if (!(message = message_parse(packet, (size_t)size, &err))) {
        break_off(worker, &err);
        return true;
    }
    worker->events->message(worker->arg, message);
    json_decref(message);
    return true;
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
    struct worker *worker = poll->data;

    (void)status;
    (void)events;
    for (int i = 0; i < PACKETS_A_TURN && read_packet(worker); i++)
        ;
}

/* ---- standard output and error ---- */

static void end_line(struct worker *worker)
{
    char *text = worker->line;

    text[worker->line_size] = 0;
    if (worker->line_size && worker->lines++ < STDERR_LINES_MAX) {
        if (!text_is_utf8(text, worker->line_size))
            for (size_t i = 0; i < worker->line_size; i++)
                if ((unsigned char)text[i] >= 0x80 || !text[i])
                    text[i] = '?';
        worker->events->stderr_line(worker->arg, text);
    }
    worker->line_size = 0;
}

static bool read_stderr(struct worker *worker)
{
    char data[4096];
    ssize_t size;

    do
        size = read(worker->stderr_pipe, data, sizeof data);
    while (size < 0 && errno == EINTR);
    if (size <= 0) {
        if (size == 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
            uv_poll_stop(&worker->stderr_poll);
        return false;
    }
    for (ssize_t i = 0; i < size; i++) {
        if (data[i] == '\n' || worker->line_size == STDERR_LINE_MAX)
            end_line(worker);
        if (data[i] != '\n' && data[i] != '\r')
            worker->line[worker->line_size++] = data[i];
    }
    return true;
}

static void on_stderr(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    read_stderr(poll->data);
}

static const char *signal_hint(int number)
{
    if (number == SIGKILL)
        return tr("；可能是内存不足，见 dmesg", "; out of memory? see dmesg");
    if (number == SIGSEGV || number == SIGBUS || number == SIGILL || number == SIGFPE || number == SIGABRT)
        return tr("；这是程序错误", "; that is a bug in the program");
    return "";
}

static void on_exit_of_process(uv_process_t *process, int64_t exit_status, int number)
{
    struct worker *worker = process->data;
    bool ours = worker->stage == WORKER_TERMINATED || worker->stage == WORKER_KILLED;

    while (read_packet(worker))
        ;
    for (int i = 0; i < STDERR_LINES_MAX && read_stderr(worker); i++)
        ;
    end_line(worker);
    if (number && !worker->faulty && !ours) {
        err_set(&worker->fault, ERR_IO,
                tr("工作进程被信号 SIG%s (%d) 终止%s", "the worker was killed by signal SIG%s (%d)%s"),
                sigabbrev_np(number) ? sigabbrev_np(number) : "?", number, signal_hint(number));
        worker->faulty = true;
    }
    worker->events->gone(worker->arg, (int)exit_status, number, worker->faulty ? worker->fault.message : NULL);
    close_all(worker);
}

/* ---- starting ---- */

static bool make_channels(struct worker *worker, int ret_theirs[2], struct err *err)
{
    int pair[2], ends[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_set(err, ERR_IO, "socketpair: %s", strerror(errno));
    worker->socket = pair[0];
    ret_theirs[0] = pair[1];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_set(err, ERR_IO, "pipe: %s", strerror(errno));
    worker->stderr_pipe = ends[0];
    ret_theirs[1] = ends[1];
    /* only our ends: theirs may wait */
    fcntl(worker->socket, F_SETFL, O_NONBLOCK);
    fcntl(worker->stderr_pipe, F_SETFL, O_NONBLOCK);
    return true;
}

static bool add_handle(struct worker *worker, uv_handle_t *handle, int status, struct err *err)
{
    if (status < 0)
        return err_set(err, ERR_IO, "%s", uv_strerror(status));
    handle->data = worker;
    worker->handles++;
    return true;
}

static bool spawn(struct worker *worker, uv_loop_t *loop, const char *program, const int theirs[2], struct err *err)
{
    char *args[] = {(char *)program, (char *)"worker", NULL};
    uv_stdio_container_t stdio[] = {
        {.flags = UV_IGNORE},
        {.flags = UV_INHERIT_FD, .data.fd = theirs[1]},
        {.flags = UV_INHERIT_FD, .data.fd = theirs[1]},
        {.flags = UV_INHERIT_FD, .data.fd = theirs[0]}, /* MESSAGE_DESCRIPTOR */
    };
    uv_process_options_t options = {.file = program, .args = args, .exit_cb = on_exit_of_process};
    int status;

    /* OpenMP's threads wait for each other in a loop, and by default for so long that they take the cores from those
     * that decode and write pictures: an inference of 100 took twice the processor time. Read when the worker starts.
     */
    setenv("GOMP_SPINCOUNT", "10000", 0);
    options.stdio = stdio;
    options.stdio_count = sizeof stdio / sizeof *stdio;
    status = uv_spawn(loop, &worker->process, &options);
    /* a handle that uv_spawn() has refused must still be closed */
    worker->process.data = worker;
    worker->handles++;
    return status == 0 || err_set(err, ERR_IO, tr("无法启动工作进程 %s: %s", "cannot start the worker %s: %s"), program,
                                  uv_strerror(status));
}

bool worker_spawn(uv_loop_t *loop, const char *program, const json_t *start, const struct worker_events *events,
                  void *arg, struct worker **ret, struct err *err)
{
    struct worker *worker = calloc(1, sizeof *worker);
    int theirs[2] = {-1, -1};
    bool ok;

    if (!worker)
        return err_set(err, ERR_MEMORY, "no memory for a worker");
    worker->socket = worker->stderr_pipe = -1;
    worker->events = events;
    worker->arg = arg;
    ok = make_channels(worker, theirs, err) &&
         add_handle(worker, (uv_handle_t *)&worker->timer, uv_timer_init(loop, &worker->timer), err) &&
         add_handle(worker, (uv_handle_t *)&worker->socket_poll,
                    uv_poll_init(loop, &worker->socket_poll, worker->socket), err) &&
         add_handle(worker, (uv_handle_t *)&worker->stderr_poll,
                    uv_poll_init(loop, &worker->stderr_poll, worker->stderr_pipe), err) &&
         message_send(worker->socket, start, err) && spawn(worker, loop, program, theirs, err);
    for (int i = 0; i < 2; i++)
        if (theirs[i] >= 0)
            close(theirs[i]);
    if (ok) {
        uv_poll_start(&worker->socket_poll, UV_READABLE, on_socket);
        uv_poll_start(&worker->stderr_poll, UV_READABLE, on_stderr);
        *ret = worker;
        return true;
    }
    worker->handles++; /* so that it lives until here also when there is no handle to close */
    close_all(worker);
    on_closed(&(uv_handle_t){.data = worker});
    return false;
}

/* ---- stopping ---- */

static void on_timer(uv_timer_t *timer)
{
    struct worker *worker = timer->data;

    if (worker->stage == WORKER_ASKED) {
        worker->stage = WORKER_TERMINATED;
        signal_worker(worker, SIGTERM);
        uv_timer_start(&worker->timer, on_timer, 600, 0);
    } else {
        worker_kill(worker);
    }
}

void worker_cancel(struct worker *worker)
{
    json_t *message;

    if (worker->stage != WORKER_RUNNING)
        return;
    worker->stage = WORKER_ASKED;
    if ((message = json_pack("{s:s}", "type", "cancel")))
        message_send(worker->socket, message, NULL); /* one that does not read gets the signals */
    json_decref(message);
    uv_timer_start(&worker->timer, on_timer, 1000, 0);
}

void worker_stop(struct worker *worker, double grace)
{
    if (worker->stage >= WORKER_TERMINATED)
        return;
    worker->stage = WORKER_TERMINATED;
    signal_worker(worker, SIGTERM);
    uv_timer_start(&worker->timer, on_timer, (uint64_t)(grace * 1000), 0);
}

void worker_kill(struct worker *worker)
{
    worker->stage = WORKER_KILLED;
    signal_worker(worker, SIGKILL);
}

int worker_pid(const struct worker *worker)
{
    return worker->process.pid;
}
