/* stream.c - answers that go on: event streams. A stream is asked for its next bytes when the client can take them;
 * with nothing to send its connection is suspended, so an idle stream costs no time. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "http/internal.h"

struct http_stream {
    struct http_server *server;
    struct MHD_Connection *connection;
    struct http_stream_source source;
    void *arg;
    struct buf out; /* fetched from the source, sent up to `sent` */
    size_t sent;
    bool opened, suspended, ping_due, ended, quit;
    double last_sent;
    uv_poll_t hangup; /* a suspended connection is not watched by MHD: the client's leaving would go unseen */
    bool watching;
    struct http_stream *next, **link;
};

static const char ping[] = ": ping\n\n";

static ssize_t copy_out(struct http_stream *stream, char *data, size_t max)
{
    size_t size = stream->out.size - stream->sent;

    if (size > max)
        size = max;
    memcpy(data, stream->out.data + stream->sent, size);
    stream->sent += size;
    stream->last_sent = clock_seconds();
    return (ssize_t)size;
}

/* MHD asks for bytes. */
static ssize_t pull(void *cls, uint64_t position, char *data, size_t max)
{
    struct http_stream *stream = cls;

    (void)position;
    if (stream->sent < stream->out.size)
        return copy_out(stream, data, max);
    if (stream->ended || stream->quit)
        return MHD_CONTENT_READER_END_OF_STREAM;
    buf_clear(&stream->out);
    stream->sent = 0;
    for (;;) {
        enum http_stream_state state = stream->source.next(stream->arg, &stream->out);

        if (stream->out.failed)
            return MHD_CONTENT_READER_END_WITH_ERROR;
        stream->ended = state == HTTP_STREAM_END;
        if (stream->out.size)
            return copy_out(stream, data, max);
        if (stream->ended)
            return MHD_CONTENT_READER_END_OF_STREAM;
        if (state == HTTP_STREAM_WAIT)
            break;
    }
    if (stream->ping_due) {
        stream->ping_due = false;
        buf_append(&stream->out, ping, sizeof ping - 1);
        return copy_out(stream, data, max);
    }
    stream->suspended = true;
    MHD_suspend_connection(stream->connection);
    return 0;
}

static void resume(struct http_stream *stream)
{
    if (!stream->suspended)
        return;
    stream->suspended = false;
    MHD_resume_connection(stream->connection);
    http_server_run_soon(stream->server);
}

static void stream_freed(uv_handle_t *handle)
{
    struct http_stream *stream = handle->data;
    struct http_server *server = stream->server;

    buf_release(&stream->out);
    free(stream);
    http_server_handle_closed(server);
}

/* MHD is done with the answer: all sent, or the client has gone. */
static void release(void *cls)
{
    struct http_stream *stream = cls;
    struct http_server *server = stream->server;

    if (stream->opened)
        stream->source.closed(stream->arg);
    *stream->link = stream->next;
    if (stream->next)
        stream->next->link = stream->link;
    server->stream_count--;
    if (stream->watching) {
        uv_close((uv_handle_t *)&stream->hangup, stream_freed);
        return;
    }
    buf_release(&stream->out);
    free(stream);
}

static void on_hangup(uv_poll_t *poll, int status, int events)
{
    struct http_stream *stream = poll->data;

    (void)status;
    (void)events;
    uv_poll_stop(poll);
    stream->quit = true;
    resume(stream);
}

static void watch_hangup(struct http_stream *stream)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(stream->connection, MHD_CONNECTION_INFO_CONNECTION_FD);

    if (!info || uv_poll_init(stream->server->options.loop, &stream->hangup, info->connect_fd))
        return;
    stream->hangup.data = stream;
    stream->watching = true;
    stream->server->handles++;
    uv_poll_start(&stream->hangup, UV_DISCONNECT, on_hangup);
}

struct http_stream *http_stream_open(struct http_request *request, const char *type,
                                     const struct http_stream_source *source, void *arg)
{
    enum { BLOCK = 16 * 1024, OUT_MAX = 16 << 20 };
    struct http_server *server = request->server;
    struct http_stream *stream = calloc(1, sizeof *stream);
    struct MHD_Response *response =
        stream ? MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, pull, stream, release) : NULL;

    if (!response) {
        free(stream);
        http_reply(request, 500, "text/plain; charset=utf-8", "Internal Server Error", 21);
        return NULL;
    }
    stream->server = server;
    stream->connection = request->connection;
    stream->source = *source;
    stream->arg = arg;
    stream->last_sent = clock_seconds();
    buf_init(&stream->out, OUT_MAX);
    stream->next = server->streams;
    stream->link = &server->streams;
    if (stream->next)
        stream->next->link = &stream->next;
    server->streams = stream;
    server->stream_count++;
    watch_hangup(stream);
    MHD_add_response_header(response, "content-type", type);
    MHD_add_response_header(response, "cache-control", "no-cache");
    MHD_add_response_header(response, "x-accel-buffering", "no");
    MHD_set_response_options(response, MHD_RF_SEND_KEEP_ALIVE_HEADER, MHD_RO_END);
    http_queue(request, 200, response);
    if (!request->queued)
        return NULL; /* released already */
    stream->opened = true;
    return stream;
}

void http_stream_wake(struct http_stream *stream)
{
    resume(stream);
}

void http_streams_tick(struct http_server *server)
{
    double due = clock_seconds() - HTTP_STREAM_PING_SECONDS;

    for (struct http_stream *stream = server->streams; stream; stream = stream->next)
        if (stream->suspended && stream->source.ping && stream->last_sent <= due) {
            stream->ping_due = true;
            resume(stream);
        }
}

void http_streams_end(struct http_server *server)
{
    for (struct http_stream *stream = server->streams; stream; stream = stream->next) {
        stream->quit = true;
        resume(stream);
    }
}
