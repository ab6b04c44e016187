/* api_logs.c - logs as event streams: what is there, what comes, the final event. A reader has a cursor into the store
 * and nothing else, so any number of them see every line, and a slow one costs no memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"
#include "server/api_internal.h"

enum { LINES_AT_ONCE = 256 };

struct log_reader {
    struct store_watch watch; /* first: the store's callbacks get it */
    struct api *api;
    struct http_stream *stream;
    int64_t seq, next; /* the task, and the line that comes next */
    bool events;       /* an event stream; else a JSON array of what is there */
    bool begun, deleted;
    struct buf *out; /* while reading */
    size_t read;
    char id[];
};

static void on_line(struct store_watch *watch, int64_t n, const char *line, size_t size)
{
    (void)n;
    (void)line;
    (void)size;
    http_stream_wake(((struct log_reader *)watch)->stream);
}

static void on_ended(struct store_watch *watch, bool deleted)
{
    struct log_reader *reader = (struct log_reader *)watch;

    reader->deleted = deleted;
    http_stream_wake(reader->stream);
}

/* The first event of a stream says how soon a reader that was cut off may come again. */
static void begin_event(struct log_reader *reader)
{
    if (!reader->begun)
        buf_puts(reader->out, "retry: 3000\n");
    reader->begun = true;
}

static bool on_event(void *arg, int64_t n, const char *line, size_t size)
{
    struct log_reader *reader = arg;

    begin_event(reader);
    buf_printf(reader->out, "id: %lld\ndata: ", (long long)n);
    buf_append(reader->out, line, size);
    buf_puts(reader->out, "\n\n");
    reader->next = n + 1;
    reader->read++;
    return reader->out->size < HTTP_STREAM_CHUNK;
}

static bool on_item(void *arg, int64_t n, const char *line, size_t size)
{
    struct log_reader *reader = arg;

    buf_puts(reader->out, reader->begun ? "," : "[");
    buf_append(reader->out, line, size);
    reader->begun = true;
    reader->next = n + 1;
    reader->read++;
    return reader->out->size < HTTP_STREAM_CHUNK;
}

static void on_final(void *arg, const struct store_task *task)
{
    struct log_reader *reader = arg;

    if (task->seq != reader->seq)
        return; /* deleted, and the id given again */
    begin_event(reader);
    buf_printf(reader->out, "data: {\"status\": \"%s\", \"message\": ", task_state_name(task->state));
    buf_json_string(reader->out, tr("任务结束", "task ended"));
    buf_puts(reader->out, "}\n\n");
}

static enum http_stream_state next_events(void *arg, struct buf *out)
{
    struct log_reader *reader = arg;
    struct store *store = reader->api->options.store;
    bool open = store_log_is_open(store, reader->seq);
    struct err err;

    if (reader->deleted)
        return HTTP_STREAM_END;
    reader->out = out;
    reader->read = 0;
    if (!store_log_read(store, reader->seq, reader->next, LINES_AT_ONCE, on_event, reader, &err))
        return HTTP_STREAM_END;
    if (reader->read)
        return HTTP_STREAM_MORE;
    if (open)
        return HTTP_STREAM_WAIT;
    store_find(store, reader->id, on_final, reader, NULL);
    return HTTP_STREAM_END;
}

static enum http_stream_state next_items(void *arg, struct buf *out)
{
    struct log_reader *reader = arg;
    struct err err;

    reader->out = out;
    reader->read = 0;
    if (!reader->deleted &&
        store_log_read(reader->api->options.store, reader->seq, reader->next, LINES_AT_ONCE, on_item, reader, &err) &&
        reader->read)
        return HTTP_STREAM_MORE;
    buf_puts(out, reader->begun ? "]" : "[]");
    return HTTP_STREAM_END;
}

static void closed(void *arg)
{
    struct log_reader *reader = arg;

    store_unwatch(&reader->watch);
    free(reader);
}

/* Is application/json what the client would like best, that is, names first? */
static bool wants_array(const struct http_request *request)
{
    static const char type[] = "application/json";
    const char *accept = http_header(request, "Accept");

    if (!accept)
        return false;
    accept += strspn(accept, " \t");
    return !strncasecmp(accept, type, sizeof type - 1) && strchr(",; \t", accept[sizeof type - 1]);
}

/* Where a reconnecting reader goes on: after the line that it saw last. */
static int64_t first_line(const struct http_request *request)
{
    const char *text = http_header(request, "Last-Event-ID");
    char *end;
    long long last;

    if (!text || !*text)
        return 1;
    last = strtoll(text, &end, 10);
    return *end || last < 0 || last == INT64_MAX ? 1 : last + 1;
}

static void stream_log(struct http_request *request, struct api *api, const char *kind)
{
    static const struct http_stream_source events = {.next = next_events, .closed = closed, .ping = true};
    static const struct http_stream_source items = {.next = next_items, .closed = closed};
    const char *id = http_param(request);
    struct log_reader *reader;
    int64_t seq;

    if (!api_find_task(request, api, kind, api_missing(), &seq))
        return;
    reader = calloc(1, sizeof *reader + strlen(id) + 1);
    if (!reader)
        return;
    memcpy(reader->id, id, strlen(id) + 1);
    reader->api = api;
    reader->seq = seq;
    reader->events = !wants_array(request);
    reader->next = reader->events ? first_line(request) : 1;
    reader->watch.line = on_line;
    reader->watch.ended = on_ended;
    reader->stream = http_stream_open(request, reader->events ? "text/event-stream; charset=utf-8" : "application/json",
                                      reader->events ? &events : &items, reader);
    if (reader->stream)
        store_watch(api->options.store, seq, &reader->watch);
    else
        free(reader);
}

void api_task_logs(struct http_request *request, void *app)
{
    stream_log(request, app, NULL);
}

void api_training_logs(struct http_request *request, void *app)
{
    stream_log(request, app, "training");
}
