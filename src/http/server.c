/* server.c - libmicrohttpd in the event loop. Its epoll descriptor is one of libuv's; whatever is ready is worked off
 * by MHD_run(), without a thread. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/text.h"
#include "http/internal.h"

enum { BACKLOG = 1024, SPARE_DESCRIPTORS = 256, FREE_REQUESTS_MAX = 256, RUNS_AT_ONCE = 16 };

/* ---- requests: made when the request line is there, used again for later ones ---- */

static struct http_request *request_new(struct http_server *server)
{
    struct http_request *request = server->free_requests;

    if (!request)
        return malloc(sizeof *request);
    server->free_requests = request->next_free;
    server->free_count--;
    return request;
}

static void request_free(struct http_request *request)
{
    struct http_server *server = request->server;

    json_decref(request->query_json);
    arena_free(request->arena);
    server->body_bytes -= request->body.capacity;
    buf_release(&request->body);
    if (request->uri != request->uri_inline)
        free(request->uri);
    if (server->free_count >= FREE_REQUESTS_MAX) {
        free(request);
        return;
    }
    request->next_free = server->free_requests;
    server->free_requests = request;
    server->free_count++;
}

/* Called with the request line's target, still encoded. Its result is the request's state from then on. */
static void *begin(void *cls, const char *uri, struct MHD_Connection *connection)
{
    struct http_server *server = cls;
    struct http_request *request = request_new(server);
    size_t length, path_length;

    if (!request)
        return NULL;
    memset(request, 0, offsetof(struct http_request, uri_inline));
    request->server = server;
    request->connection = connection;
    request->param = "";
    buf_init(&request->body, HTTP_BODY_MAX);
    if (!strncmp(uri, "http://", 7)) { /* the absolute form that proxies send */
        uri += 7 + strcspn(uri + 7, "/?");
        if (*uri != '/')
            uri = "/";
    }
    length = strlen(uri);
    request->uri = length < HTTP_URI_INLINE - 1 ? request->uri_inline : malloc(length + 2);
    if (!request->uri) {
        request->uri = request->uri_inline;
        request_free(request);
        return NULL;
    }
    path_length = strcspn(uri, "?");
    memcpy(request->uri, uri, path_length);
    memcpy(request->uri + path_length + 1, uri + path_length + (uri[path_length] == '?'),
           length - path_length + (uri[path_length] != '?'));
    request->query = request->uri + path_length + 1;
    request->uri[path_length] = '\0';
    if (memchr(request->uri, '%', path_length) || !text_is_utf8(request->uri, path_length))
        uri_decode(request->uri, path_length, false);
    return request;
}

static void completed(void *cls, struct MHD_Connection *connection, void **context,
                      enum MHD_RequestTerminationCode code)
{
    (void)cls;
    (void)connection;
    (void)code;
    if (*context)
        request_free(*context);
    *context = NULL;
}

/* ---- bodies ---- */

/* The headers are there: remember what the answer needs, refuse at once what will not be read. */
static enum MHD_Result headers_done(struct http_request *request, const char *method)
{
    const char *length = http_header(request, "Content-Length");
    unsigned long long announced = length ? strtoull(length, NULL, 10) : 0;

    request->state = HTTP_READING;
    request->method = method;
    request->origin = http_header(request, "Origin");
    if (announced > HTTP_BODY_MAX)
        request->refusal = 413;
    if (request->refusal && (announced > HTTP_BODY_DISCARD || http_header(request, "Expect"))) {
        http_reply_detail(request, 413, tr("请求体超过 %d 字节", "the body is larger than %d bytes"), HTTP_BODY_MAX);
        return request->queued ? MHD_YES : MHD_NO;
    }
    return MHD_YES;
}

static enum MHD_Result body_bytes(struct http_request *request, const char *data, size_t size)
{
    struct http_server *server = request->server;

    request->received += size;
    if (request->received > HTTP_BODY_DISCARD)
        return MHD_NO;
    if (!request->refusal) {
        size_t before = request->body.capacity;

        buf_append(&request->body, data, size);
        server->body_bytes += request->body.capacity - before;
        if (request->received > HTTP_BODY_MAX)
            request->refusal = 413;
        else if (request->body.failed || server->body_bytes > HTTP_BODIES_MAX)
            request->refusal = 503;
    }
    if (request->refusal) {
        server->body_bytes -= request->body.capacity;
        buf_release(&request->body);
    }
    return MHD_YES;
}

static void reply_internal_error(struct http_request *request)
{
    http_reply(request, 500, "text/plain; charset=utf-8", "Internal Server Error", 21);
}

