/* test_message.c - packets between daemon and worker: what fits, what is cut, what is refused */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/text.h"
#include "task/message.h"

static int pair[2];

static int open_pair(void **state)
{
    (void)state;
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
}

static int close_pair(void **state)
{
    (void)state;
    close(pair[0]);
    close(pair[1]);
    return 0;
}

static json_t *receive(void)
{
    static char data[MESSAGE_MAX + 1];
    ssize_t size = recv(pair[1], data, sizeof data, 0);
    struct err err;
    json_t *message;

    assert_true(size > 0);
    message = message_parse(data, (size_t)size, &err);
    assert_non_null(message);
    return message;
}

static void round_trip(void **state)
{
    json_t *sent = json_pack("{s:s, s:s, s:{s:f, s:i}}", "type", "log", "message", "训练完成！\n\"quoted\"", "metrics",
                             "learning_rate", 1e-7, "epoch", 3),
           *got;
    struct err err;

    (void)state;
    assert_true(message_send(pair[0], sent, &err));
    got = receive();
    assert_true(json_equal(sent, got));
    json_decref(sent);
    json_decref(got);
}

/* Whatever the text is made of, the packet arrives and the text is a valid beginning of the one that was sent. */
static void long_line_is_cut_at_a_character(void **state)
{
    static const char *const pieces[] = {"a", "训", "\x01", "🚀", "\""};

    (void)state;
    for (size_t p = 0; p < sizeof pieces / sizeof *pieces; p++)
        for (size_t bytes = MESSAGE_MAX - 200; bytes < 4 * (size_t)MESSAGE_MAX; bytes += 70001) {
            size_t step = strlen(pieces[p]), n = bytes / step;
            char *text = malloc(n * step + 1);
            const char *cut;
            json_t *sent, *got;
            struct err err;

            for (size_t i = 0; i < n; i++)
                memcpy(text + i * step, pieces[p], step);
            text[n * step] = 0;
            sent = json_pack("{s:s, s:s, s:s}", "type", "log", "level", "INFO", "message", text);
            assert_true(message_send(pair[0], sent, &err));
            got = receive();
            cut = json_string_value(json_object_get(got, "message"));
            assert_true(text_is_utf8(cut, strlen(cut)));
            assert_string_equal(json_string_value(json_object_get(got, "level")), "INFO");
            if (strlen(cut) < n * step) {
                assert_memory_equal(cut, text, strlen(cut) - strlen(" […]"));
                assert_true(strlen(cut) > MESSAGE_MAX / 20);
            }
            json_decref(sent);
            json_decref(got);
            free(text);
        }
}

static void too_large_without_a_text_is_an_error(void **state)
{
    json_t *message = json_pack("{s:s}", "type", "end"), *list = json_array();
    struct err err;

    (void)state;
    for (int i = 0; i < MESSAGE_MAX; i++)
        json_array_append_new(list, json_integer(i));
    json_object_set_new(message, "stats", list);
    assert_false(message_send(pair[0], message, &err));
    assert_int_equal(err.kind, ERR_TOO_LARGE);
    json_decref(message);
}

static void full_socket_and_closed_socket(void **state)
{
    json_t *message = json_pack("{s:s}", "type", "cancel");
    struct timeval soon = {0, 1000};
    struct err err;

    (void)state;
    setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &soon, sizeof soon);
    while (message_send(pair[0], message, &err))
        ;
    assert_int_equal(err.kind, ERR_BUSY);
    close(pair[1]);
    assert_false(message_send(pair[0], message, &err));
    assert_int_equal(err.kind, ERR_IO);
    json_decref(message);
    pair[1] = dup(pair[0]);
}

static void refused(void **state)
{
    static const char *const bad[] = {
        "",     "{",          "[]",           "{}",         "{\"type\":1}",      "\"type\"",
        "null", "{\"type\":", "{type:\"a\"}", "\xff\xfe{}", "{\"type\":\"a\"} x"};
    char deep[200] = "{\"type\":\"log\",\"a\":", *p = deep + strlen(deep);
    struct err err;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_null(message_parse(bad[i], strlen(bad[i]), &err));
        assert_int_equal(err.kind, ERR_INVALID);
    }
    /* a token whose quotation in the parser's words is cut inside a character */
    for (size_t n = 90; n < 170; n++) {
        char token[200] = "{\"type\":\"", *end = token + strlen(token);

        memset(end, 'a', n - strlen(token));
        memcpy(token + n, "训练", 6);
        assert_null(message_parse(token, n + 6, &err));
        assert_true(text_is_utf8(err.message, strlen(err.message)));
    }
    memset(p, '[', 60);
    memset(p + 60, ']', 60);
    p[120] = (char)125;
    assert_null(message_parse(deep, strlen(deep), &err));
    assert_non_null(strstr(err.message, "nested"));
    p = calloc(1, MESSAGE_MAX + 1);
    assert_null(message_parse(p, MESSAGE_MAX + 1, &err));
    assert_int_equal(err.kind, ERR_TOO_LARGE);
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(round_trip, open_pair, close_pair),
        cmocka_unit_test_setup_teardown(long_line_is_cut_at_a_character, open_pair, close_pair),
        cmocka_unit_test_setup_teardown(too_large_without_a_text_is_an_error, open_pair, close_pair),
        cmocka_unit_test_setup_teardown(full_socket_and_closed_socket, open_pair, close_pair),
        cmocka_unit_test(refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
