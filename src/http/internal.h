/* internal.h - inside http: what a server, a request and a stream are made of. */
#ifndef RFUAV_HTTP_INTERNAL_H
#define RFUAV_HTTP_INTERNAL_H

#include <microhttpd.h>
#include <stdint.h>

#include "http/http.h"

enum {
    HTTP_BODY_MAX = 4 << 20,      /* more is 413 */
    HTTP_BODY_DISCARD = 64 << 20, /* read and thrown away, so that the client gets to see the 413 */
    HTTP_BODIES_MAX = 256 << 20,  /* of all requests under way; more is 503 */
    HTTP_ARENA_MAX = 64 << 20,    /* of one request */
    HTTP_IDLE_SECONDS = 60,       /* a connection on which nothing moves */
    HTTP_POOL = 16 << 10,         /* of a connection: headers, and a piece of body or answer */
    HTTP_URI_INLINE = 256,
};

struct http_header_line {
    const char *name, *value;
    struct http_header_line *next;
};

struct http_request {
    struct http_server *server;
    struct MHD_Connection *connection;
    const struct http_route *route;
    struct arena *arena; /* made at first use */
    char *uri;           /* decoded path, NUL, query as sent */
    const char *query, *param;
    json_t *query_json;
    struct buf body;
    size_t received; /* bytes of the body, kept or not */
    const char *method, *origin;
    struct http_header_line *headers;
    enum { HTTP_NEW, HTTP_READING, HTTP_HELD, HTTP_ANSWERED } state;
    int refusal; /* status that is answered once the body has been thrown away; 0: none */
    bool queued; /* MHD took the answer */
    struct http_request *next_free, *next_held;
    char uri_inline[HTTP_URI_INLINE];
};

struct http_server {
    struct http_options options;
    struct MHD_Daemon *daemon;
    struct route_tree *routes;
    int port, listener;
    uv_poll_t poll;
    uv_timer_t tick, soon;
    int handles; /* of libuv, still open */
    bool closing;
    size_t body_bytes;
    struct http_request *free_requests, *held;
    size_t free_count;
    struct http_stream *streams;
    size_t stream_count;
    char url[300];
};

struct http_page {
    struct MHD_Response *response;
    const char *type;
    size_t size;
    char data[];
};

/* ---- route.c ---- */

struct route_tree;
struct route_tree *route_tree_new(const struct http_route *routes, size_t n); /* NULL without memory */
struct route_tree *route_tree_free(struct route_tree *tree);

/* The route of a decoded path, *ret_param its parameter's value ("" without): a part of `path`, which is cut at its
 * end. When the path is known but not with this method, NULL, and *ret_other is the path's first route. */
const struct http_route *route_find(const struct route_tree *tree, const char *method, char *path,
                                    const char **ret_param, const struct http_route **ret_other);

/* ---- uri.c ---- */

/* Decodes %XX (and + when `plus`) in place; what is no UTF-8, and NUL, become '?'. Returns the new length. */
size_t uri_decode(char *text, size_t size, bool plus);
json_t *uri_query(const char *query, struct arena *arena); /* NULL without memory */

/* ---- reply.c ---- */

void http_reply_preflight(struct http_request *request, const char *headers);

/* Adds the CORS and other headers and queues the response, dropping the caller's reference. */
void http_queue(struct http_request *request, int status, struct MHD_Response *response);

/* ---- request.c ---- */

/* The request's transport answer (preflight, redirect, 404, 405, 401), or false: the route's handler is to be called.
 * Called when the headers are there, and again (with the same outcome) when the body is. */
bool http_answer_transport(struct http_request *request);

/* ---- server.c ---- */

void http_server_run_soon(struct http_server *server);
void http_server_handle_closed(struct http_server *server); /* one of the libuv handles is gone */

/* ---- stream.c ---- */

void http_streams_tick(struct http_server *server); /* once a second */
void http_streams_end(struct http_server *server);

#endif
