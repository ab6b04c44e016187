/* test_http.c - the transport rules, by raw requests over real sockets: the server runs in a thread of its own. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/text.h"
#include "http/http.h"

/* ---- the server under test ---- */

struct sample {
    const char *name;
    int64_t count;
};

static const struct field rows[] = {
    FIELD(sample, name, STRING, .flags = FIELD_REQUIRED),
    FIELD(sample, count, INT, .initial = "3", .min = 1, .flags = FIELD_HAS_MIN),
};
static const struct field_table table = FIELD_TABLE("Sample", sample, rows);

static const struct field query_rows[] = {FIELD(sample, name, STRING, .initial = "none"),
                                          FIELD(sample, count, INT, .initial = "3")};
static const struct field_table query_table = FIELD_TABLE("Query", sample, query_rows);

static struct http_page *page;

static void handle_page(struct http_request *request, void *app)
{
    (void)app;
    http_reply_page(request, page);
}

static void handle_item(struct http_request *request, void *app)
{
    (void)app;
    http_reply_json(request, 200, json_pack("{s:s}", "id", http_param(request)));
}

static void reply_sample(struct http_request *request, const struct sample *sample)
{
    http_reply_json(request, 200, json_pack("{s:s, s:I}", "name", sample->name, "count", (json_int_t)sample->count));
}

static void handle_body(struct http_request *request, void *app)
{
    struct sample sample;

    (void)app;
    if (http_read_body(request, &table, &sample))
        reply_sample(request, &sample);
}

static void handle_query(struct http_request *request, void *app)
{
    struct sample sample;

    (void)app;
    if (http_read_query(request, &query_table, &sample))
        reply_sample(request, &sample);
}

static void handle_start(struct http_request *request, void *app)
{
    (void)app;
    http_reply_detail(request, 200, "started");
}

/* Requests that wait for each other; the one with the header "Forget" is never answered. */
static struct http_request *held[64];
static int held_count, held_groups, held_most;

static void handle_held(struct http_request *request, void *app)
{
    (void)app;
    if (!http_header(request, "Forget"))
        held[held_count++] = request;
    http_hold(request);
}

static void answer_held(void *app)
{
    (void)app;
    held_groups++;
    held_most = held_count > held_most ? held_count : held_most;
    for (int i = 0; i < held_count; i++)
        http_reply_json(held[i], 200, json_pack("{s:i}", "group", held_groups));
    held_count = 0;
}

static void handle_nothing(struct http_request *request, void *app)
{
    (void)request;
    (void)app;
}

/* An event stream: three events at once, then one for each wake, an end after ten. */
struct events {
    struct http_stream *stream;
    uv_timer_t timer;
    int sent, wanted;
};

static int streams_closed;

static enum http_stream_state next_event(void *arg, struct buf *out)
{
    struct events *events = arg;

    if (events->sent == 10)
        return HTTP_STREAM_END;
    if (events->sent == events->wanted)
        return HTTP_STREAM_WAIT;
    buf_printf(out, "id: %d\ndata: {\"n\": %d}\n\n", events->sent, events->sent);
    events->sent++;
    return HTTP_STREAM_MORE;
}

static void free_events(uv_handle_t *handle)
{
    free(handle->data);
}

static void close_events(void *arg)
{
    struct events *events = arg;

    streams_closed++;
    uv_close((uv_handle_t *)&events->timer, free_events);
}

static void wake_events(uv_timer_t *timer)
{
    struct events *events = timer->data;

    events->wanted++;
    http_stream_wake(events->stream);
}

static uv_loop_t loop;

static void open_events(struct http_request *request, uint64_t period)
{
    static const struct http_stream_source source = {.next = next_event, .closed = close_events, .ping = true};
    struct events *events = calloc(1, sizeof *events);

    events->wanted = 3;
    events->timer.data = events;
    uv_timer_init(&loop, &events->timer);
    events->stream = http_stream_open(request, "text/event-stream; charset=utf-8", &source, events);
    if (period)
        uv_timer_start(&events->timer, wake_events, period, period);
}

static void handle_events(struct http_request *request, void *app)
{
    (void)app;
    open_events(request, 20);
}

static void handle_quiet(struct http_request *request, void *app)
{
    (void)app;
    open_events(request, 0);
}

#define ROUTE(m, p, h, ...)                                                                                            \
    {                                                                                                                  \
        .method = m, .path = p, .handle = h, __VA_ARGS__                                                               \
    }

