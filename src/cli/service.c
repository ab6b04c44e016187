/* service.c - see service.h */
#include "cli/service.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/text.h"
#include "cli/options.h"
#include "cli/table.h"

static const char default_url[] = "http://127.0.0.1:8000";

enum { BODY_MAX = 64 << 20 };

bool service_open(struct service *service, int *argc, char **argv, struct err *err)
{
    const char *url = getenv("RFUAV_URL"), *key = getenv("RFUAV_API_KEY");

    service->client = NULL;
    if (!url || !*url)
        url = default_url;
    return option_value(argc, argv, "--url", &url, err) && option_value(argc, argv, "--api-key", &key, err) &&
           http_client_new(url, key, &service->client, err);
}

void service_close(struct service *service)
{
    service->client = http_client_free(service->client);
}

/* One fault of a 422: "batch_size: Input should be greater than or equal to 1". */
static void explain_fault(const json_t *fault, struct buf *out)
{
    const json_t *loc = json_object_get(fault, "loc");
    bool first = true;

    buf_puts(out, "\n  ");
    for (size_t i = 1; i < json_array_size(loc); i++, first = false) {
        const json_t *part = json_array_get(loc, i);

        if (!first)
            buf_puts(out, ".");
        if (json_is_string(part))
            buf_puts(out, json_string_value(part));
        else
            buf_printf(out, "%lld", (long long)json_integer_value(part));
    }
    if (!first)
        buf_puts(out, ": ");
    buf_puts(out, json_text(fault, "msg", "?"));
}

void service_explain(int status, const char *body, struct err *err)
{
    enum err_kind kind = status == 404 ? ERR_NOT_FOUND : status == 409 ? ERR_CONFLICT : ERR_REQUEST;
    json_t *answer = json_loads(body, JSON_DECODE_ANY, NULL);
    const json_t *detail = json_object_get(answer, "detail");

    if (status == 401) {
        err_set(err, kind,
                tr("服务需要 API 密钥: 用 --api-key 或环境变量 RFUAV_API_KEY 给出",
                   "the service asks for an API key: give it by --api-key or the variable RFUAV_API_KEY"));
    } else if (json_is_string(detail)) {
        err_set(err, kind, "%s", json_string_value(detail));
    } else if (json_array_size(detail) > 0) {
        struct buf text;

        buf_init(&text, 16 * 1024);
        buf_puts(&text, tr("服务拒绝了请求:", "the service refused the request:"));
        for (size_t i = 0; i < json_array_size(detail); i++)
            explain_fault(json_array_get(detail, i), &text);
        err_set(err, kind, "%s", text.data ? text.data : "");
        buf_release(&text);
    } else {
        err_set(err, kind, tr("服务返回状态 %d: %.200s", "the service answered status %d: %.200s"), status, body);
    }
    json_decref(answer);
}

bool service_hint(const struct service *service, struct err *err)
{
    char message[sizeof err->message];

    if (err->kind != ERR_NOT_FOUND)
        return false;
    memcpy(message, err->message, sizeof message);
    return err_set(err, ERR_NOT_FOUND, "%s\n%s", message,
                   http_client_is_local(service->client)
                       ? tr("服务没有运行？用 \"rfuav serve\" 启动它，或用 --url 指定地址",
                            "Is the service running? \"rfuav serve\" starts it; --url names another address")
                       : tr("请检查 --url 或 RFUAV_URL 的地址", "Check the address in --url or RFUAV_URL"));
}

json_t *service_call(struct service *service, const char *method, const char *path, json_t *body, struct err *err)
{
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    struct buf answer;
    json_t *value = NULL;
    json_error_t reason;
    int status;

    buf_init(&answer, BODY_MAX);
    if (body && !text) {
        err_set(err, ERR_INVALID, tr("请求包含无效的文字 (不是 UTF-8)", "the request holds text that is not UTF-8"));
    } else if (!http_client_request(service->client, method, path, NULL, text, &status, &answer, err)) {
        service_hint(service, err);
    } else if (status >= 400) {
        service_explain(status, answer.data, err);
    } else {
        value = json_loadb(answer.data, answer.size, JSON_DECODE_ANY, &reason);
        if (!value)
            err_set(err, ERR_IO, tr("%s 的响应不是 JSON (%s)", "%s did not answer with JSON (%s)"),
                    http_client_url(service->client), reason.text);
    }
    buf_release(&answer);
    free(text);
    json_decref(body);
    return value;
}

void service_task_path(struct buf *path, const char *id, const char *tail)
{
    buf_puts(path, "/api/v2/tasks/");
    for (const unsigned char *p = (const unsigned char *)id; *p; p++) {
        if (isalnum(*p) || strchr("-_.~", *p))
            buf_append(path, p, 1);
        else
            buf_printf(path, "%%%02X", *p);
    }
    buf_puts(path, tail);
}

void service_help(FILE *out)
{
    fprintf(out, "  %-34s  %s\n", "--url URL",
            tr("服务地址 (默认 RFUAV_URL，否则 http://127.0.0.1:8000)",
               "where the service is (RFUAV_URL, else http://127.0.0.1:8000)"));
    fprintf(out, "  %-34s  %s\n", "--api-key KEY", tr("API 密钥 (默认 RFUAV_API_KEY)", "its API key (RFUAV_API_KEY)"));
    fprintf(out, "  %-34s  %s\n", "--json", tr("输出服务返回的 JSON", "print the service's JSON"));
}

int service_fail(const char *command, const struct err *err)
{
    fprintf(stderr, "rfuav %s: ", command);
    for (const char *line = err->message; *line;) {
        size_t length = strcspn(line, "\n");
        char *one = strndup(line, length);

        text_print(stderr, one ? one : "");
        free(one);
        fputc('\n', stderr);
        line += length + (line[length] == '\n');
    }
    return err->kind == ERR_INVALID ? 2 : 1;
}

void service_print_json(const json_t *value)
{
    json_dumpf(value, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    putchar('\n');
}

size_t terminal_width(void)
{
    struct winsize size;

    if (!isatty(STDOUT_FILENO))
        return 0;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0)
        return 80;
    return size.ws_col;
}

const char *json_text(const json_t *object, const char *key, const char *fallback)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : fallback;
}

double json_double(const json_t *object, const char *key, double fallback)
{
    const json_t *value = json_object_get(object, key);

    return json_is_number(value) ? json_number_value(value) : fallback;
}
