/* checkpoint.h - a state_dict from whatever file it is in, told apart by content (.pth or safetensors). */
#ifndef RFUAV_FORMATS_CHECKPOINT_H
#define RFUAV_FORMATS_CHECKPOINT_H

#include "base/err.h"
#include "base/state_dict.h"

bool checkpoint_read(const char *path, struct state_dict **ret, struct err *err);

/* Runs write(fd, arg) on "path.tmp", syncs and renames, so that `path` is whole or untouched even after a power loss.
 * A full disk is an error that says so; the temporary file is removed. */
bool file_replace(const char *path, bool (*write)(int fd, const void *arg, struct err *err), const void *arg,
                  struct err *err);

#endif