static const struct http_route routes[] = {
    ROUTE("GET", "/", handle_page),
    ROUTE("GET", "/health", handle_page, .flags = HTTP_PUBLIC),
    ROUTE("POST", "/items/start", handle_start),
    ROUTE("GET", "/items/{id}", handle_item),
    ROUTE("DELETE", "/items/{id}", handle_item),
    ROUTE("GET", "/items/{id}/events", handle_events),
    ROUTE("GET", "/quiet", handle_quiet),
    ROUTE("POST", "/body", handle_body),
    ROUTE("POST", "/held", handle_held),
    ROUTE("GET", "/query", handle_query),
    ROUTE("GET", "/nothing", handle_nothing),
};

static struct http_server *server;
static uv_async_t stop;
static pthread_t thread;
static int port;

static void on_stop(uv_async_t *async)
{
    http_server_close(server);
    uv_close((uv_handle_t *)async, NULL);
}

static void *run_loop(void *arg)
{
    (void)arg;
    uv_run(&loop, UV_RUN_DEFAULT);
    return NULL;
}

static void start_server(const char *key, const char *origin)
{
    static const char *origins[1];
    struct http_options options = {.loop = &loop,
                                   .host = "127.0.0.1",
                                   .routes = routes,
                                   .route_count = sizeof routes / sizeof *routes,
                                   .api_key = key,
                                   .answer_held = answer_held};
    struct err err;

    text_set_language("en");
    origins[0] = origin;
    options.cors_origins = (struct string_list){1, origins};
    page = http_page_new("application/json", "{\"ok\":true}", 11);
    assert_int_equal(uv_loop_init(&loop), 0);
    if (!http_server_start(&options, &server, &err))
        fail_msg("%s", err.message);
    port = http_server_port(server);
    uv_async_init(&loop, &stop, on_stop);
    pthread_create(&thread, NULL, run_loop, NULL);
}

static int set_up(void **state)
{
    (void)state;
    start_server(NULL, "*");
    return 0;
}

static int set_up_closed(void **state)
{
    (void)state;
    start_server("secret", "https://lab.example");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    uv_async_send(&stop);
    pthread_join(thread, NULL);
    assert_int_equal(uv_loop_close(&loop), 0); /* nothing is left in it */
    page = http_page_free(page);
    return 0;
}

/* ---- the client ---- */

static int dial(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval patience = {.tv_sec = 20};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void send_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);

        assert_true(n > 0);
        data += n;
        size -= (size_t)n;
    }
}

static void send_text(int fd, const char *text)
{
    send_all(fd, text, strlen(text));
}

/* Everything until the server closes. */
static char *receive_all(int fd)
{
    static char answer[1 << 20];
    size_t size = 0;
    ssize_t n;

    while ((n = recv(fd, answer + size, sizeof answer - 1 - size, 0)) > 0)
        size += (size_t)n;
    answer[size] = '\0';
    close(fd);
    return answer;
}

/* Sends "METHOD path HTTP/1.1" with a Host, the headers (each ended by \r\n) and a body, and asks to close. */
static char *ask(const char *line, const char *headers, const char *body, size_t size)
{
    char head[4096];
    int fd = dial();
    int n = snprintf(head, sizeof head, "%s HTTP/1.1\r\nHost: test:1\r\nConnection: close\r\n%s", line, headers);

    if (body)
        n += snprintf(head + n, sizeof head - (size_t)n, "Content-Length: %zu\r\n", size);
    n += snprintf(head + n, sizeof head - (size_t)n, "\r\n");
    send_all(fd, head, (size_t)n);
    if (body)
        send_all(fd, body, size);
    return receive_all(fd);
}

static char *post(const char *type, const char *body)
{
    char header[128] = "";

    if (type)
        snprintf(header, sizeof header, "Content-Type: %s\r\n", type);
    return ask("POST /body", header, body, strlen(body));
}

static int status_of(const char *answer)
{
    return strlen(answer) > 12 ? atoi(answer + 9) : 0;
}

static const char *body_of(const char *answer)
{
    const char *body = strstr(answer, "\r\n\r\n");

    return body ? body + 4 : "";
}

static void expect(const char *answer, int status, const char *body)
{
    if (status_of(answer) != status || (body && strcmp(body_of(answer), body)))
        fail_msg("expected %d %s, got: %s", status, body ? body : "", answer);
}

static void expect_text(const char *answer, int status, const char *text)
{
    if (status_of(answer) != status || !strcasestr(answer, text))
        fail_msg("expected %d with %s, got: %s", status, text, answer);
}

