/* sse.h - reads server-sent events (HTML Living Standard, section 9.2.6) from bytes as they arrive. */
#ifndef RFUAV_CLI_SSE_H
#define RFUAV_CLI_SSE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

enum { SSE_ID_SIZE = 64 };

struct sse {
    struct buf line, data;
    char id[SSE_ID_SIZE]; /* of the last event that carried one: what Last-Event-ID takes; "" before any */
    long retry_ms;        /* what the server asked for; negative: nothing */
};

void sse_init(struct sse *sse);
void sse_release(struct sse *sse);

/* Forgets a half-read event, as after a broken connection; keeps `id` and `retry_ms`. */
void sse_reset(struct sse *sse);

/* Takes the next bytes and calls on_event(arg, text) for every event that they complete. Stops and returns false when
 * on_event does, or when one event is longer than a log line can be (1 MiB). */
bool sse_feed(struct sse *sse, const char *bytes, size_t size, bool (*on_event)(void *arg, const char *data),
              void *arg);

#endif