static void answer(struct http_request *request)
{
    if (request->refusal == 413) {
        http_reply_detail(request, 413, tr("请求体超过 %d 字节", "the body is larger than %d bytes"), HTTP_BODY_MAX);
    } else if (request->refusal) {
        http_add_header(request, "retry-after", "1");
        http_reply_detail(request, 503, "%s", tr("服务器内存不足，请稍后重试", "too many large requests at a time"));
    } else if (!http_answer_transport(request)) {
        request->route->handle(request, request->server->options.app);
    }
    if (request->state == HTTP_READING)
        reply_internal_error(request);
}

/* Called when the headers are there, for each piece of the body, and at the end. An answer before the end would close
 * the connection. */
static enum MHD_Result handle(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
                              const char *version, const char *data, size_t *size, void **context)
{
    struct http_request *request = *context;

    (void)cls;
    (void)connection;
    (void)url;
    (void)version;
    if (!request)
        return MHD_NO;
    if (request->state == HTTP_NEW)
        return headers_done(request, method);
    if (*size) {
        enum MHD_Result result = body_bytes(request, data, *size);

        *size = 0;
        return result;
    }
    answer(request);
    return request->queued || request->state == HTTP_HELD ? MHD_YES : MHD_NO;
}

void http_hold(struct http_request *request)
{
    struct http_server *server = request->server;

    if (request->state != HTTP_READING)
        return;
    request->state = HTTP_HELD;
    request->next_held = server->held;
    server->held = request;
    MHD_suspend_connection(request->connection);
}

/* Has those that are held answered; false when there are none. */
static bool answer_held(struct http_server *server)
{
    struct http_request *held = server->held, *next;

    if (!held)
        return false;
    server->held = NULL;
    server->options.answer_held(server->options.app);
    for (; held; held = next) { /* none is freed before MHD runs again */
        next = held->next_held;
        if (held->state == HTTP_HELD)
            reply_internal_error(held);
    }
    return true;
}

/* Paths and queries are decoded by us. */
static size_t leave_encoded(void *cls, struct MHD_Connection *connection, char *text)
{
    (void)cls;
    (void)connection;
    return strlen(text);
}

/* ---- the loop ---- */

static void run(struct http_server *server)
{
    MHD_UNSIGNED_LONG_LONG timeout;
    int runs = 0;
    bool more;

    do {
        MHD_run(server->daemon);
        more = MHD_get_timeout(server->daemon, &timeout) == MHD_YES && timeout == 0;
        more = more || answer_held(server); /* when no other request is ready */
    } while (more && ++runs < RUNS_AT_ONCE);
    if (more) {
        answer_held(server);
        http_server_run_soon(server);
    }
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    run(poll->data);
}

static void on_soon(uv_timer_t *timer)
{
    run(timer->data);
}

/* Once a second: connections that time out, streams that want a ping. */
static void on_tick(uv_timer_t *timer)
{
    http_streams_tick(timer->data);
    run(timer->data);
}

void http_server_run_soon(struct http_server *server)
{
    if (!server->closing && !uv_is_active((uv_handle_t *)&server->soon))
        uv_timer_start(&server->soon, on_soon, 0, 0);
}

/* ---- start ---- */

/* Raises the soft limit of open files to the hard one, and returns how many connections there may be. */
static unsigned connection_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 512;
    if (limit.rlim_cur < limit.rlim_max) {
        rlim_t soft = limit.rlim_cur;

        limit.rlim_cur = limit.rlim_max < 65536 ? limit.rlim_max : 65536;
        if (limit.rlim_cur < soft || setrlimit(RLIMIT_NOFILE, &limit) < 0)
            limit.rlim_cur = soft;
    }
    if (limit.rlim_cur > 65536)
        limit.rlim_cur = 65536;
    return limit.rlim_cur > 2 * SPARE_DESCRIPTORS ? (unsigned)limit.rlim_cur - SPARE_DESCRIPTORS
                                                  : (unsigned)limit.rlim_cur / 2;
}

static bool listen_failed(const struct http_options *options, int error, struct err *err)
{
    if (error == EADDRINUSE)
        return err_set(
            err, ERR_CONFLICT,
            tr("%s 的端口 %d 已被占用，请用 --port 换一个", "port %2$d of %1$s is in use, choose another with --port"),
            options->host, options->port);
    if (error == EACCES)
        return err_set(err, ERR_IO, tr("没有权限监听 %s 的端口 %d", "no permission to listen on port %2$d of %1$s"),
                       options->host, options->port);
    return err_set(err, ERR_IO, tr("无法监听 %s 的端口 %d: %s", "cannot listen on %s, port %d: %s"), options->host,
                   options->port, strerror(error));
}