/* ---- tests ---- */

static void test_routes(void **state)
{
    char *answer;

    (void)state;
    expect(ask("GET /", "", NULL, 0), 200, "{\"ok\":true}");
    expect(ask("GET /items/start", "", NULL, 0), 200, "{\"id\":\"start\"}");
    expect(ask("POST /items/start", "", "", 0), 200, "{\"detail\":\"started\"}");
    expect(ask("GET /items/%E6%97%A0%20x", "", NULL, 0), 200, "{\"id\":\"无 x\"}");
    expect(ask("GET /items/a%2Fb", "", NULL, 0), 404, "{\"detail\":\"Not Found\"}");
    expect(ask("GET /items/%FF", "", NULL, 0), 200, "{\"id\":\"?\"}");
    expect(ask("GET /items/%00", "", NULL, 0), 200, "{\"id\":\"?\"}");
    expect(ask("GET /he%61lth", "", NULL, 0), 200, NULL);
    expect(ask("GET /nowhere", "", NULL, 0), 404, "{\"detail\":\"Not Found\"}");
    expect(ask("GET http://proxy/items/7?x=1", "", NULL, 0), 200, "{\"id\":\"7\"}");
    answer = ask("PUT /items/x", "", NULL, 0);
    expect(answer, 405, "{\"detail\":\"Method Not Allowed\"}");
    expect_text(answer, 405, "\r\nallow: GET\r\n");
    expect_text(ask("DELETE /items/start", "", NULL, 0), 200, "start");
    expect_text(ask("PUT /items/start", "", NULL, 0), 405, "\r\nallow: POST\r\n");
    expect(ask("HEAD /health", "", NULL, 0), 405, "");
    expect(ask("OPTIONS /health", "", NULL, 0), 405, NULL);
    expect(ask("GET /nothing", "", NULL, 0), 500, "Internal Server Error");
}

static void test_slash(void **state)
{
    (void)state;
    expect_text(ask("GET /health/?a=1", "", NULL, 0), 307, "\r\nlocation: http://test:1/health?a=1\r\n");
    expect_text(ask("PUT /items/%E6%97%A0/", "", NULL, 0), 307, "\r\nlocation: http://test:1/items/%E6%97%A0\r\n");
    expect(ask("POST /body/", "", "{}", 2), 307, "");
    expect(ask("GET /nowhere/", "", NULL, 0), 404, NULL);
    expect(ask("GET //", "", NULL, 0), 307, "");
}

static void test_cors(void **state)
{
    char *answer;

    (void)state;
    assert_null(strcasestr(ask("GET /health", "", NULL, 0), "access-control"));
    answer = ask("GET /health", "Origin: null\r\n", NULL, 0);
    expect_text(answer, 200, "\r\naccess-control-allow-origin: *\r\n");
    expect_text(answer, 200, "\r\naccess-control-allow-credentials: true\r\n");
    answer = ask("GET /nowhere", "Origin: http://a\r\nCookie: b=c\r\n", NULL, 0);
    expect_text(answer, 404, "\r\naccess-control-allow-origin: http://a\r\n");
    expect_text(answer, 404, "\r\nvary: Origin\r\n");
    answer =
        ask("OPTIONS /anything",
            "Origin: null\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: a, b\r\n", NULL, 0);
    expect(answer, 200, "OK");
    expect_text(answer, 200, "\r\naccess-control-allow-origin: null\r\n");
    expect_text(answer, 200, "\r\naccess-control-allow-headers: a, b\r\n");
    expect_text(answer, 200, "\r\naccess-control-allow-methods: DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT\r\n");
    expect_text(answer, 200, "\r\naccess-control-max-age: 600\r\n");
    expect_text(answer, 200, "\r\ncontent-type: text/plain; charset=utf-8\r\n");
}

static void test_closed_cors(void **state)
{
    (void)state;
    assert_null(strcasestr(ask("GET /health", "Origin: http://a\r\n", NULL, 0), "allow-origin"));
    expect_text(ask("GET /health", "Origin: https://lab.example\r\n", NULL, 0), 200,
                "\r\naccess-control-allow-origin: https://lab.example\r\n");
    expect(ask("OPTIONS /health", "Origin: http://a\r\nAccess-Control-Request-Method: GET\r\n", NULL, 0), 400,
           "Disallowed CORS origin");
}

