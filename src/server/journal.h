/* journal.h - the daemon's own log: one event, one line, its task's id first. Not the log of a task, which is data. */
#ifndef RFUAV_SERVER_JOURNAL_H
#define RFUAV_SERVER_JOURNAL_H

#include <stdbool.h>

#include "base/err.h"

enum journal_level { JOURNAL_DEBUG, JOURNAL_INFO, JOURNAL_WARNING, JOURNAL_ERROR };

/* file: NULL or "" for standard error; its folder is made. level: the least that is written, "INFO"; unknown names are
 * INFO. Without this call lines go to standard error. */
bool journal_open(const char *file, const char *level, struct err *err);
void journal_close(void);

/* 2025-01-31T09:15:02.123456 WARNING message. Never fails: what the disk refuses is lost. */
void journal(enum journal_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
