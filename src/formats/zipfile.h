/* zipfile.h - just enough ZIP for PyTorch checkpoints: stored (uncompressed) entries, ZIP64 included.
 * Our own because entries are read straight into tensors and written straight from them, and because libzip writes
 * neither the alignment that torch.load(mmap=True) wants nor without a copy. */
#ifndef RFUAV_FORMATS_ZIPFILE_H
#define RFUAV_FORMATS_ZIPFILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "formats/source.h"

struct zip_entry {
    const char *name;            /* UTF-8 or whatever the writer took; no NUL inside */
    uint64_t size, local_offset; /* bytes of content; where its local header is */
    uint32_t crc;                /* CRC-32 of the content; 0: not known */
    const char *obstacle;        /* NULL, or why it cannot be read: "compressed", "encrypted" */
};

struct zipfile {
    const struct source *source;
    const struct zip_entry *entries; /* sorted by name, each name once */
    size_t count;
};

/* Reads the directory. Names live in the arena. */
bool zipfile_open(struct zipfile *ret, const struct source *source, struct arena *arena, struct err *err);

const struct zip_entry *zipfile_find(const struct zipfile *zip, const char *name); /* NULL: none */

/* Writes the content, entry->size bytes, to `out`; the checksum must fit, where
 * there is one: torch.serialization.set_crc32_options(False) leaves it 0. A compressed entry is refused by name. */
bool zipfile_read(const struct zipfile *zip, const struct zip_entry *entry, void *out, struct err *err);

/* Writing: entries one after the other, then the directory. Content begins at multiples of 64 bytes. */
struct zip_writer {
    int fd;
    uint64_t offset, count;
    struct buf directory;
};

void zip_writer_init(struct zip_writer *writer, int fd);
bool zip_writer_add(struct zip_writer *writer, const char *name, const void *data, size_t size, struct err *err);
bool zip_writer_finish(struct zip_writer *writer, struct err *err);
void zip_writer_release(struct zip_writer *writer); /* the descriptor stays the caller's */

#endif