static void test_key(void **state)
{
    (void)state;
    expect(ask("GET /health", "", NULL, 0), 200, NULL);
    expect_text(ask("GET /", "", NULL, 0), 401, "{\"detail\":");
    expect(ask("GET /nowhere", "", NULL, 0), 401, NULL);
    expect(ask("GET /", "X-API-Key: wrong\r\n", NULL, 0), 401, NULL);
    expect(ask("GET /", "X-API-Key: secretsecret\r\n", NULL, 0), 401, NULL);
    expect(ask("GET /", "X-API-Key:\r\n", NULL, 0), 401, NULL);
    expect(ask("GET /", "X-API-Key: secret\r\n", NULL, 0), 200, NULL);
    expect(ask("GET /", "Authorization: bearer secret\r\n", NULL, 0), 200, NULL);
    expect(ask("POST /items/start", "", "{}", 2), 401, NULL);
}

static void test_bodies(void **state)
{
    static const char bom[] = "\xEF\xBB\xBF{\"name\":\"a\"}";

    (void)state;
    expect(post("application/json", "{\"name\":\"无\",\"count\":\"4\"}"), 200, "{\"name\":\"无\",\"count\":4}");
    expect(post(NULL, "{\"name\":\"a\"}"), 200, NULL);
    expect(post("Application/Vnd.x+JSON; charset=latin1", "{\"name\":\"a\"}"), 200, NULL);
    expect(post("application/json", bom), 200, NULL);
    expect_text(post("text/plain", "{\"name\":\"a\"}"), 422, "model_attributes_type");
    expect_text(post("application/x-www-form-urlencoded", "name=a"), 422, "\"input\":\"name=a\"");
    expect_text(post("application/json", "[]"), 422, "model_attributes_type");
    expect(post("application/json", "null"), 422,
           "{\"detail\":[{\"type\":\"missing\",\"loc\":[\"body\"],\"msg\":\"Field required\",\"input\":null}]}");
    expect_text(post("application/json", ""), 422, "\"loc\":[\"body\"]");
    expect_text(post("application/json", "{}"), 422,
                "\"loc\":[\"body\",\"name\"],\"msg\":\"Field required\",\"input\":{}");
    expect_text(post("application/json", "{\"name\":\"无\",}"), 422, "\"type\":\"json_invalid\",\"loc\":[\"body\",12]");
    expect_text(post("application/json", "{\"name\":NaN}"), 422, "json_invalid");
    expect_text(post("application/json", "{\"name\":\"\\ud83d\"}"), 422, "json_invalid");
    expect_text(post("application/json", "  "), 422, "json_invalid");
    expect(post("application/json", "{\"name\":\"\xff\"}"), 400,
           "{\"detail\":\"There was an error parsing the body\"}");
    expect_text(post("application/json", "{\"name\":\"a\",\"count\":123456789012345678901234567890}"), 422,
                "less_than_equal");
    expect(post("application/json", "{\"name\":\"a\",\"name\":\"b\",\"other\":1e400}"), 422, NULL);
    expect(post("application/json", "{\"name\":\"a\",\"name\":\"b\",\"other\":1}"), 200,
           "{\"name\":\"b\",\"count\":3}");
}

static void test_deep_body(void **state)
{
    enum { DEPTH = 100000 };
    char *deep = malloc(DEPTH + 1);

    (void)state;
    memset(deep, '[', DEPTH);
    deep[DEPTH] = '\0';
    expect_text(post("application/json", deep), 422, "json_invalid");
    free(deep);
}

static void test_large_bodies(void **state)
{
    size_t size = 10 << 20;
    char *large = malloc(size + 1);
    char head[200];
    int fd, n;

    (void)state;
    memset(large, ' ', size);
    memcpy(large, "{\"name\":\"a\"", 11);
    large[(4 << 20) - 1] = '}';
    expect(ask("POST /body", "", large, 4 << 20), 200, NULL);
    expect_text(ask("POST /body", "", large, (4 << 20) + 1), 413, "{\"detail\":");
    expect_text(ask("POST /body", "", large, size), 413, "{\"detail\":");
    expect_text(ask("POST /nowhere", "", large, size), 413, "{\"detail\":");

    /* in chunks: nothing is announced */
    fd = dial();
    n = snprintf(head, sizeof head,
                 "POST /body HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n%zx\r\n",
                 size);
    send_all(fd, head, (size_t)n);
    send_all(fd, large, size);
    send_text(fd, "\r\n0\r\n\r\n");
    expect_text(receive_all(fd), 413, "{\"detail\":");

    /* who asks first is told before sending anything; so is who announces too much to read */
    fd = dial();
    n = snprintf(head, sizeof head,
                 "POST /body HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %zu\r\n\r\n", size);
    send_all(fd, head, (size_t)n);
    expect_text(receive_all(fd), 413, "{\"detail\":");
    fd = dial();
    send_text(fd, "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n");
    expect_text(receive_all(fd), 413, "{\"detail\":");
    free(large);
}

