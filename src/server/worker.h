/* worker.h - one worker process: started, talked to over its socket (task/message.h), ended, seen off.
 * It knows processes, not tasks: what a message means is the dispatcher's business. */
#ifndef RFUAV_SERVER_WORKER_H
#define RFUAV_SERVER_WORKER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "base/err.h"

struct worker;

struct worker_events {
    /* a well-formed message; borrowed */
    void (*message)(void *arg, const json_t *message);
    /* one line of its standard error, without the newline, valid UTF-8 */
    void (*stderr_line)(void *arg, const char *line);
    /* The process is gone and everything it sent has been delivered; the worker is freed after the call.
     * fault: NULL, or a sentence when it broke the protocol or died by a signal. */
    void (*gone)(void *arg, int exit_status, int signal, const char *fault);
};

/* Starts `program worker` with a socket on descriptor 3 and sends it `start`. */
bool worker_spawn(uv_loop_t *loop, const char *program, const json_t *start, const struct worker_events *events,
                  void *arg, struct worker **ret, struct err *err);

/* Asks it to stop; SIGTERM after 1 s, SIGKILL after 1.6 s. */
void worker_cancel(struct worker *worker);

/* SIGTERM now, SIGKILL after `grace` seconds. */
void worker_stop(struct worker *worker, double grace);

void worker_kill(struct worker *worker); /* SIGKILL now */

int worker_pid(const struct worker *worker);

#endif
