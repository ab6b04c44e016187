/* test_cli.c - the parts of the command line: event streams, HTTP answers, tables, CSV, progress lines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/text.h"
#include "cli/http_client.h"
#include "cli/options.h"
#include "cli/predictions.h"
#include "cli/progress.h"
#include "cli/sse.h"
#include "cli/table.h"

/* ---- event streams ---- */

static bool collect(void *arg, const char *data)
{
    struct buf *out = arg;

    buf_printf(out, "[%s]", data);
    return strcmp(data, "stop") != 0;
}

static void test_sse(void **state)
{
    static const char text[] = ": ping\n\nretry: 250\nid: 1\ndata: a\n\ndata:b\r\ndata: c\r\nid: 22\r\n\r\nevent: x\n\n"
                               "data\n\ndata: half";
    (void)state;
    for (size_t piece = 1; piece < sizeof text; piece++) {
        struct sse sse;
        struct buf out;

        sse_init(&sse);
        buf_init(&out, 1000);
        for (size_t at = 0; at < strlen(text); at += piece) {
            size_t left = strlen(text) - at;

            assert_true(sse_feed(&sse, text + at, left < piece ? left : piece, collect, &out));
        }
        assert_string_equal(out.data, "[a][b\nc][]");
        assert_string_equal(sse.id, "22");
        assert_int_equal(sse.retry_ms, 250);
        sse_reset(&sse);
        assert_false(sse_feed(&sse, "data: stop\n\ndata: no\n\n", 23, collect, &out));
        assert_string_equal(out.data, "[a][b\nc][][stop]");
        buf_release(&out);
        sse_release(&sse);
    }
}

static void test_sse_endless_line(void **state)
{
    static char text[1 << 16];
    struct sse sse;
    bool ok = true;

    (void)state;
    memset(text, 'x', sizeof text);
    sse_init(&sse);
    for (int i = 0; i < 100 && ok; i++)
        ok = sse_feed(&sse, text, sizeof text, collect, NULL);
    assert_false(ok);
    sse_release(&sse);
}

/* ---- HTTP ---- */

static void test_addresses(void **state)
{
    static const struct {
        const char *url, *shown;
        bool local;
    } good[] = {
        {"http://127.0.0.1:8000", "http://127.0.0.1:8000", true},
        {"localhost:9", "http://localhost:9", true},
        {"http://host", "http://host:80", false},
        {"http://[::1]:8000/x/", "http://[::1]:8000", true},
        {"HTTP://h:1/p?q", "http://h:1", false},
    };
    static const char *const bad[] = {"",           "http://",     "http://:8",    "http://h:", "http://h:123456",
                                      "http://h:x", "http://[::1", "http://a b:1", "https://h", "http://h\r\n:1"};
    struct http_client *client;
    struct err err;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(http_client_new(good[i].url, NULL, &client, &err));
        assert_string_equal(http_client_url(client), good[i].shown);
        assert_int_equal(http_client_is_local(client), good[i].local);
        http_client_free(client);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(http_client_new(bad[i], NULL, &client, &err));
    assert_false(http_client_new("http://h", "two\r\nlines", &client, &err));
}

/* A child that answers one connection with `answer`, `piece` bytes at a time. Returns its pid, and a client for it. */
static pid_t serve(const char *answer, size_t piece, struct http_client **ret)
{
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    char url[64];
    struct err err;
    pid_t pid;

    assert_int_equal(bind(listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(listener, 1), 0);
    getsockname(listener, (struct sockaddr *)&address, &size);
    snprintf(url, sizeof url, "http://127.0.0.1:%d", ntohs(address.sin_port));
    assert_true(http_client_new(url, "key", ret, &err));
    pid = fork();
    if (pid == 0) {
        int fd = accept(listener, NULL, NULL);
        char request[1000];

        if (read(fd, request, sizeof request) < 10)
            _exit(1);
        for (size_t left = strlen(answer); left > 0;) {
            size_t n = left < piece ? left : piece;

            if (write(fd, answer, n) != (ssize_t)n)
                break;
            answer += n;
            left -= n;
        }
        shutdown(fd, SHUT_WR);
        while (read(fd, request, sizeof request) > 0)
            ;
        _exit(0);
    }
    close(listener);
    return pid;
}

/* Asks once; the status, or 0 when the conversation broke. */
static int answer_of(const char *text, size_t piece, struct buf *body)
{
    struct http_client *client;
    pid_t pid = serve(text, piece, &client);
    struct err err;
    int status = 0;

    buf_init(body, 1 << 20);
    if (!http_client_request(client, "GET", "/", NULL, NULL, &status, body, &err))
        status = 0;
    http_client_free(client);
    waitpid(pid, NULL, 0);
    return status;
}

static void test_answers(void **state)
{
    static const struct {
        const char *text;
        int status;
        const char *body;
    } cases[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more", 200, "hello"},
        {"HTTP/1.1 404 Not Found\nContent-Length: 0\n\n", 404, ""},
        {"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, "until the end"},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\ntransfer-encoding: Chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n"
         "0123456789\r\n0\r\n\r\n",
         503, "abc0123456789"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\ncut", 0, NULL},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", 0, NULL},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 0, NULL},
        {"SMTP ready\r\n\r\n", 0, NULL},
        {"HTTP/1.1 200 OK\r\nX: y", 0, NULL},
        {"", 0, NULL},
    };
    struct buf body;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t piece = 1; piece <= 1000; piece += 111) {
            assert_int_equal(answer_of(cases[i].text, piece, &body), cases[i].status);
            if (cases[i].body)
                assert_string_equal(body.data, cases[i].body);
            buf_release(&body);
        }
}

