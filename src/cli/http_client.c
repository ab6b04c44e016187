/* http_client.c - see http_client.h */
#include "cli/http_client.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/text.h"

enum {
    ANSWER_MAX = 64 << 20,
    ANSWER_TIMEOUT_MS = 60 * 1000, /* silence after which an answer is given up */
    STREAM_SILENCE_MS = 90 * 1000, /* likewise for a stream, which carries a comment every few seconds */
    TICK_MS = 500,
};

struct http_client {
    char host[256], port[8], prefix[256], url[300];
    char *api_key;
};

/* One connection, its bytes that were received and not yet taken, and how its body ends. */
struct connection {
    int fd;
    char buffer[16 * 1024];
    size_t start, end;
    int status;
    enum { UNTIL_CLOSE, BY_LENGTH, CHUNKED } framing;
    uint64_t left;      /* bytes left of the body, or of this chunk */
    bool inside, ended; /* CHUNKED: a chunk has begun; the last one was seen */
};

enum io { IO_OK, IO_END, IO_TIMEOUT, IO_FAILED };

/* Address */

static bool bad_url(const char *url, struct err *err)
{
    return err_set(
        err, ERR_INVALID,
        tr("地址 \"%s\" 无效，应为 http://主机:端口", "the address \"%s\" is not of the form http://host:port"), url);
}

bool http_client_new(const char *url, const char *api_key, struct http_client **ret, struct err *err)
{
    struct http_client *client;
    const char *host = url, *end, *port = NULL;
    size_t host_length;
    bool bracketed;

    if (strncasecmp(url, "https://", 8) == 0)
        return err_set(err, ERR_INVALID,
                       tr("命令行不支持 https: %s", "the command line speaks plain http only, not %s"), url);
    if (strncasecmp(url, "http://", 7) == 0)
        host += 7;
    end = host + strcspn(host, "/?#");
    bracketed = *host == '[';
    for (const char *p = bracketed ? host + strcspn(host, "]") : host; p < end && !port; p++)
        if (*p == ':')
            port = p + 1;
    host_length = (size_t)((port ? port - 1 : end) - host);
    if (bracketed) {
        if (host_length < 2 || host[host_length - 1] != ']')
            return bad_url(url, err);
        host++;
        host_length -= 2;
    }
    client = calloc(1, sizeof *client);
    if (!client)
        return err_set(err, ERR_MEMORY, tr("内存不足", "out of memory"));
    if (host_length == 0 || host_length >= sizeof client->host || strlen(end) >= sizeof client->prefix ||
        strcspn(host, " \r\n\t") < host_length || (port && (end - port > 5 || end == port)) ||
        (port && strspn(port, "0123456789") != (size_t)(end - port))) {
        free(client);
        return bad_url(url, err);
    }
    snprintf(client->host, sizeof client->host, "%.*s", (int)host_length, host);
    snprintf(client->port, sizeof client->port, "%.*s", port ? (int)(end - port) : 2, port ? port : "80");
    snprintf(client->prefix, sizeof client->prefix, "%s", end);
    for (size_t n = strlen(client->prefix); n > 0 && client->prefix[n - 1] == '/'; n--)
        client->prefix[n - 1] = '\0';
    snprintf(client->url, sizeof client->url, bracketed ? "http://[%s]:%s" : "http://%s:%s", client->host,
             client->port);
    if (api_key && *api_key) {
        client->api_key = strdup(api_key);
        if (!client->api_key || strpbrk(api_key, "\r\n")) {
            http_client_free(client);
            return err_set(err, ERR_INVALID, tr("API 密钥无效", "the API key must be one line of text"));
        }
    }
    *ret = client;
    return true;
}

struct http_client *http_client_free(struct http_client *client)
{
    if (client)
        free(client->api_key);
    free(client);
    return NULL;
}

const char *http_client_url(const struct http_client *client)
{
    return client->url;
}

bool http_client_is_local(const struct http_client *client)
{
    return strcmp(client->host, "localhost") == 0 || strncmp(client->host, "127.", 4) == 0 ||
           strcmp(client->host, "::1") == 0;
}

/* Bytes */

static bool dial(const struct http_client *client, int *ret_fd, struct err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    struct timeval patience = {.tv_sec = 30};
    int code = getaddrinfo(client->host, client->port, &hints, &list), fd = -1, reason = 0;

    if (code != 0)
        return err_set(err, ERR_NOT_FOUND, tr("找不到主机 %s: %s", "no host %s: %s"), client->host, gai_strerror(code));
    for (struct addrinfo *a = list; a; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (fd < 0) {
            reason = errno;
            continue;
        }
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience); /* also bounds connect() */
        if (connect(fd, a->ai_addr, a->ai_addrlen) == 0)
            break;
        reason = errno;
        close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    if (fd < 0)
        return err_set(err, ERR_NOT_FOUND, tr("无法连接 %s: %s", "cannot connect to %s: %s"), client->url,
                       strerror(reason));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    *ret_fd = fd;
    return true;
}

