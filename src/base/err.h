/* err.h - one error, filled where it happens, passed up unchanged, answered once.
 * A function that can fail returns bool and takes `struct err *` last; on failure its other outputs are
 * untouched. Messages are for people: they name the field, file or device, the value, and what would be right. */
#ifndef RFUAV_BASE_ERR_H
#define RFUAV_BASE_ERR_H

#include <stdbool.h>

/* kind, HTTP status it is answered with */
#define ERR_KINDS(X)                                                                                                   \
    X(INVALID, 422)                                                                                                    \
    X(REQUEST, 400)                                                                                                    \
    X(NOT_FOUND, 404)                                                                                                  \
    X(CONFLICT, 409)                                                                                                   \
    X(TOO_LARGE, 413)                                                                                                  \
    X(BUSY, 503)                                                                                                       \
    X(IO, 500)                                                                                                         \
    X(NO_SPACE, 500)                                                                                                   \
    X(DEVICE, 500)                                                                                                     \
    X(MEMORY, 500)                                                                                                     \
    X(CANCELLED, 500)                                                                                                  \
    X(BUG, 500)

enum err_kind {
#define X(kind, status) ERR_##kind,
    ERR_KINDS(X)
#undef X
};

struct err {
    enum err_kind kind;
    char message[1024]; /* UTF-8, cut at a character's border when longer */
};

/* Fills *err (which may be NULL) and returns false, so that `return err_set(...)` reports and leaves. */
bool err_set(struct err *err, enum err_kind kind, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "context: " before the message that is there; returns false. */
bool err_prefix(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* "INVALID", and 422. */
const char *err_kind_name(enum err_kind kind);
int err_http_status(enum err_kind kind);

#endif
