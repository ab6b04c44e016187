/* submit.c - `rfuav train` and `rfuav infer`: a request from the command line, posted and followed. Every field of the
 * request's table is an option; what the user does not name is left to the service's defaults. */
#include <dirent.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fields.h"
#include "base/text.h"
#include "cli/follow.h"
#include "cli/options.h"
#include "cli/predictions.h"
#include "commands.h"
#include "task/requests.h"

struct submission {
    const char *command, *start_path;
    const struct field_table *request;
    bool inference;
    bool detach, json, verbose, cancel_on_interrupt;
};

static int help(const struct submission *what)
{
    struct buf text;

    buf_init(&text, 64 * 1024);
    fields_help(what->request, &text);
    printf(tr("用法: rfuav %s [选项]\n\n", "usage: rfuav %s [OPTIONS]\n\n"), what->command);
    fputs(text.data ? text.data : "", stdout);
    putchar('\n');
    printf("  %-34s  %s\n", "--detach", tr("提交后立即返回", "return at once, leave the task to the service"));
    printf("  %-34s  %s\n", "--verbose", tr("显示完整日志而不是进度条", "show the whole log, no progress bar"));
    printf("  %-34s  %s\n", "--cancel-on-interrupt",
           tr("按 Ctrl-C 时取消任务 (默认: 任务继续运行)", "Ctrl-C cancels the task (else the task goes on)"));
    service_help(stdout);
    buf_release(&text);
    return 0;
}

/* "--batch-size" of "batch_size". */
static void option_name(const struct field *field, const char *prefix, char name[64])
{
    snprintf(name, 64, "--%s%s", prefix, field->name);
    for (char *p = name; *p; p++)
        if (*p == '_')
            *p = '-';
}

static bool was_given(const struct field *field, int argc, char **argv)
{
    char yes[64], no[64];

    option_name(field, "", yes);
    option_name(field, "no-", no);
    for (int i = 1; i < argc; i++) {
        size_t length = strcspn(argv[i], "=");

        if ((strlen(yes) == length && strncmp(argv[i], yes, length) == 0) || strcmp(argv[i], no) == 0)
            return true;
    }
    return false;
}

/* The options as the JSON of the request, without the fields that were not given; NULL with *err set. */
static json_t *read_request(const struct field_table *table, int *argc, char **argv, struct err *err)
{
    struct arena *arena = arena_new(0);
    void *request = arena ? arena_alloc(arena, table->size) : NULL;
    bool given[64] = {false};
    json_t *body = NULL;

    for (size_t i = 0; i < table->count && i < 64; i++)
        given[i] = was_given(&table->fields[i], *argc, argv);
    if (!request || !fields_defaults(table, request, arena)) {
        err_set(err, ERR_MEMORY, tr("内存不足", "out of memory"));
    } else if (fields_args(table, argc, argv, request, arena, err)) {
        body = fields_write(table, request);
        if (!body)
            err_set(err, ERR_INVALID, tr("参数不是有效的 UTF-8", "an argument is not valid UTF-8"));
        for (size_t i = 0; body && i < table->count; i++)
            if (!given[i])
                json_object_del(body, table->fields[i].name);
    }
    arena_free(arena);
    return body;
}

/* Relative paths mean the user's folder, not the service's; only where both are on one machine. */
static bool make_absolute(json_t *body, struct err *err)
{
    const char *key;
    json_t *value;
    void *next;
    char folder[PATH_MAX];

    if (!getcwd(folder, sizeof folder))
        return err_set(err, ERR_IO, tr("当前目录不可用", "the current folder is gone"));
    json_object_foreach_safe(body, next, key, value)
    {
        const char *path = json_string_value(value);
        size_t length = strlen(key);

        if (!path || !*path || *path == '/' || length < 5 || strcmp(key + length - 5, "_path") != 0)
            continue;
        json_object_set_new(body, key, json_sprintf("%s/%s", folder, path));
    }
    return true;
}

