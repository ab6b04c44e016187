/* request.c - what a request says: headers, query, body; and the answers that need no handler. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"
#include "http/internal.h"

const char *http_param(const struct http_request *request)
{
    return request->param;
}

const char *http_query_text(const struct http_request *request)
{
    return request->query;
}

const char *http_header(const struct http_request *request, const char *name)
{
    return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

struct arena *http_arena(struct http_request *request)
{
    if (!request->arena)
        request->arena = arena_new(HTTP_ARENA_MAX);
    return request->arena;
}

const json_t *http_query(struct http_request *request)
{
    if (!request->query_json && http_arena(request))
        request->query_json = uri_query(request->query, request->arena);
    return request->query_json;
}

static void reply_no_memory(struct http_request *request)
{
    http_reply_detail(request, 500, "%s", tr("内存不足", "no memory"));
}

/* Reads by the table; answers the faults. */
static bool read_fields(struct http_request *request, const struct field_table *table, const json_t *in,
                        const char *where, void *out)
{
    struct arena *arena = http_arena(request);
    json_t *faults = json_array();

    if (!arena || !faults) {
        json_decref(faults);
        reply_no_memory(request);
        return false;
    }
    if (fields_read(table, in, where, out, arena, faults)) {
        json_decref(faults);
        return true;
    }
    http_reply_faults(request, faults);
    return false;
}

bool http_read_query(struct http_request *request, const struct field_table *table, void *out)
{
    const json_t *query = http_query(request);

    if (!query) {
        reply_no_memory(request);
        return false;
    }
    return read_fields(request, table, query, "query", out);
}

bool http_read_body(struct http_request *request, const struct field_table *table, void *out)
{
    const json_t *body;

    return http_body_json(request, &body) && read_fields(request, table, body, "body", out);
}

/* application/json or application/anything+json, whatever parameters follow; so is a body without a type. */
static bool is_json_type(const char *type)
{
    static const char family[] = "application/";
    size_t length;

    if (!type || !*type)
        return true;
    type += strspn(type, " \t");
    length = strcspn(type, "; \t");
    if (length < sizeof family - 1 || strncasecmp(type, family, sizeof family - 1) != 0)
        return false;
    type += sizeof family - 1;
    length -= sizeof family - 1;
    return (length == 4 && !strncasecmp(type, "json", 4)) ||
           (length > 5 && !strncasecmp(type + length - 5, "+json", 5));
}

/* The place of a parser's error in characters. The parser stands behind the token that it names with near '…'. */
static size_t error_offset(const char *data, size_t size, const json_error_t *error)
{
    size_t at = error->position > 0 ? (size_t)error->position : 0, characters = 0;
    const char *near = strstr(error->text, " near '"), *end = near ? strrchr(near, '\'') : NULL;

    if (near && end > near + 7 && at >= (size_t)(end - near - 7))
        at -= (size_t)(end - near - 7);
    for (size_t i = 0; i < at && i < size; i++)
        characters += ((unsigned char)data[i] & 0xC0) != 0x80;
    return characters;
}

static void reply_json_invalid(struct http_request *request, size_t offset, const char *text)
{
    json_t *fault = json_pack("{s:s, s:[s,I], s:s, s:{}, s:{s:s}}", "type", "json_invalid", "loc", "body",
                              (json_int_t)offset, "msg", "JSON decode error", "input", "ctx", "error",
                              text_is_utf8(text, strlen(text)) ? text : "invalid JSON");

    http_reply_faults(request, json_pack("[o]", fault));
}

static void release_json(void *value)
{
    json_decref(value);
}

/* As text_is_utf8(), but NUL is a character like others: what it may do is the parser's business. */
static bool body_is_utf8(const char *data, size_t size)
{
    const char *end = data + size, *nul;

    for (; data < end; data = nul + 1) {
        nul = memchr(data, '\0', (size_t)(end - data));
        if (!nul)
            nul = end;
        if (!text_is_utf8(data, (size_t)(nul - data)))
            return false;
    }
    return true;
}

