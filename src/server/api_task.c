/* api_task.c - records of tasks: read, listed, cancelled, dropped. */
#include <string.h>

#include "base/text.h"
#include "server/api_internal.h"
#include "task/kinds.h"

/* the keys of TrainingMetrics, all of them always there */
static const char *const metric_names[] = {
    "epoch",           "total_epochs", "train_loss", "train_acc", "val_loss",      "val_acc",         "macro_f1",
    "micro_f1",        "mAP",          "top1_acc",   "top3_acc",  "top5_acc",      "macro_precision", "macro_recall",
    "micro_precision", "micro_recall", "precision",  "recall",    "learning_rate", "best_acc",
};

enum { METRICS = sizeof metric_names / sizeof *metric_names };

struct slice {
    const char *start;
    size_t size;
};

/* Takes the next `"name":number` off the text of a flat JSON object. The text is the store's own: it is copied, not
 * parsed, because a list would spend most of its time on turning numbers into binary and back. */
static bool next_metric(const char **text, struct slice *name, struct slice *value)
{
    const char *p = strchr(*text, '"'), *end = p ? strchr(p + 1, '"') : NULL;

    if (!end)
        return false;
    *name = (struct slice){p + 1, (size_t)(end - p - 1)};
    p = end + 1;
    p += strspn(p, ": ");
    *value = (struct slice){p, strspn(p, "+-.0123456789eE")};
    *text = p + value->size;
    return true;
}

static void metrics_json(struct buf *json, const char *text)
{
    struct slice values[METRICS] = {{NULL, 0}}, name, value;

    if (!text) {
        buf_puts(json, "null");
        return;
    }
    while (next_metric(&text, &name, &value))
        for (size_t i = 0; i < METRICS; i++)
            if (name.size == strlen(metric_names[i]) && !memcmp(name.start, metric_names[i], name.size))
                values[i] = value;
    for (size_t i = 0; i < METRICS; i++) {
        buf_puts(json, i ? ",\"" : "{\"");
        buf_puts(json, metric_names[i]);
        buf_puts(json, "\":");
        if (values[i].size)
            buf_append(json, values[i].start, values[i].size);
        else
            buf_puts(json, "null");
    }
    buf_puts(json, "}");
}

static void optional_number(struct buf *json, const char *key, int64_t number)
{
    buf_puts(json, key);
    if (number > 0)
        buf_printf(json, "%lld", (long long)number);
    else
        buf_puts(json, "null");
}

void api_task_json(struct buf *json, const struct store_task *task)
{
    buf_puts(json, "{\"task_id\":");
    buf_json_string(json, task->id);
    buf_puts(json, ",\"task_type\":");
    buf_json_string(json, task->kind);
    buf_puts(json, ",\"status\":");
    buf_json_string(json, task_state_name(task->state));
    buf_puts(json, ",\"message\":");
    buf_json_string(json, task->message);
    buf_printf(json, ",\"progress\":%d,\"device\":", task->progress);
    buf_json_string(json, task->device);
    buf_printf(json, ",\"priority\":%d,\"created_at\":", task->priority);
    buf_json_string(json, task->created_at);
    buf_puts(json, ",\"updated_at\":");
    buf_json_string(json, task->updated_at);
    optional_number(json, ",\"current_epoch\":", task->current_epoch);
    optional_number(json, ",\"total_epochs\":", task->total_epochs);
    buf_puts(json, ",\"latest_metrics\":");
    metrics_json(json, task->metrics);
    buf_puts(json, "}");
}

/* Does the record belong to the routes of `kind`? NULL: trainings and inferences. */
static bool is_kind(const struct store_task *task, const char *kind)
{
    if (kind)
        return !strcmp(task->kind, kind);
    return !strcmp(task->kind, "training") || !strcmp(task->kind, "inference");
}

const char *api_missing(void)
{
    return tr("任务 %s 不存在", "task %s does not exist");
}

static void reply_missing(struct http_request *request, const char *missing)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    http_reply_detail(request, 404, missing, http_param(request));
#pragma GCC diagnostic pop
}

/* ---- one record ---- */

struct found {
    const char *kind;
    struct buf *json; /* NULL: not wanted */
    int64_t seq;
    bool ok;
};

static void on_found(void *arg, const struct store_task *task)
{
    struct found *found = arg;

    found->ok = is_kind(task, found->kind);
    found->seq = task->seq;
    if (found->ok && found->json)
        api_task_json(found->json, task);
}

/* Looks for the task of the path; answers when there is none. */
static bool find(struct http_request *request, struct api *api, const char *missing, struct found *found)
{
    struct err err;

    if (!store_find(api->options.store, http_param(request), on_found, found, &err) && err.kind != ERR_NOT_FOUND) {
        api_reply_err(request, &err);
        return false;
    }
    if (!found->ok)
        reply_missing(request, missing);
    return found->ok;
}

bool api_find_task(struct http_request *request, struct api *api, const char *kind, const char *missing,
                   int64_t *ret_seq)
{
    struct found found = {.kind = kind};

    if (!find(request, api, missing, &found))
        return false;
    *ret_seq = found.seq;
    return true;
}

static void reply_task(struct http_request *request, struct api *api, const char *kind)
{
    struct buf json;
    struct found found = {.kind = kind, .json = &json};

    buf_init(&json, API_ANSWER_MAX);
    if (find(request, api, api_missing(), &found))
        http_reply_buf(request, 200, &json);
    buf_release(&json);
}

void api_get_task(struct http_request *request, void *app)
{
    reply_task(request, app, NULL);
}

void api_get_training(struct http_request *request, void *app)
{
    reply_task(request, app, "training");
}

