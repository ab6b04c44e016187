/* options.h - takes options out of a subcommand's argv one by one; what is left at the end is positional or wrong. */
#ifndef RFUAV_CLI_OPTIONS_H
#define RFUAV_CLI_OPTIONS_H

#include <stdbool.h>

#include "base/err.h"

/* Takes every `name` ("--json"); was there one? */
bool option_flag(int *argc, char **argv, const char *name);

/* Takes `name VALUE` and `name=VALUE`; the last one wins, *value stays as it is without one. False when the value is
 * missing. */
bool option_value(int *argc, char **argv, const char *name, const char **value, struct err *err);

/* Is `--help` or `-h` there? */
bool option_help(int argc, char **argv);

/* Checks what is left (argv[0] is the subcommand): no options, and between min and max words; `what` names a word that
 * is missing, as "TASK_ID". */
bool options_end(int argc, char **argv, int min, int max, const char *what, struct err *err);

#endif
