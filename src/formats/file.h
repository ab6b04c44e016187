/* file.h - files that are whole or untouched: written under a temporary name, synced, renamed. */
#ifndef RFUAV_FORMATS_FILE_H
#define RFUAV_FORMATS_FILE_H

#include <sys/uio.h>

#include "base/err.h"

/* Runs write(fd, arg) on "path.tmp", syncs and renames, so that `path` is whole or untouched even after a power loss.
 * A full disk or quota is an error that says so; the temporary file is removed. Two processes that replace the same
 * file take turns. The error names the path. */
bool file_replace(const char *path, bool (*write)(int fd, const void *arg, struct err *err), const void *arg,
                  struct err *err);

/* Writes all pieces, in order, at the descriptor's position; `pieces` is used up. For the callback of file_replace(),
 * which puts the path before the error: a full disk says how many bytes were there. */
bool file_write_pieces(int fd, struct iovec *pieces, int count, struct err *err);

#endif