void api_get_inference(struct http_request *request, void *app)
{
    reply_task(request, app, "inference");
}

/* ---- cancel, delete ---- */

static void act(struct http_request *request, struct api *api, const char *kind, const char *missing, const char *done,
                bool (*action)(struct dispatch *dispatch, const char *id, struct err *err))
{
    struct err err;
    struct buf json;
    int64_t seq;

    if (!api_find_task(request, api, kind, missing, &seq))
        return;
    if (!action(api->options.dispatch, http_param(request), &err)) {
        if (err.kind == ERR_NOT_FOUND)
            reply_missing(request, missing);
        else
            api_reply_err(request, &err);
        return;
    }
    buf_init(&json, API_ANSWER_MAX);
    buf_puts(&json, "{\"status\":\"success\",\"message\":");
    buf_json_string(&json, done);
    buf_puts(&json, ",\"task_id\":");
    buf_json_string(&json, http_param(request));
    buf_puts(&json, "}");
    http_reply_buf(request, 200, &json);
}

void api_cancel_task(struct http_request *request, void *app)
{
    act(request, app, NULL, tr("任务 %s 不存在或无法取消", "task %s does not exist or cannot be cancelled"),
        tr("任务已取消", "task cancelled"), dispatch_cancel);
}

void api_stop_training(struct http_request *request, void *app)
{
    act(request, app, "training", api_missing(), tr("训练任务已停止", "training stopped"), dispatch_cancel);
}

void api_delete_task(struct http_request *request, void *app)
{
    act(request, app, NULL, tr("任务 %s 不存在或无法删除", "task %s does not exist or cannot be deleted"),
        tr("任务记录已删除", "task record deleted"), dispatch_delete);
}

/* ---- the list ---- */

struct list_query {
    const char *status, *task_type;
    int64_t limit;
};

static const struct field list_fields[] = {
    FIELD(list_query, status, STRING, .flags = FIELD_NULLABLE, .doc = "only tasks in this state"),
    FIELD(list_query, task_type, STRING, .flags = FIELD_NULLABLE, .doc = "training or inference"),
    FIELD(list_query, limit, INT, .initial = "100", .min = 0, .flags = FIELD_HAS_MIN,
          .doc = "the newest so many of each kind"),
};

const struct field_table api_list_table = FIELD_TABLE("TaskListQuery", list_query, list_fields);

struct listing {
    struct buf *json;
    size_t count;
};

static void on_listed(void *arg, const struct store_task *task)
{
    struct listing *listing = arg;

    if (listing->count++)
        buf_puts(listing->json, ",");
    api_task_json(listing->json, task);
}

/* Appends the list of one kind and sets *total to how many match before the cut. */
static bool list_kind(struct api *api, const struct list_query *query, const char *kind, const char *other,
                      struct buf *json, int64_t *total, struct err *err)
{
    struct listing listing = {.json = json};
    enum task_state state = TASK_ANY;
    bool wanted = !query->task_type || strcmp(query->task_type, other) != 0;

    *total = 0;
    if (query->status && *query->status && !task_state_find(query->status, &state))
        wanted = false;
    if (wanted) {
        *total = store_count(api->options.store, kind, state);
        if (query->limit && !store_list(api->options.store, kind, state, query->limit, on_listed, &listing, err))
            return false;
    }
    return true;
}

static bool list_json(struct api *api, const struct list_query *query, struct buf *json, struct err *err)
{
    int64_t trainings, inferences;

    buf_puts(json, "{\"training_tasks\":[");
    if (!list_kind(api, query, "training", "inference", json, &trainings, err))
        return false;
    buf_puts(json, "],\"inference_tasks\":[");
    if (!list_kind(api, query, "inference", "training", json, &inferences, err))
        return false;
    buf_printf(json, "],\"total_training\":%lld,\"total_inference\":%lld}", (long long)trainings,
               (long long)inferences);
    return !json->failed ||
           err_set(err, ERR_TOO_LARGE, tr("列表过大，请减小 limit", "the list is too large: lower limit"));
}

/* The place for this query's list: its own, or the one that was filled longest ago. NULL: too long to remember. */
static struct list_cache *cache_of(struct api *api, const char *query)
{
    struct list_cache *cache;

    if (strlen(query) >= API_QUERY_MAX)
        return NULL;
    for (size_t i = 0; i < API_LIST_CACHE; i++)
        if (api->lists[i].page && !strcmp(api->lists[i].query, query))
            return &api->lists[i];
    cache = &api->lists[api->next_list++ % API_LIST_CACHE];
    cache->page = http_page_free(cache->page);
    return cache;
}

void api_list_tasks(struct http_request *request, void *app)
{
    struct api *api = app;
    const char *text = http_query_text(request);
    uint64_t generation = store_generation(api->options.store);
    struct list_cache *cache = cache_of(api, text);
    struct list_query query;
    struct buf json;
    struct err err;

    if (cache && cache->page && cache->generation == generation) {
        http_reply_page(request, cache->page);
        return;
    }
    if (!http_read_query(request, &api_list_table, &query))
        return;
    buf_init(&json, API_ANSWER_MAX);
    if (!list_json(api, &query, &json, &err)) {
        api_reply_err(request, &err);
    } else if (cache && json.size < 1 << 20) {
        http_page_free(cache->page);
        cache->page = http_page_new("application/json", json.data, json.size);
        cache->generation = generation;
        memcpy(cache->query, text, strlen(text) + 1);
        if (cache->page)
            http_reply_page(request, cache->page);
    } else {
        http_reply_buf(request, 200, &json);
    }
    buf_release(&json);
}