/* Class folders in a data set; 0 when we cannot look. */
static int count_classes(const char *path)
{
    DIR *dir = path ? opendir(path) : NULL;
    struct dirent *entry;
    int count = 0;

    while (dir && (entry = readdir(dir))) {
        struct stat st;

        if (entry->d_name[0] != '.' && fstatat(dirfd(dir), entry->d_name, &st, 0) == 0 && S_ISDIR(st.st_mode))
            count++;
    }
    if (dir)
        closedir(dir);
    return count;
}

/* What a person at a terminal may leave out: the number of classes, and where an inference's results go. */
static void fill_in(const struct submission *what, json_t *body)
{
    char folder[PATH_MAX - 16];

    if (!what->inference && !json_object_get(body, "num_classes")) {
        int classes = count_classes(json_text(body, "train_path", NULL));

        if (classes > 0)
            json_object_set_new(body, "num_classes", json_integer(classes));
    }
    if (what->inference && !json_object_get(body, "save_path") && getcwd(folder, sizeof folder))
        json_object_set_new(body, "save_path", json_sprintf("%s/results", folder));
}

static bool check_required(const struct field_table *table, const json_t *body, struct err *err)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct field *field = &table->fields[i];
        char name[64];

        option_name(field, "", name);
        if ((field->flags & FIELD_REQUIRED) && !json_object_get(body, field->name))
            return err_set(err, ERR_INVALID, tr("缺少 %s (%s)", "%s is missing (%s)"), name, field->doc);
    }
    return true;
}

/* {save_path}/{name}, where an inference leaves its files. */
static void print_results(const json_t *body)
{
    const char *name = json_text(body, "name", "");
    char folder[PATH_MAX];

    if (snprintf(folder, sizeof folder, "%s%s%s", json_text(body, "save_path", ""), *name ? "/" : "", name) >=
        (int)sizeof folder)
        return;
    if (predictions_print(folder, stdout, terminal_width()))
        printf(tr("结果保存在 %s\n", "the results are in %s\n"), folder);
}

static int post(const struct submission *what, struct service *service, json_t *body)
{
    struct follow_options options = {.command = what->command,
                                     .bar = terminal_width() > 0 && !what->verbose && !what->json,
                                     .json = what->json,
                                     .cancel_on_interrupt = what->cancel_on_interrupt};
    struct err err;
    json_t *record = service_call(service, "POST", what->start_path, json_incref(body), &err);
    const char *id = json_text(record, "task_id", "");
    int status = 0;

    if (!record)
        return service_fail(what->command, &err);
    if (what->json)
        service_print_json(record);
    else
        printf(tr("任务 %s\n", "task %s\n"), id);
    fflush(stdout);
    if (!what->detach) {
        status = follow_task(service, id, &options);
        if (status == 0 && !what->json && what->inference)
            print_results(body);
    }
    json_decref(record);
    return status;
}

static int submit(struct submission what, int argc, char **argv)
{
    struct service service = {0};
    struct err err;
    json_t *body = NULL;
    int status = 2;

    if (option_help(argc, argv))
        return help(&what);
    what.detach = option_flag(&argc, argv, "--detach");
    what.json = option_flag(&argc, argv, "--json");
    what.verbose = option_flag(&argc, argv, "--verbose");
    what.cancel_on_interrupt = option_flag(&argc, argv, "--cancel-on-interrupt");
    if (!service_open(&service, &argc, argv, &err) || !(body = read_request(what.request, &argc, argv, &err)) ||
        !options_end(argc, argv, 0, 0, "", &err)) {
        service_fail(what.command, &err);
        goto out;
    }
    if (http_client_is_local(service.client)) {
        if (!make_absolute(body, &err)) {
            status = service_fail(what.command, &err);
            goto out;
        }
        fill_in(&what, body);
    }
    status = check_required(what.request, body, &err) ? post(&what, &service, body) : service_fail(what.command, &err);
out:
    json_decref(body);
    service_close(&service);
    return status;
}

int command_train(int argc, char **argv)
{
    return submit((struct submission){.command = "train",
                                      .start_path = "/api/v2/training/start",
                                      .request = &train_request_table},
                  argc, argv);
}

int command_infer(int argc, char **argv)
{
    return submit((struct submission){.command = "infer",
                                      .start_path = "/api/v2/inference/start",
                                      .request = &infer_request_table,
                                      .inference = true},
                  argc, argv);
}
