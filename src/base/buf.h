/* buf.h - a growing run of bytes with a maximum, always followed by a NUL. A failed append (no memory, past the
 * maximum) sets `failed` and changes nothing more; check it once at the end. */
#ifndef RFUAV_BASE_BUF_H
#define RFUAV_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>

struct buf {
    char *data; /* NULL while empty; otherwise NUL-terminated */
    size_t size, capacity, max;
    bool failed;
};

void buf_init(struct buf *buf, size_t max); /* max: most bytes it may hold */
void buf_release(struct buf *buf);          /* frees the bytes; the buf may be used again */
void buf_clear(struct buf *buf);            /* empties it, keeps the memory, clears `failed` */
void buf_append(struct buf *buf, const void *data, size_t size);
void buf_puts(struct buf *buf, const char *text);
void buf_printf(struct buf *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A JSON string literal of UTF-8 text, quotes included; non-ASCII raw; NULL gives null. */
void buf_json_string(struct buf *buf, const char *text);

/* Hands the bytes to the caller, who frees them with free(); NULL when an append failed. */
char *buf_detach(struct buf *buf, size_t *ret_size);

#endif