bool http_body_json(struct http_request *request, const json_t **ret)
{
    const char *data = request->body.data;
    size_t size = request->body.size;
    struct arena *arena = http_arena(request);
    json_error_t error;
    json_t *value;

    if (!arena) {
        reply_no_memory(request);
        return false;
    }
    if (!size) {
        *ret = NULL;
        return true;
    }
    if (!body_is_utf8(data, size)) {
        http_reply_detail(request, 400, "There was an error parsing the body");
        return false;
    }
    if (!is_json_type(http_header(request, "Content-Type"))) {
        value = json_stringn_nocheck(data, size);
    } else {
        if (size >= 3 && !memcmp(data, "\xEF\xBB\xBF", 3)) {
            data += 3;
            size -= 3;
        }
        value = json_loadb(data, size, JSON_DECODE_ANY, &error);
        if (!value && json_error_code(&error) == json_error_numeric_overflow)
            value = json_loadb(data, size, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, &error);
        if (!value) {
            reply_json_invalid(request, error_offset(data, size, &error), error.text);
            return false;
        }
    }
    if (!value || !arena_defer(arena, release_json, value)) {
        reply_no_memory(request);
        return false;
    }
    *ret = value;
    return true;
}

/* ---- answers without a handler ---- */

/* Takes the same time wherever the first difference is. */
static bool keys_equal(const char *a, const char *b)
{
    size_t na = strlen(a), nb = strlen(b);
    unsigned char difference = na != nb;

    for (size_t i = 0; i < na; i++)
        difference |= (unsigned char)(a[i] ^ b[nb ? i % nb : 0]);
    return !difference;
}

static bool has_key(const struct http_request *request)
{
    const char *key = request->server->options.api_key, *sent = http_header(request, "X-API-Key");
    const char *authorization = http_header(request, "Authorization");

    if (sent && keys_equal(sent, key))
        return true;
    return authorization && !strncasecmp(authorization, "Bearer ", 7) && keys_equal(authorization + 7, key);
}

static void reply_redirect(struct http_request *request, const char *path, size_t length)
{
    const char *host = http_header(request, "Host"), *query = request->query;
    char *location;

    if (host)
        location =
            arena_printf(http_arena(request), "http://%s%.*s%s%s", host, (int)length, path, *query ? "?" : "", query);
    else
        location = arena_printf(http_arena(request), "%s%.*s%s%s", request->server->url, (int)length, path,
                                *query ? "?" : "", query);
    if (location)
        http_add_header(request, "location", location);
    http_reply(request, 307, NULL, "", 0);
}

/* Does the path lead to a route once the slashes at its end are gone? Then *ret_length is how long it is without. */
static bool known_without_slash(const struct http_request *request, size_t *ret_length)
{
    const struct http_route *other;
    size_t length = strlen(request->uri);
    const char *param;
    char *copy;
    bool known;

    if (length < 2 || request->uri[length - 1] != '/')
        return false;
    while (length > 1 && request->uri[length - 1] == '/')
        length--;
    copy = arena_memdup(request->arena, request->uri, length + 1);
    if (!copy)
        return false;
    copy[length] = '\0';
    known = route_find(request->server->routes, request->method, copy, &param, &other) || other;
    *ret_length = length;
    return known;
}

/* "/a%20b/" is redirected to "/a%20b": the path is encoded again. */
static const char *encode_path(struct http_request *request, size_t *length)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/-._~:@!$&'()*+,;=";
    char *encoded = arena_alloc(request->arena, *length * 3 + 1);
    size_t n = 0;

    for (size_t i = 0; encoded && i < *length; i++) {
        unsigned char c = (unsigned char)request->uri[i];

        if (strchr(plain, c))
            encoded[n++] = (char)c;
        else
            n += (size_t)snprintf(encoded + n, 4, "%%%02X", c);
    }
    *length = n;
    return encoded ? encoded : "/";
}

bool http_answer_transport(struct http_request *request)
{
    const struct http_options *options = &request->server->options;
    const struct http_route *other = NULL;
    size_t length;

    if (request->origin && !strcmp(request->method, "OPTIONS")) {
        if (http_header(request, "Access-Control-Request-Method")) {
            http_reply_preflight(request, http_header(request, "Access-Control-Request-Headers"));
            return true;
        }
    }
    request->route = route_find(request->server->routes, request->method, request->uri, &request->param, &other);
    if (options->api_key && *options->api_key && !(request->route && request->route->flags & HTTP_PUBLIC) &&
        !has_key(request)) {
        http_add_header(request, "www-authenticate", "Bearer");
        http_reply_detail(request, 401, "%s",
                          tr("需要 API 密钥: Authorization: Bearer 或 X-API-Key",
                             "an API key is needed: Authorization: Bearer, or X-API-Key"));
        return true;
    }
    if (request->route)
        return false;
    if (other) {
        http_add_header(request, "allow", other->method);
        http_reply_detail(request, 405, "Method Not Allowed");
    } else if (http_arena(request) && known_without_slash(request, &length)) {
        const char *path = encode_path(request, &length);

        reply_redirect(request, path, length);
    } else {
        http_reply_detail(request, 404, "Not Found");
    }
    return true;
}