static void test_endless_header(void **state)
{
    static char text[40000] = "HTTP/1.1 200 OK\r\nX: ";
    struct buf body;

    (void)state;
    memset(text + 20, 'x', sizeof text - 21);
    assert_int_equal(answer_of(text, sizeof text, &body), 0);
    buf_release(&body);
}

/* ---- tables and progress ---- */

static void test_width(void **state)
{
    (void)state;
    assert_int_equal(text_width("abc"), 3);
    assert_int_equal(text_width("任务 1"), 6);
    assert_int_equal(text_width("é"), 1);
    assert_int_equal(text_width("\xff"), 1);
    assert_int_equal(text_width(""), 0);
    assert_int_equal(text_fit("任务ab", 3), 3); /* half a character does not count */
    assert_int_equal(text_fit("任务ab", 4), 6);
    assert_int_equal(text_fit("ab", 9), 2);
}

static void test_table(void **state)
{
    const char *titles[] = {"a", "任务", "c"};
    struct table *table = table_new(3, titles);
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    (void)state;
    table_align_right(table, 1);
    table_cell(table, "%s", "训练");
    table_cell(table, "%d", 5);
    table_cell(table, "%s", "\x1b[31m a long message that is cut");
    table_print(table, out, 26);
    fclose(out);
    assert_string_equal(text, "a     任务  c\n训练     5  ?[31m a long …\n");
    free(text);
    table_free(table);
}

static void test_csv(void **state)
{
    static const struct {
        const char *line;
        size_t n;
        const char *fields[3];
    } cases[] = {
        {"a,b,c", 3, {"a", "b", "c"}},
        {"\"a,b\",\"say \"\"hi\"\"\",", 3, {"a,b", "say \"hi\"", ""}},
        {"", 1, {""}},
        {"\"unclosed, here", 1, {"unclosed, here"}},
        {"a\"b,c", 2, {"a\"b", "c"}},
        {"\"\",x", 2, {"", "x"}},
    };
    char *fields[CSV_FIELDS_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char line[64];

        snprintf(line, sizeof line, "%s", cases[i].line);
        assert_int_equal(csv_split(line, fields), cases[i].n);
        for (size_t k = 0; k < cases[i].n; k++)
            assert_string_equal(fields[k], cases[i].fields[k]);
    }
}

static void test_progress(void **state)
{
    struct progress progress;
    struct buf line;
    json_t *record = json_pack("{s:s,s:s,s:i,s:i,s:i}", "status", "running", "device", "cpu", "progress", 0,
                               "current_epoch", 1, "total_epochs", 4);
    json_t *metrics = json_pack("{s:i,s:f,s:f}", "epoch", 1, "train_loss", 0.51234, "val_acc", 87.5);

    (void)state;
    text_set_language("en");
    progress_init(&progress);
    progress_record(&progress, record, 100.0);
    assert_true(progress_remaining(&progress, 110.0) < 0);
    json_object_set_new(record, "progress", json_integer(25));
    progress_record(&progress, record, 110.0);
    progress_metrics(&progress, metrics);
    assert_true(fabs(progress_remaining(&progress, 110.0) - 30.0) < 1e-9);
    buf_init(&line, 1000);
    progress_line(&progress, 110.0, 200, &line);
    assert_string_equal(line.data, "epoch 1/4 [######..................]  25%  left 0:30  loss 0.5123  val 87.50%");
    buf_clear(&line);
    progress_line(&progress, 110.0, 20, &line);
    assert_string_equal(line.data, "epoch 1/4 [######...");
    buf_clear(&line);
    progress_epoch_line(&progress, &line);
    assert_string_equal(line.data, "epoch 1/4  loss 0.5123  val 87.50%");
    buf_release(&line);
    json_decref(record);
    json_decref(metrics);
}

static void test_options(void **state)
{
    char *argv[] = {"cmd", "--url", "a", "word", "--json", "--url=b", NULL};
    int argc = 6;
    const char *url = NULL;
    struct err err;

    (void)state;
    assert_true(option_flag(&argc, argv, "--json"));
    assert_false(option_flag(&argc, argv, "--json"));
    assert_true(option_value(&argc, argv, "--url", &url, &err));
    assert_string_equal(url, "b");
    assert_int_equal(argc, 2);
    assert_true(options_end(argc, argv, 1, 1, "WORD", &err));
    assert_false(options_end(argc, argv, 2, 2, "WORD", &err));
    assert_string_equal(err.message, "WORD is missing");
    assert_false(options_end(argc, argv, 0, 0, "WORD", &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sse),
        cmocka_unit_test(test_sse_endless_line),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_endless_header),
        cmocka_unit_test(test_width),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_csv),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_options),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
