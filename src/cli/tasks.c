/* tasks.c - `rfuav tasks`, `status`, `logs`, `cancel`, `delete`: what the service has to do, and what became of it. */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "cli/follow.h"
#include "cli/options.h"
#include "cli/table.h"
#include "commands.h"

enum { PATH_MAX_BYTES = 4096 };

static int usage(const char *line, const char *zh, const char *en)
{
    printf(tr("用法: rfuav %s\n", "usage: rfuav %s\n"), line);
    printf("%s\n\n", tr(zh, en));
    service_help(stdout);
    return 0;
}

/* tasks */

static void add_task(struct table *table, const json_t *task)
{
    const json_t *epochs = json_object_get(task, "total_epochs");
    const char *created = json_text(task, "created_at", "");

    table_cell(table, "%s", json_text(task, "task_id", ""));
    table_cell(table, "%s", json_text(task, "task_type", ""));
    table_cell(table, "%s", json_text(task, "status", ""));
    table_cell(table, "%.0f%%", json_double(task, "progress", 0));
    if (json_is_integer(epochs))
        table_cell(table, "%.0f/%lld", json_double(task, "current_epoch", 0), (long long)json_integer_value(epochs));
    else
        table_cell(table, "%s", "");
    table_cell(table, "%s", json_text(task, "device", ""));
    table_cell(table, "%.0f", json_double(task, "priority", 0));
    table_cell(table, "%.10s %.8s", created, strlen(created) > 11 ? created + 11 : "");
    table_cell(table, "%s", json_text(task, "message", ""));
}

/* Both lists together in the order of creation: each is in that order already. */
static void print_tasks(const json_t *answer)
{
    const char *titles[] = {tr("任务", "task"),    tr("类型", "type"),        tr("状态", "state"),
                            tr("进度", "done"),    tr("轮次", "epoch"),       tr("设备", "device"),
                            tr("优先级", "prio."), tr("创建时间", "created"), tr("消息", "message")};
    const json_t *lists[] = {json_object_get(answer, "training_tasks"), json_object_get(answer, "inference_tasks")};
    struct table *table = table_new(sizeof titles / sizeof *titles, titles);
    size_t next[2] = {0, 0}, total = json_array_size(lists[0]) + json_array_size(lists[1]);

    table_align_right(table, 3);
    table_align_right(table, 4);
    table_align_right(table, 6);
    for (size_t i = 0; i < total; i++) {
        const json_t *a = json_array_get(lists[0], next[0]), *b = json_array_get(lists[1], next[1]);
        bool first = a && (!b || strcmp(json_text(a, "created_at", ""), json_text(b, "created_at", "")) <= 0);

        add_task(table, first ? a : b);
        next[first ? 0 : 1]++;
    }
    if (total > 0)
        table_print(table, stdout, terminal_width());
    else
        puts(tr("没有任务", "no tasks"));
    table_free(table);
}

int command_tasks(int argc, char **argv)
{
    const char *state = NULL, *type = NULL, *limit = "20";
    bool json = option_flag(&argc, argv, "--json");
    struct service service = {0};
    struct err err;
    struct buf path;
    json_t *answer = NULL;
    int status = 0;

    if (option_help(argc, argv))
        return usage("tasks [--status STATE] [--type training|inference] [--limit N]",
                     "列出最近的任务 (每种默认 20 个)", "lists the latest tasks (20 of each kind by default)");
    buf_init(&path, PATH_MAX_BYTES);
    if (service_open(&service, &argc, argv, &err) && option_value(&argc, argv, "--status", &state, &err) &&
        option_value(&argc, argv, "--type", &type, &err) && option_value(&argc, argv, "--limit", &limit, &err) &&
        options_end(argc, argv, 0, 0, "", &err)) {
        if (strspn(limit, "0123456789") != strlen(limit) || !*limit)
            err_set(&err, ERR_INVALID, tr("--limit 应为非负整数", "--limit takes a whole number, not \"%s\""), limit);
        else if ((state && strspn(state, "abcdefghijklmnopqrstuvwxyz") != strlen(state)) ||
                 (type && strcmp(type, "training") != 0 && strcmp(type, "inference") != 0))
            err_set(&err, ERR_INVALID, "%s",
                    tr("--status 为任务状态之一，--type 为 training 或 inference",
                       "--status takes a state such as running, --type takes training or inference"));
        else {
            buf_printf(&path, "/api/v2/tasks?limit=%s", limit);
            if (state)
                buf_printf(&path, "&status=%s", state);
            if (type)
                buf_printf(&path, "&task_type=%s", type);
            answer = service_call(&service, "GET", path.data, NULL, &err);
        }
    }
    if (!answer)
        status = service_fail("tasks", &err);
    else if (json)
        service_print_json(answer);
    else
        print_tasks(answer);
    json_decref(answer);
    buf_release(&path);
    service_close(&service);
    return status;
}

