/* buf.c - see buf.h */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_init(struct buf *buf, size_t max)
{
    *buf = (struct buf){.max = max};
}

void buf_release(struct buf *buf)
{
    free(buf->data);
    buf_init(buf, buf->max);
}

void buf_clear(struct buf *buf)
{
    buf->size = 0;
    buf->failed = false;
    if (buf->data)
        buf->data[0] = '\0';
}

/* Makes room for `extra` more bytes and the NUL. */
static bool reserve(struct buf *buf, size_t extra)
{
    size_t capacity = buf->capacity ? buf->capacity : 256;
    char *data;

    if (buf->failed)
        return false;
    if (extra > buf->max - buf->size) {
        buf->failed = true;
        return false;
    }
    if (buf->size + extra + 1 <= buf->capacity)
        return true;
    while (capacity < buf->size + extra + 1)
        capacity *= 2;
    data = realloc(buf->data, capacity);
    if (!data) {
        buf->failed = true;
        return false;
    }
    buf->data = data;
    buf->capacity = capacity;
    return true;
}

void buf_append(struct buf *buf, const void *data, size_t size)
{
    if (!reserve(buf, size))
        return;
    if (size)
        memcpy(buf->data + buf->size, data, size);
    buf->size += size;
    buf->data[buf->size] = '\0';
}

void buf_puts(struct buf *buf, const char *text)
{
    buf_append(buf, text, strlen(text));
}

void buf_printf(struct buf *buf, const char *fmt, ...)
{
    va_list args;
    int length;

    va_start(args, fmt);
    length = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (length < 0 || !reserve(buf, (size_t)length)) {
        buf->failed = true;
        return;
    }
    va_start(args, fmt);
    vsnprintf(buf->data + buf->size, (size_t)length + 1, fmt, args);
    va_end(args);
    buf->size += (size_t)length;
}

void buf_json_string(struct buf *buf, const char *text)
{
    const char *start = text;

    if (!text) {
        buf_puts(buf, "null");
        return;
    }
    buf_puts(buf, "\"");
    for (;; text++) {
        unsigned char c = (unsigned char)*text;

        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        buf_append(buf, start, (size_t)(text - start));
        start = text + 1;
        if (!c)
            break;
        if (c == '"' || c == '\\')
            buf_printf(buf, "\\%c", c);
        else if (c == '\n')
            buf_puts(buf, "\\n");
        else if (c == '\t')
            buf_puts(buf, "\\t");
        else
            buf_printf(buf, "\\u%04x", c);
    }
    buf_puts(buf, "\"");
}

char *buf_detach(struct buf *buf, size_t *ret_size)
{
    char *data;

    if (!reserve(buf, 0)) {
        buf_release(buf);
        return NULL;
    }
    data = buf->data;
    data[buf->size] = '\0';
    if (ret_size)
        *ret_size = buf->size;
    buf_init(buf, buf->max);
    return data;
}
