/* sse.c - see sse.h */
#include "cli/sse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVENT_MAX = 1 << 20 };

void sse_init(struct sse *sse)
{
    *sse = (struct sse){.retry_ms = -1};
    buf_init(&sse->line, EVENT_MAX);
    buf_init(&sse->data, EVENT_MAX);
}

void sse_release(struct sse *sse)
{
    buf_release(&sse->line);
    buf_release(&sse->data);
}

void sse_reset(struct sse *sse)
{
    buf_clear(&sse->line);
    buf_clear(&sse->data);
}

static bool dispatch(struct sse *sse, bool (*on_event)(void *arg, const char *data), void *arg)
{
    bool go_on = true;

    if (sse->data.size > 0) {
        sse->data.data[sse->data.size - 1] = '\0'; /* the line feed after the last line */
        go_on = on_event(arg, sse->data.data);
    }
    buf_clear(&sse->data);
    return go_on;
}

/* One line without its end: "field: value", ": comment", or empty, which ends an event. */
static bool take_line(struct sse *sse, bool (*on_event)(void *arg, const char *data), void *arg)
{
    char *line = sse->line.size ? sse->line.data : (char[]){""};
    char *value = strchr(line, ':');

    if (*line == '\0')
        return dispatch(sse, on_event, arg);
    if (!value)
        value = line + strlen(line); /* a field alone: its value is empty */
    else
        *value++ = '\0';
    if (*value == ' ')
        value++;
    if (strcmp(line, "data") == 0) {
        buf_puts(&sse->data, value);
        buf_puts(&sse->data, "\n");
    } else if (strcmp(line, "id") == 0) {
        snprintf(sse->id, sizeof sse->id, "%s", value);
    } else if (strcmp(line, "retry") == 0) {
        sse->retry_ms = strtol(value, NULL, 10);
    }
    return !sse->data.failed;
}

bool sse_feed(struct sse *sse, const char *bytes, size_t size, bool (*on_event)(void *arg, const char *data), void *arg)
{
    while (size > 0) {
        const char *end = memchr(bytes, '\n', size);
        size_t length = end ? (size_t)(end - bytes) : size;

        buf_append(&sse->line, bytes, length);
        if (sse->line.failed)
            return false;
        if (!end)
            return true;
        if (sse->line.size && sse->line.data[sse->line.size - 1] == '\r')
            sse->line.data[--sse->line.size] = '\0';
        if (!take_line(sse, on_event, arg))
            return false;
        buf_clear(&sse->line);
        bytes += length + 1;
        size -= length + 1;
    }
    return true;
}