/* Sets *ret to a listening socket and *port to its port. */
static bool listen_on(const struct http_options *options, int *ret, int *port, struct err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list, *info;
    struct sockaddr_storage bound;
    socklen_t length = sizeof bound;
    char service[16], number[16];
    int fd = -1, one = 1, error, status;

    snprintf(service, sizeof service, "%d", options->port);
    status = getaddrinfo(options->host, service, &hints, &list);
    if (status)
        return err_set(err, ERR_INVALID, tr("无法解析地址 \"%s\": %s", "no such address \"%s\": %s"), options->host,
                       gai_strerror(status));
    error = EADDRNOTAVAIL;
    for (info = list; info && fd < 0; info = info->ai_next) {
        fd = socket(info->ai_family, info->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, info->ai_protocol);
        if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
            bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
            break;
        error = errno;
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    if (fd < 0)
        return listen_failed(options, error, err);
    if (getsockname(fd, (struct sockaddr *)&bound, &length) < 0 ||
        getnameinfo((struct sockaddr *)&bound, length, NULL, 0, number, sizeof number, NI_NUMERICSERV)) {
        close(fd);
        return listen_failed(options, EINVAL, err);
    }
    *port = atoi(number);
    *ret = fd;
    return true;
}

static bool start_daemon(struct http_server *server, struct err *err)
{
    const union MHD_DaemonInfo *info;

    server->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, handle, server, MHD_OPTION_LISTEN_SOCKET,
        server->listener, MHD_OPTION_CONNECTION_LIMIT, connection_limit(), MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)HTTP_IDLE_SECONDS, MHD_OPTION_URI_LOG_CALLBACK, begin, server, MHD_OPTION_UNESCAPE_CALLBACK,
        leave_encoded, NULL, MHD_OPTION_NOTIFY_COMPLETED, completed, NULL, MHD_OPTION_END);
    info = server->daemon ? MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info)
        return err_set(err, ERR_IO, "cannot start the HTTP server: %s", strerror(errno));
    uv_timer_init(server->options.loop, &server->tick);
    uv_timer_init(server->options.loop, &server->soon);
    uv_poll_init(server->options.loop, &server->poll, info->epoll_fd);
    server->tick.data = server->soon.data = server->poll.data = server;
    server->handles = 3;
    uv_timer_start(&server->tick, on_tick, 1000, 1000);
    uv_poll_start(&server->poll, UV_READABLE, on_ready);
    return true;
}

bool http_server_start(const struct http_options *options, struct http_server **ret, struct err *err)
{
    struct http_server *server = calloc(1, sizeof *server);

    if (!server)
        return err_set(err, ERR_MEMORY, "no memory");
    server->options = *options;
    server->routes = route_tree_new(options->routes, options->route_count);
    if (!server->routes) {
        free(server);
        return err_set(err, ERR_MEMORY, "no memory for the routes");
    }
    if (!listen_on(options, &server->listener, &server->port, err)) {
        route_tree_free(server->routes);
        free(server);
        return false;
    }
    snprintf(server->url, sizeof server->url, strchr(options->host, ':') ? "http://[%s]:%d" : "http://%s:%d",
             options->host, server->port);
    if (!start_daemon(server, err)) {
        if (server->daemon)
            MHD_stop_daemon(server->daemon);
        else
            close(server->listener);
        route_tree_free(server->routes);
        free(server);
        return false;
    }
    *ret = server;
    return true;
}

int http_server_port(const struct http_server *server)
{
    return server->port;
}

size_t http_server_streams(const struct http_server *server)
{
    return server->stream_count;
}

/* ---- end ---- */

void http_server_handle_closed(struct http_server *server)
{
    if (--server->handles)
        return;
    while (server->free_requests) {
        struct http_request *next = server->free_requests->next_free;

        free(server->free_requests);
        server->free_requests = next;
    }
    route_tree_free(server->routes);
    free(server);
}

static void on_closed(uv_handle_t *handle)
{
    http_server_handle_closed(handle->data);
}

void http_server_close(struct http_server *server)
{
    if (!server || server->closing)
        return;
    uv_poll_stop(&server->poll);
    http_streams_end(server);
    run(server); /* what is ready to be sent goes out */
    server->closing = true;
    MHD_stop_daemon(server->daemon);
    uv_close((uv_handle_t *)&server->poll, on_closed);
    uv_close((uv_handle_t *)&server->tick, on_closed);
    uv_close((uv_handle_t *)&server->soon, on_closed);
}