/* A fault repeats its input; many faults about a large body do not multiply it. */
static void test_large_fault(void **state)
{
    size_t size = 3 << 20;
    char *large = malloc(size + 1), *answer;

    (void)state;
    memset(large, ' ', size);
    memcpy(large, "{\"count\":0", 10);
    large[size - 1] = '}';
    large[size] = '\0';
    answer = post(NULL, large);
    expect_text(answer, 422, "greater_than_equal");
    assert_true(strlen(answer) < 4096);
    free(large);
}

static void test_query(void **state)
{
    (void)state;
    expect(ask("GET /query", "", NULL, 0), 200, "{\"name\":\"none\",\"count\":3}");
    expect(ask("GET /query?count=1&name=%E6%97%A0+b&count=7&other", "", NULL, 0), 200,
           "{\"name\":\"无 b\",\"count\":7}");
    expect(ask("GET /query?name", "", NULL, 0), 200, "{\"name\":\"\",\"count\":3}");
    expect(ask("GET /query?&&name=%", "", NULL, 0), 200, "{\"name\":\"%\",\"count\":3}");
    expect(ask("GET /query?count=", "", NULL, 0), 422,
           "{\"detail\":[{\"type\":\"int_parsing\",\"loc\":[\"query\",\"count\"],\"msg\":\"Input should be a valid "
           "integer, unable to parse string as an integer\",\"input\":\"\"}]}");
    expect_text(ask("GET /query?count=1.5", "", NULL, 0), 422, "int_parsing");
}

/* Several requests at once on one connection are answered in order. */
static void test_pipelining(void **state)
{
    enum { N = 200 };
    const char *at;
    char *answer;
    int fd = dial();

    (void)state;
    for (int i = 0; i < N; i++) {
        char request[160];
        int n = snprintf(
            request, sizeof request,
            i % 3 ? "GET /items/%d HTTP/1.1\r\nHost: a\r\n%s\r\n"
                  : "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 25\r\n\r\n{\"name\":\"a\",\"count\":1%03d}%s",
            i, i % 3 && i == N - 1 ? "Connection: close\r\n" : "");

        send_all(fd, request, (size_t)n);
    }
    shutdown(fd, SHUT_WR);
    answer = receive_all(fd);
    at = answer;
    for (int i = 0; i < N; i++) {
        char wanted[64];

        snprintf(wanted, sizeof wanted, i % 3 ? "{\"id\":\"%d\"}" : "{\"name\":\"a\",\"count\":1%03d}", i);
        at = strstr(at, wanted);
        if (!at)
            fail_msg("answer %d (%s) is not in its place", i, wanted);
    }
}

static void test_held(void **state)
{
    enum { CONNECTIONS = 32, EACH = 10 };
    int connections[CONNECTIONS];

    (void)state;
    held_groups = held_most = 0;
    for (int i = 0; i < CONNECTIONS; i++)
        connections[i] = dial();
    for (int i = 0; i < CONNECTIONS; i++)
        for (int k = 0; k < EACH; k++)
            send_text(connections[i], k < EACH - 1 ? "POST /held HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"
                                                   : "POST /held HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    for (int i = 0; i < CONNECTIONS; i++) {
        const char *at = receive_all(connections[i]);

        for (int k = 0; k < EACH; k++, at++)
            if (!(at = strstr(at, "{\"group\":")))
                fail_msg("connection %d got %d answers", i, k);
    }
    assert_int_equal(held_count, 0);
    assert_in_range(held_groups, 1, CONNECTIONS * EACH);
    printf("most held at once: %d of %d\n", held_most, CONNECTIONS);
    expect_text(ask("POST /held", "Forget: yes\r\n", "{}", 2), 500, "Internal Server Error");
    expect(ask("GET /items/1", "", NULL, 0), 200, "{\"id\":\"1\"}");
}

static void test_malformed(void **state)
{
    static const char *const requests[] = {"\r\n\r\n",
                                           "GET\r\n\r\n",
                                           "GET / HTTP/9.9\r\n\r\n",
                                           "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
                                           "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
                                           "GET /%zz%4 HTTP/1.1\r\nHost: a\r\n\r\n",
                                           "\x16\x03\x01\x02"};

    (void)state;
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        int fd = dial();

        send_all(fd, requests[i], strlen(requests[i]));
        shutdown(fd, SHUT_WR);
        receive_all(fd);
    }
    expect(ask("GET /health", "", NULL, 0), 200, NULL);
}