/* status: the service, or one task */

/* "train_loss 0.5123, train_acc 81.2" of a nested object, without what is null; other values as they are. */
static void print_value(const json_t *value)
{
    char *text = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
    const char *key;
    json_t *inner;
    bool first = true;

    if (json_is_object(value)) {
        json_object_foreach((json_t *)value, key, inner)
        {
            if (json_is_null(inner))
                continue;
            printf("%s%s ", first ? "" : ", ", key);
            print_value(inner);
            first = false;
        }
    } else if (!json_is_null(value)) {
        text_print(stdout, text ? text : json_is_string(value) ? json_string_value(value) : "");
    }
    free(text);
}

static void print_object(const json_t *object)
{
    const char *key;
    json_t *value;
    int width = 0;

    json_object_foreach((json_t *)object, key, value)
    {
        if ((int)strlen(key) > width)
            width = (int)strlen(key);
    }
    json_object_foreach((json_t *)object, key, value)
    {
        printf("%-*s  ", width, key);
        print_value(value);
        putchar('\n');
    }
}

/* A command on one task: method and path, and what is shown of the answer. */
static int on_task(const char *command, const char *method, const char *tail, int argc, char **argv, bool whole)
{
    bool json = option_flag(&argc, argv, "--json");
    struct service service = {0};
    struct err err;
    struct buf path;
    json_t *answer = NULL;
    int status = 0;

    buf_init(&path, PATH_MAX_BYTES);
    if (service_open(&service, &argc, argv, &err) && options_end(argc, argv, 1, 1, "TASK_ID", &err)) {
        service_task_path(&path, argv[1], tail);
        answer = service_call(&service, method, path.data, NULL, &err);
    }
    if (!answer) {
        status = service_fail(command, &err);
    } else if (json) {
        service_print_json(answer);
    } else if (whole) {
        print_object(answer);
    } else {
        text_print(stdout, json_text(answer, "message", ""));
        putchar('\n');
    }
    json_decref(answer);
    buf_release(&path);
    service_close(&service);
    return status;
}

int command_cancel(int argc, char **argv)
{
    if (option_help(argc, argv))
        return usage("cancel TASK_ID", "取消一个任务", "ends a task that waits or runs");
    return on_task("cancel", "POST", "/cancel", argc, argv, false);
}

int command_delete(int argc, char **argv)
{
    if (option_help(argc, argv))
        return usage("delete TASK_ID", "删除一个已结束任务的记录，不删除文件",
                     "drops the record of an ended task; its files stay");
    return on_task("delete", "DELETE", "", argc, argv, false);
}

int command_status(int argc, char **argv)
{
    bool json;
    struct service service = {0};
    struct err err;
    json_t *health = NULL;
    int status = 0;

    if (option_help(argc, argv))
        return usage("status [TASK_ID]", "显示服务或一个任务的状态", "shows how the service, or one task, is");
    for (int i = 1; i < argc; i++) /* a word that is no option's value: a task */
        if (argv[i][0] != '-' && strcmp(argv[i - 1], "--url") != 0 && strcmp(argv[i - 1], "--api-key") != 0)
            return on_task("status", "GET", "", argc, argv, true);
    json = option_flag(&argc, argv, "--json");
    if (service_open(&service, &argc, argv, &err) && options_end(argc, argv, 0, 0, "", &err))
        health = service_call(&service, "GET", "/api/v1/health", NULL, &err);
    if (!health)
        status = service_fail("status", &err);
    else if (json)
        service_print_json(health);
    else
        printf(tr("%s: %s，版本 %s，训练任务 %.0f，推理任务 %.0f，打开的日志流 %.0f\n",
                  "%s: %s, version %s, %.0f trainings, %.0f inferences, %.0f open log streams\n"),
               http_client_url(service.client), json_text(health, "status", "?"), json_text(health, "version", "?"),
               json_double(health, "training_tasks", 0), json_double(health, "inference_tasks", 0),
               json_double(health, "active_log_streams", 0));
    json_decref(health);
    service_close(&service);
    return status;
}

int command_logs(int argc, char **argv)
{
    struct follow_options options = {.command = "logs"};
    struct service service = {0};
    struct err err;
    int status;

    if (option_help(argc, argv))
        return usage("logs TASK_ID", "显示任务的日志直到结束；退出状态 0 表示任务成功",
                     "shows a task's log until it ends; the exit status is 0 when the task completed");
    options.json = option_flag(&argc, argv, "--json");
    if (service_open(&service, &argc, argv, &err) && options_end(argc, argv, 1, 1, "TASK_ID", &err))
        status = follow_task(&service, argv[1], &options);
    else
        status = service_fail("logs", &err);
    service_close(&service);
    return status;
}
