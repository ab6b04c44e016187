/* err.c - see err.h */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Cuts a truncated UTF-8 text back to the end of its last whole character. */
static void trim_utf8(char *text, size_t size, int wanted)
{
    size_t n = size - 1;

    if (wanted < 0 || (size_t)wanted < size)
        return;
    while (n > 0 && ((unsigned char)text[n - 1] & 0xC0) == 0x80)
        n--;
    if (n > 0 && ((unsigned char)text[n - 1] & 0x80))
        n--;
    text[n] = '\0';
}

bool err_set(struct err *err, enum err_kind kind, const char *fmt, ...)
{
    va_list args;

    if (!err)
        return false;
    err->kind = kind;
    va_start(args, fmt);
    trim_utf8(err->message, sizeof err->message, vsnprintf(err->message, sizeof err->message, fmt, args));
    va_end(args);
    return false;
}

bool err_prefix(struct err *err, const char *fmt, ...)
{
    char prefix[512], text[sizeof err->message];
    va_list args;

    if (!err)
        return false;
    va_start(args, fmt);
    trim_utf8(prefix, sizeof prefix, vsnprintf(prefix, sizeof prefix, fmt, args));
    va_end(args);
    trim_utf8(text, sizeof text, snprintf(text, sizeof text, "%s: %s", prefix, err->message));
    memcpy(err->message, text, sizeof text);
    return false;
}

const char *err_kind_name(enum err_kind kind)
{
    static const char *const names[] = {
#define X(kind, status) #kind,
        ERR_KINDS(X)
#undef X
    };

    return names[kind];
}

int err_http_status(enum err_kind kind)
{
    static const int statuses[] = {
#define X(kind, status) status,
        ERR_KINDS(X)
#undef X
    };

    return statuses[kind];
}
