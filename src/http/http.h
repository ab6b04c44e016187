/* http.h - an HTTP/1.1 server in the event loop: a table of routes, JSON bodies and answers, event streams. It knows
 * the transport rules of the contract (methods, slashes, CORS, content types, sizes, keys) and no task.
 *
 * A handler is called once, when the whole body is there, and must answer before it returns: by one of the
 * http_reply functions or by http_stream_open(), or put the answer off by http_hold(). Nothing of a request may be used
 * after it has been answered and its handler has returned. */
#ifndef RFUAV_HTTP_HTTP_H
#define RFUAV_HTTP_HTTP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/fields.h"

struct http_server;
struct http_request;
struct http_stream;
struct http_page;

typedef void http_handler(struct http_request *request, void *app);

enum http_route_flags {
    HTTP_PUBLIC = 1 << 0, /* needs no API key */
    HTTP_HIDDEN = 1 << 1, /* not in the OpenAPI document */
};

/* Fixed names are looked at before parameters, then the order of the table counts. */
struct http_route {
    const char *method, *path; /* "GET", "/api/v2/tasks/{task_id}/logs": at most one parameter, a whole segment */
    http_handler *handle;
    unsigned flags;

    /* for the OpenAPI document */
    const char *tag, *name, *summary; /* "Tasks", "get_task", one line */
    const struct field_table *body;   /* NULL: none */
    const struct field_table *query;  /* NULL: none */
    const char *answer;               /* schema of the 200 answer; NULL: any JSON, or no JSON */
};

struct http_options {
    uv_loop_t *loop;
    const char *host; /* a name or an address */
    int port;         /* 0: a free one, see http_server_port() */
    const struct http_route *routes;
    size_t route_count;
    void *app;                       /* handed to the handlers */
    void (*answer_held)(void *app);  /* see http_hold(); NULL: nothing is held */
    const char *api_key;             /* NULL or "": none is needed */
    struct string_list cors_origins; /* "*": all */
};

/* Listens. The options' texts and routes must outlive the server. */
bool http_server_start(const struct http_options *options, struct http_server **ret, struct err *err);
int http_server_port(const struct http_server *server);
size_t http_server_streams(const struct http_server *server); /* event streams that are open now */

/* Stops listening, ends the streams, closes all connections; frees itself in the loop's later turns. */
void http_server_close(struct http_server *server);

/* ---- the request ---- */

const char *http_param(const struct http_request *request);      /* the decoded {…} of the path, UTF-8; "" without */
const char *http_query_text(const struct http_request *request); /* as sent, after the '?'; "" without */
const json_t *http_query(struct http_request *request);          /* object of strings, decoded, last of equal names */
const char *http_header(const struct http_request *request, const char *name); /* NULL: not sent */
struct arena *http_arena(struct http_request *request);                        /* freed after the answer */

/* Reads the query or the body by a table. On faults it has answered (422, or 400 for what is no UTF-8) and returns
 * false. */
bool http_read_query(struct http_request *request, const struct field_table *table, void *out);
bool http_read_body(struct http_request *request, const struct field_table *table, void *out);

/* The value that was sent as the body: NULL when there was none, a string when it was not sent as JSON. False: no
 * JSON at all, answered. Borrowed. */
bool http_body_json(struct http_request *request, const json_t **ret);

/* ---- the answer ---- */

/* Puts the answer off until all requests that have arrived together are handled: then options.answer_held() is called,
 * once, and must answer every request that is held. So that many can share one write to the disk. */
void http_hold(struct http_request *request);

/* Adds a header to the answer that follows; the texts are copied. */
void http_add_header(struct http_request *request, const char *name, const char *value);

void http_reply(struct http_request *request, int status, const char *type, const void *data, size_t size); /* copies */
void http_reply_buf(struct http_request *request, int status, struct buf *json); /* takes the bytes, empties the buf */
void http_reply_json(struct http_request *request, int status, json_t *value);   /* takes the reference */
void http_reply_detail(struct http_request *request, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));                                /* {"detail": text} */
void http_reply_err(struct http_request *request, const struct err *err); /* the kind's status, the message */
void http_reply_faults(struct http_request *request, json_t *faults);     /* 422; takes the reference */

/* A prepared answer with status 200 that many requests get; NULL without memory. The page may be freed while answers
 * are on their way. */
struct http_page *http_page_new(const char *type, const void *data, size_t size);
struct http_page *http_page_free(struct http_page *page); /* accepts and returns NULL */
void http_reply_page(struct http_request *request, const struct http_page *page);

/* ---- streams ---- */

enum http_stream_state {
    HTTP_STREAM_MORE, /* call again when what was appended is on its way */
    HTTP_STREAM_WAIT, /* nothing more for now: http_stream_wake() */
    HTTP_STREAM_END,  /* that was all */
};

/* A stream pulls what it sends, when the client takes it: nothing queues up for slow readers. */
struct http_stream_source {
    /* Appends the next bytes to `out` (empty, at most HTTP_STREAM_CHUNK are wanted, more are taken). */
    enum http_stream_state (*next)(void *arg, struct buf *out);
    void (*closed)(void *arg); /* the last call, also when the client has gone */
    bool ping;                 /* send ": ping" comments to an idle client */
};
enum { HTTP_STREAM_CHUNK = 64 * 1024, HTTP_STREAM_PING_SECONDS = 15 };

/* Answers with a stream. type: "text/event-stream; charset=utf-8". NULL: answered otherwise (no memory); closed() is
 * not called then. */
struct http_stream *http_stream_open(struct http_request *request, const char *type,
                                     const struct http_stream_source *source, void *arg);
void http_stream_wake(struct http_stream *stream);

#endif
