/* source.h - the bytes of a checkpoint, in a file or in memory, read piece by piece.
 * Files are read with pread(), never mapped: a file that somebody else cuts short meanwhile is an error, not a SIGBUS,
 * and tensors go from the page cache straight to where they are wanted. */
#ifndef RFUAV_FORMATS_SOURCE_H
#define RFUAV_FORMATS_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct source {
    const unsigned char *data; /* NULL: a file */
    int fd;
    uint64_t size; /* bytes */
};

struct source source_memory(const void *data, size_t size); /* `data` stays the caller's */

/* Opens a regular file; folders, pipes and devices are refused. The error does not name the file. */
bool source_open(struct source *ret, const char *path, struct err *err);
void source_close(struct source *source);

/* Copies exactly `size` bytes from `offset` on; past the end is an error. */
bool source_read(const struct source *source, uint64_t offset, size_t size, void *out, struct err *err);

/* What the first bytes say a file is. */
enum file_kind { FILE_ZIP, FILE_SAFETENSORS, FILE_OTHER };

/* Tells a file's kind; *what is a description for people ("a Git LFS pointer; fetch the file itself with git lfs
 * pull"). */
bool source_sniff(const struct source *source, enum file_kind *kind, const char **what, struct err *err);

#endif
