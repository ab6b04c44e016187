/* reply.c - answers: bytes, JSON, errors, prepared pages, and the headers that go with every one of them. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "http/internal.h"

static const char type_json[] = "application/json";

/* JSON as the contract sends it: no blanks, UTF-8 as it is, numbers such as 0.05 not as 0.050000000000000003. */
enum { JSON_STYLE = JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15) };

/* ---- CORS ---- */

static bool origins_are_open(const struct http_server *server)
{
    const struct string_list *origins = &server->options.cors_origins;

    for (size_t i = 0; i < origins->count; i++)
        if (!strcmp(origins->items[i], "*"))
            return true;
    return false;
}

static bool origin_is_listed(const struct http_server *server, const char *origin)
{
    const struct string_list *origins = &server->options.cors_origins;

    for (size_t i = 0; i < origins->count; i++)
        if (!strcmp(origins->items[i], origin))
            return true;
    return false;
}

static void add_cors(struct http_request *request, struct MHD_Response *response)
{
    const char *origin = request->origin;
    bool open = origins_are_open(request->server);

    MHD_add_response_header(response, "access-control-allow-credentials", "true");
    if (open && !http_header(request, "Cookie")) {
        MHD_add_response_header(response, "access-control-allow-origin", "*");
    } else if (open || origin_is_listed(request->server, origin)) {
        MHD_add_response_header(response, "access-control-allow-origin", origin);
        MHD_add_response_header(response, "vary", "Origin");
    }
}

void http_reply_preflight(struct http_request *request, const char *headers)
{
    static const char methods[] = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";
    bool allowed = origins_are_open(request->server) || origin_is_listed(request->server, request->origin);
    const char *text = allowed ? "OK" : "Disallowed CORS origin";
    struct MHD_Response *response = MHD_create_response_from_buffer(strlen(text), (void *)text, MHD_RESPMEM_PERSISTENT);

    MHD_add_response_header(response, "content-type", "text/plain; charset=utf-8");
    MHD_add_response_header(response, "vary", "Origin");
    if (allowed)
        MHD_add_response_header(response, "access-control-allow-origin", request->origin);
    MHD_add_response_header(response, "access-control-allow-credentials", "true");
    MHD_add_response_header(response, "access-control-allow-methods", methods);
    MHD_add_response_header(response, "access-control-max-age", "600");
    if (headers)
        MHD_add_response_header(response, "access-control-allow-headers", headers);
    request->origin = NULL; /* its headers are there */
    http_queue(request, allowed ? 200 : 400, response);
}

/* ---- answers ---- */

void http_add_header(struct http_request *request, const char *name, const char *value)
{
    struct arena *arena = http_arena(request);
    struct http_header_line *line = arena ? arena_alloc(arena, sizeof *line) : NULL;

    if (!line)
        return;
    line->name = arena_strdup(arena, name);
    line->value = arena_strdup(arena, value);
    line->next = request->headers;
    if (line->name && line->value)
        request->headers = line;
}

static void hand_over(struct http_request *request, int status, struct MHD_Response *response)
{
    bool held = request->state == HTTP_HELD;

    request->state = HTTP_ANSWERED;
    request->queued = MHD_queue_response(request->connection, (unsigned)status, response) == MHD_YES;
    if (held)
        MHD_resume_connection(request->connection);
}

void http_queue(struct http_request *request, int status, struct MHD_Response *response)
{
    if (request->state == HTTP_ANSWERED || !response) {
        if (response)
            MHD_destroy_response(response);
        return;
    }
    for (struct http_header_line *line = request->headers; line; line = line->next)
        MHD_add_response_header(response, line->name, line->value);
    if (request->origin)
        add_cors(request, response);
    hand_over(request, status, response);
    MHD_destroy_response(response);
}

void http_reply(struct http_request *request, int status, const char *type, const void *data, size_t size)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(size, (void *)data, MHD_RESPMEM_MUST_COPY);

    if (response && type)
        MHD_add_response_header(response, "content-type", type);
    http_queue(request, status, response);
}

/* Takes over malloc'ed bytes of JSON; NULL: there was no memory for them. */
static void reply_owned(struct http_request *request, int status, char *data, size_t size)
{
    static const char failure[] = "{\"detail\":\"no memory for the answer\"}";
    struct MHD_Response *response;

    if (!data) {
        http_reply(request, 500, type_json, failure, sizeof failure - 1);
        return;
    }
    response = MHD_create_response_from_buffer(size, data, MHD_RESPMEM_MUST_FREE);
    if (!response)
        free(data);
    else
        MHD_add_response_header(response, "content-type", type_json);
    http_queue(request, status, response);
}

void http_reply_buf(struct http_request *request, int status, struct buf *json)
{
    size_t size = 0;
    char *data = buf_detach(json, &size);

    reply_owned(request, status, data, size);
}

void http_reply_json(struct http_request *request, int status, json_t *value)
{
    char *data = value ? json_dumps(value, JSON_STYLE) : NULL;

    json_decref(value);
    reply_owned(request, status, data, data ? strlen(data) : 0);
}

void http_reply_detail(struct http_request *request, int status, const char *fmt, ...)
{
    enum { MOST = 1 << 20 };
    char *text = NULL;
    struct buf json;
    va_list args;

    va_start(args, fmt);
    if (vasprintf(&text, fmt, args) < 0)
        text = NULL;
    va_end(args);
    for (char *p = text; p && !text_is_utf8(text, strlen(text)) && *p; p++)
        if (*p & 0x80)
            *p = '?'; /* a file's name in some older encoding */
    buf_init(&json, MOST);
    buf_puts(&json, "{\"detail\":");
    buf_json_string(&json, text);
    buf_puts(&json, "}");
    free(text);
    http_reply_buf(request, status, &json);
}

void http_reply_err(struct http_request *request, const struct err *err)
{
    http_reply_detail(request, err_http_status(err->kind), "%s", err->message);
}

void http_reply_faults(struct http_request *request, json_t *faults)
{
    enum { MOST = 1 << 20 };
    size_t n = json_array_size(faults);

    /* A fault repeats what was sent; a large body is not sent back many times. */
    for (size_t i = 0; request->body.size * n > MOST && i < n; i++)
        json_object_set_new(json_array_get(faults, i), "input", json_null());
    http_reply_json(request, 422, json_pack("{s:o}", "detail", faults));
}

/* ---- pages ---- */

struct http_page *http_page_new(const char *type, const void *data, size_t size)
{
    struct http_page *page = malloc(sizeof *page + size);

    if (!page)
        return NULL;
    memcpy(page->data, data, size);
    page->type = type;
    page->size = size;
    page->response = MHD_create_response_from_buffer(size, page->data, MHD_RESPMEM_MUST_COPY);
    if (!page->response || MHD_add_response_header(page->response, "content-type", type) != MHD_YES)
        return http_page_free(page);
    return page;
}

struct http_page *http_page_free(struct http_page *page)
{
    if (page && page->response)
        MHD_destroy_response(page->response);
    free(page);
    return NULL;
}

void http_reply_page(struct http_request *request, const struct http_page *page)
{
    /* answers with headers of their own cannot share one */
    if (request->origin || request->headers) {
        http_reply(request, 200, page->type, page->data, page->size);
        return;
    }
    if (request->state == HTTP_ANSWERED)
        return;
    hand_over(request, 200, page->response);
}
