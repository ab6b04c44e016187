/* http_client.h - a small blocking HTTP/1.1 client for the subcommands: one connection a request, bodies by length,
 * chunked or until the end of the connection, and server-sent events. Plain http only. Not thread-safe.
 * Errors: ERR_NOT_FOUND when nobody answers at the address, ERR_IO when the conversation breaks. */
#ifndef RFUAV_CLI_HTTP_CLIENT_H
#define RFUAV_CLI_HTTP_CLIENT_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"
#include "cli/sse.h"

struct http_client;

/* url: "http://host[:port][/prefix]"; api_key: NULL or "" for none. */
bool http_client_new(const char *url, const char *api_key, struct http_client **ret, struct err *err);
struct http_client *http_client_free(struct http_client *client); /* accepts and returns NULL */

/* The address as "http://host:port", for messages. */
const char *http_client_url(const struct http_client *client);

/* Is the service on this machine (so that its paths are our paths)? */
bool http_client_is_local(const struct http_client *client);

/* Sends one request and reads the whole answer, at most 64 MiB, into *body (initialised by the caller, emptied first).
 * accept: NULL for JSON. json: the body or NULL. Any status is a success here. */
bool http_client_request(struct http_client *client, const char *method, const char *path, const char *accept,
                         const char *json, int *ret_status, struct buf *body, struct err *err);

/* What a reader of a stream does; each returns false to leave. */
struct http_stream_reader {
    bool (*event)(void *arg, const char *data); /* one event's data */
    bool (*tick)(void *arg);                    /* at least twice a second, and after a signal */
    void *arg;
};

/* Opens a stream of events and reads it until it ends, breaks (ERR_IO) or the reader leaves. *sse keeps the last
 * event's id over several calls, sent as Last-Event-ID. With a status other than 200 the body is in *body. */
bool http_client_stream(struct http_client *client, const char *path, struct sse *sse,
                        const struct http_stream_reader *reader, int *ret_status, struct buf *body, struct err *err);

#endif