/* A request that comes one byte at a time is answered like any other. */
static void test_slow_request(void **state)
{
    static const char text[] =
        "POST /body HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 12\r\n\r\n{\"name\":\"a\"}";
    int fd = dial();

    (void)state;
    for (size_t i = 0; i < sizeof text - 1; i++) {
        send_all(fd, text + i, 1);
        usleep(1000);
    }
    expect(receive_all(fd), 200, "{\"name\":\"a\",\"count\":3}");
}

static void test_stream(void **state)
{
    char *answer = ask("GET /items/7/events", "", NULL, 0);
    const char *at = answer;

    (void)state;
    expect_text(answer, 200, "\r\ncontent-type: text/event-stream; charset=utf-8\r\n");
    expect_text(answer, 200, "\r\ncache-control: no-cache\r\n");
    expect_text(answer, 200, "\r\nx-accel-buffering: no\r\n");
    expect_text(answer, 200, "\r\ntransfer-encoding: chunked\r\n");
    for (int i = 0; i < 10; i++) {
        char wanted[64];

        snprintf(wanted, sizeof wanted, "id: %d\ndata: {\"n\": %d}\n\n", i, i);
        at = strstr(at, wanted);
        assert_non_null(at);
    }
}

static void wait_streams(size_t wanted)
{
    for (int i = 0; i < 500 && http_server_streams(server) != wanted; i++)
        usleep(10000);
    assert_int_equal(http_server_streams(server), wanted);
}

/* A client that leaves an idle stream is noticed at once, not at the next ping. */
static void test_stream_left(void **state)
{
    static const char request[] = "GET /quiet HTTP/1.1\r\nHost: a\r\n\r\n";
    int fds[50], before = streams_closed;

    (void)state;
    for (size_t i = 0; i < 50; i++) {
        fds[i] = dial();
        send_all(fds[i], request, sizeof request - 1);
    }
    wait_streams(50);
    for (size_t i = 0; i < 50; i++)
        close(fds[i]);
    wait_streams(0);
    assert_int_equal(streams_closed, before + 50);
}

/* Open streams do not keep the server from ending. */
static void test_stream_at_end(void **state)
{
    static const char request[] = "GET /quiet HTTP/1.1\r\nHost: a\r\n\r\n";
    char *answer;
    int fd = dial();

    send_all(fd, request, sizeof request - 1);
    wait_streams(1);
    tear_down(state);
    answer = receive_all(fd);
    expect_text(answer, 200, "data: {\"n\": 2}");
    set_up(state);
}

static void test_idle_connections(void **state)
{
    enum { N = 1000 };
    int fds[N];

    (void)state;
    for (size_t i = 0; i < N; i++)
        fds[i] = dial();
    expect(ask("GET /health", "", NULL, 0), 200, NULL);
    send_text(fds[N - 1], "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    expect(receive_all(fds[N - 1]), 200, NULL);
    for (size_t i = 0; i < N - 1; i++)
        close(fds[i]);
}

static void test_port_in_use(void **state)
{
    struct http_options options = {
        .loop = &loop, .host = "127.0.0.1", .port = port, .routes = routes, .route_count = 1};
    struct http_server *second;
    struct err err;

    (void)state;
    assert_false(http_server_start(&options, &second, &err));
    assert_int_equal(err.kind, ERR_CONFLICT);
    assert_non_null(strstr(err.message, "is in use"));
    options.host = "no.such.host.invalid";
    assert_false(http_server_start(&options, &second, &err));
}

#define TEST(f)        cmocka_unit_test_setup_teardown(f, set_up, tear_down)
#define TEST_CLOSED(f) cmocka_unit_test_setup_teardown(f, set_up_closed, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_routes),        TEST(test_slash),
        TEST(test_cors),          TEST_CLOSED(test_closed_cors),
        TEST_CLOSED(test_key),    TEST(test_bodies),
        TEST(test_deep_body),     TEST(test_large_bodies),
        TEST(test_large_fault),   TEST(test_query),
        TEST(test_pipelining),    TEST(test_malformed),
        TEST(test_held),          TEST(test_slow_request),
        TEST(test_stream),        TEST(test_stream_left),
        TEST(test_stream_at_end), TEST(test_idle_connections),
        TEST(test_port_in_use),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