static bool send_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        data += n;
        size -= (size_t)n;
    }
    return true;
}

/* Receives more bytes into the buffer. IO_TIMEOUT also after a signal. */
static enum io receive(struct connection *c, int timeout_ms)
{
    struct pollfd ready = {.fd = c->fd, .events = POLLIN};
    ssize_t n;

    if (c->start == c->end)
        c->start = c->end = 0;
    if (c->end == sizeof c->buffer) {
        if (c->start == 0)
            return IO_FAILED; /* a line longer than the buffer */
        memmove(c->buffer, c->buffer + c->start, c->end - c->start);
        c->end -= c->start;
        c->start = 0;
    }
    switch (poll(&ready, 1, timeout_ms)) {
    case 0:
        return IO_TIMEOUT;
    case -1:
        return errno == EINTR ? IO_TIMEOUT : IO_FAILED;
    }
    n = recv(c->fd, c->buffer + c->end, sizeof c->buffer - c->end, 0);
    if (n < 0)
        return errno == EINTR || errno == EAGAIN ? IO_TIMEOUT : IO_FAILED;
    c->end += (size_t)n;
    return n == 0 ? IO_END : IO_OK;
}

/* The next line without its end, NUL-terminated inside the buffer; nothing is taken before a whole line is there. */
static enum io take_line(struct connection *c, int timeout_ms, char **ret_line)
{
    char *end;

    while (!(end = memchr(c->buffer + c->start, '\n', c->end - c->start))) {
        enum io io = receive(c, timeout_ms);

        if (io != IO_OK)
            return io;
    }
    *ret_line = c->buffer + c->start;
    c->start = (size_t)(end - c->buffer) + 1;
    if (end > *ret_line && end[-1] == '\r')
        end--;
    *end = '\0';
    return IO_OK;
}

/* The next piece of the body, which lies in the buffer until the next call. */
static enum io take_body(struct connection *c, int timeout_ms, const char **ret, size_t *ret_size)
{
    size_t size;

    while (c->framing == CHUNKED && c->left == 0 && !c->ended) {
        char *line, *rest;
        enum io io = take_line(c, timeout_ms, &line);

        if (io != IO_OK)
            return io;
        if (c->inside) { /* the empty line after a chunk */
            c->inside = false;
            continue;
        }
        errno = 0;
        c->left = strtoull(line, &rest, 16);
        if (rest == line || errno)
            return IO_FAILED;
        c->inside = true;
        c->ended = c->left == 0;
    }
    if (c->ended || (c->framing == BY_LENGTH && c->left == 0))
        return IO_END;
    if (c->start == c->end) {
        enum io io = receive(c, timeout_ms);

        if (io == IO_END && c->framing != UNTIL_CLOSE)
            return IO_FAILED; /* cut off */
        if (io != IO_OK)
            return io;
    }
    size = c->end - c->start;
    if (c->framing != UNTIL_CLOSE && size > c->left)
        size = (size_t)c->left;
    *ret = c->buffer + c->start;
    *ret_size = size;
    c->start += size;
    c->left -= c->framing == UNTIL_CLOSE ? 0 : size;
    return IO_OK;
}

/* Requests and answers */

static bool broken(const struct http_client *client, enum io io, struct err *err)
{
    return io == IO_TIMEOUT
               ? err_set(err, ERR_IO, tr("%s 没有响应", "%s does not answer"), client->url)
               : err_set(err, ERR_IO, tr("与 %s 的连接中断", "the connection to %s broke off"), client->url);
}

