/* files.h - small things about folders and tables that trainings and inferences share. */
#ifndef RFUAV_TASK_FILES_H
#define RFUAV_TASK_FILES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

/* Makes the folder and those above it. It must be one that this process may write into. */
bool folder_make(const char *path, struct err *err);

/* Replaces the file by the bytes of a buf, whole or not at all. A buf that ran out of memory is an error. */
bool file_write(const char *path, const struct buf *content, struct err *err);

/* Appends one cell of a CSV line, in quotes where RFC 4180 asks for them. */
void csv_text(struct buf *csv, const char *text);

enum { MEGABYTE = 1 << 20 };

#endif
