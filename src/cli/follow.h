/* follow.h - stays with a task until it ends: its log as lines, or an epoch table with a progress bar below. */
#ifndef RFUAV_CLI_FOLLOW_H
#define RFUAV_CLI_FOLLOW_H

#include <stdbool.h>

#include "cli/service.h"

enum { EXIT_INTERRUPTED = 130 };

struct follow_options {
    const char *command;      /* for messages */
    bool bar;                 /* show a progress bar; else every line of the log */
    bool json;                /* print every event as the service sent it */
    bool cancel_on_interrupt; /* Ctrl-C asks the service to cancel; else it leaves the task alone */
};

/* Returns the exit status: 0 completed, 1 failed or cancelled or lost, EXIT_INTERRUPTED when the user left. Goes on
 * with the next line after a broken connection. */
int follow_task(struct service *service, const char *id, const struct follow_options *options);

#endif