static bool send_request(const struct http_client *client, struct connection *c, const char *method, const char *path,
                         const char *accept, const char *last_id, const char *json, struct err *err)
{
    struct buf out;
    bool ok;

    buf_init(&out, ANSWER_MAX);
    buf_printf(&out, "%s %s%s HTTP/1.1\r\nHost: %s\r\nAccept: %s\r\nConnection: close\r\n", method, client->prefix,
               path, client->url + strlen("http://"), accept ? accept : "application/json");
    if (client->api_key)
        buf_printf(&out, "Authorization: Bearer %s\r\n", client->api_key);
    if (last_id && *last_id)
        buf_printf(&out, "Last-Event-ID: %s\r\n", last_id);
    if (json)
        buf_printf(&out, "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(json));
    buf_puts(&out, "\r\n");
    if (json)
        buf_puts(&out, json);
    if (out.failed)
        ok = err_set(err, ERR_MEMORY, tr("内存不足", "out of memory"));
    else
        ok = dial(client, &c->fd, err) && (send_all(c->fd, out.data, out.size) || broken(client, IO_FAILED, err));
    buf_release(&out);
    return ok;
}

/* Reads the status line and the headers, and learns how the body ends. */
static enum io read_head(struct connection *c)
{
    bool interim;

    do {
        char *line;
        enum io io = take_line(c, ANSWER_TIMEOUT_MS, &line);

        if (io != IO_OK)
            return io == IO_END ? IO_FAILED : io;
        if (strncmp(line, "HTTP/1.", 7) != 0 || strlen(line) < 12)
            return IO_FAILED;
        c->status = atoi(line + 9);
        c->framing = UNTIL_CLOSE;
        for (;;) {
            io = take_line(c, ANSWER_TIMEOUT_MS, &line);
            if (io != IO_OK)
                return io == IO_END ? IO_FAILED : io;
            if (!*line)
                break;
            if (strncasecmp(line, "content-length:", 15) == 0 && c->framing != CHUNKED) {
                c->framing = BY_LENGTH;
                c->left = strtoull(line + 15, NULL, 10);
            } else if (strncasecmp(line, "transfer-encoding:", 18) == 0 && strcasestr(line + 18, "chunked")) {
                c->framing = CHUNKED;
                c->left = 0;
            }
        }
        interim = c->status >= 100 && c->status < 200;
    } while (interim);
    return IO_OK;
}

/* Opens a connection, asks, and reads the head of the answer. */
static struct connection *ask(const struct http_client *client, const char *method, const char *path,
                              const char *accept, const char *last_id, const char *json, struct err *err)
{
    struct connection *c = calloc(1, sizeof *c);
    enum io io;

    if (!c) {
        err_set(err, ERR_MEMORY, tr("内存不足", "out of memory"));
        return NULL;
    }
    c->fd = -1;
    if (send_request(client, c, method, path, accept, last_id, json, err)) {
        io = read_head(c);
        if (io == IO_OK)
            return c;
        broken(client, io, err);
    }
    if (c->fd >= 0)
        close(c->fd);
    free(c);
    return NULL;
}

static void hang_up(struct connection *c)
{
    close(c->fd);
    free(c);
}

static bool read_body(const struct http_client *client, struct connection *c, struct buf *body, struct err *err)
{
    const char *piece;
    size_t size;
    enum io io;

    buf_clear(body);
    while ((io = take_body(c, ANSWER_TIMEOUT_MS, &piece, &size)) == IO_OK)
        buf_append(body, piece, size);
    if (io != IO_END)
        return broken(client, io, err);
    buf_puts(body, ""); /* so that an empty body is a text, too */
    if (body->failed)
        return err_set(err, ERR_IO, tr("%s 的响应过长", "the answer of %s is too long"), client->url);
    return true;
}

bool http_client_request(struct http_client *client, const char *method, const char *path, const char *accept,
                         const char *json, int *ret_status, struct buf *body, struct err *err)
{
    struct connection *c = ask(client, method, path, accept, NULL, json, err);
    bool ok;

    if (!c)
        return false;
    ok = read_body(client, c, body, err);
    if (ok)
        *ret_status = c->status;
    hang_up(c);
    return ok;
}

bool http_client_stream(struct http_client *client, const char *path, struct sse *sse,
                        const struct http_stream_reader *reader, int *ret_status, struct buf *body, struct err *err)
{
    struct connection *c = ask(client, "GET", path, "text/event-stream", sse->id, NULL, err);
    int silence = 0;
    bool ok = true;

    if (!c)
        return false;
    *ret_status = c->status;
    if (c->status != 200) {
        ok = read_body(client, c, body, err);
        hang_up(c);
        return ok;
    }
    sse_reset(sse);
    for (;;) {
        const char *piece;
        size_t size;
        enum io io = take_body(c, TICK_MS, &piece, &size);

        silence = io == IO_TIMEOUT ? silence + TICK_MS : 0;
        if (io == IO_FAILED || silence > STREAM_SILENCE_MS) {
            ok = broken(client, io, err);
            break;
        }
        if (io == IO_END || (io == IO_OK && !sse_feed(sse, piece, size, reader->event, reader->arg)) ||
            !reader->tick(reader->arg))
            break;
    }
    hang_up(c);
    return ok;
}
