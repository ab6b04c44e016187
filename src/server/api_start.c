/* api_start.c - requests that become tasks: the right form, allowed paths, the kind's own checks, a device that can do
 * it, then the dispatcher. */
#include <stdio.h>
#include <string.h>

#include "base/random.h"
#include "base/text.h"
#include "server/api_internal.h"
#include "server/placement.h"
#include "task/kinds.h"
#include "task/requests.h"

static const char *text_member(const void *request, size_t offset)
{
    return *(const char *const *)((const char *)request + offset);
}

static int64_t int_member(const void *request, size_t offset)
{
    return *(const int64_t *)((const char *)request + offset);
}

/* ---- checks; each answers what it refuses ---- */

static void reply_fault(struct http_request *request, const char *type, const char *name, const char *msg,
                        const char *input)
{
    json_t *faults = json_array(), *value = json_string(input);

    fields_fault(faults, type, "body", name, msg, value, NULL);
    json_decref(value);
    http_reply_faults(request, faults);
}

/* An id becomes part of paths: one segment, nothing that a client would change on the way. */
static bool check_id(struct http_request *request, const char *id)
{
    enum { LONGEST = 200 };
    const char *fault = NULL;

    if (!id || !*id)
        return true;
    if (strlen(id) > LONGEST)
        fault = "Task id should have at most 200 bytes";
    else if (!id[strspn(id, " \t")])
        fault = "Task id should not be blank";
    else if (!strcmp(id, ".") || !strcmp(id, ".."))
        fault = "Task id should not be a relative folder";
    for (const char *p = id; *p && !fault; p++)
        if (*p == '/' || (unsigned char)*p < 0x20 || *p == 0x7F)
            fault = "Task id should not contain '/' or control characters";
    if (fault)
        reply_fault(request, "task_id_invalid", "task_id", fault, id);
    return !fault;
}

static void reply_outside(struct http_request *request, const struct settings *settings, const char *path)
{
    struct buf roots;

    buf_init(&roots, 4096);
    for (size_t i = 0; i < settings->data_roots.count; i++)
        buf_printf(&roots, "%s%s", i ? ", " : "", settings->data_roots.items[i]);
    http_reply_detail(request, 403, tr("路径 %s 不在允许的目录之内: %s", "path %s is outside the allowed folders: %s"),
                      path, roots.data ? roots.data : "");
    buf_release(&roots);
}

/* Every member whose name ends in "_path" lies inside the data roots. */
static bool check_roots(struct http_request *request, const struct settings *settings, const struct field_table *table,
                        const void *in)
{
    for (size_t i = 0; settings->data_roots.count && i < table->count; i++) {
        const struct field *field = &table->fields[i];
        size_t length = strlen(field->name);
        const char *path;

        if (field->type != FIELD_STRING || length < 5 || strcmp(field->name + length - 5, "_path") != 0)
            continue;
        path = text_member(in, field->offset);
        if (path && *path && !settings_allow_path(settings, path)) {
            reply_outside(request, settings, path);
            return false;
        }
    }
    return true;
}

static bool check_model(struct http_request *request, const struct settings *settings, const char *model)
{
    for (size_t i = 0; i < settings->supported_models.count; i++)
        if (!strcmp(settings->supported_models.items[i], model))
            return true;
    http_reply_detail(request, 400, tr("不支持的模型: %s", "unsupported model: %s"), model);
    return false;
}

/* Where would it run? "cuda" is cuda:0 where choosing is switched off. */
static bool place(struct http_request *request, struct api *api, const struct task_kind *kind, const void *in,
                  struct placement *ret)
{
    const struct device_set *devices = monitor_devices(api->options.monitor);
    json_t *faults;

    if (!monitor_ready(api->options.monitor)) {
        http_add_header(request, "retry-after", "1");
        http_reply_detail(request, 503, "%s",
                          tr("正在检测设备，请稍后重试", "the devices are still being looked for, try again"));
        return false;
    }
    faults = json_array();
    if (!placement_check(devices, kind, in, ret, faults)) {
        http_reply_faults(request, faults);
        return false;
    }
    json_decref(faults);
    if (!api->options.settings->enable_gpu_selection && !strcmp(text_member(in, kind->device_offset), "cuda") &&
        device_count(devices))
        ret->ask = 0;
    return true;
}

static void release_json(void *value)
{
    json_decref(value);
}

/* From a request of the right form to something that the dispatcher takes. */
static bool prepare(struct http_request *request, struct api *api, const struct task_kind *kind, void *in,
                    struct submission *ret)
{
    const struct settings *settings = api->options.settings;
    json_t *stored;
    struct err err;

    if (!check_id(request, text_member(in, kind->task_id_offset)) || !check_roots(request, settings, kind->request, in))
        return false;
    if (kind->slot == SLOT_TRAINING && !check_model(request, settings, ((struct train_request *)in)->model))
        return false;
    if (!kind->check(in, http_arena(request), &err)) {
        api_reply_err(request, &err);
        return false;
    }
    /* again, for the default folders that the check has filled in */
    if (!check_roots(request, settings, kind->request, in) || !place(request, api, kind, in, &ret->placement))
        return false;
    stored = fields_write(kind->request, in);
    if (!stored || !arena_defer(http_arena(request), release_json, stored)) {
        http_reply_detail(request, 500, "%s", tr("内存不足", "no memory"));
        return false;
    }
    ret->kind = kind;
    ret->id = text_member(in, kind->task_id_offset);
    ret->device = text_member(in, kind->device_offset);
    ret->priority = int_member(in, kind->priority_offset);
    ret->total_epochs = kind->total_epochs(in);
    ret->request = stored;
    return true;
}

/* ---- answers that wait for the disk ---- */

/* A request that has passed all checks, in its own arena. */
struct held_start {
    struct http_request *request;
    struct submission_group group; /* its arg: `answer` */
    struct buf answer;
    size_t accepted;
    void (*reply)(struct held_start *start);
    struct held_start *next;
};

/* The request waits for the others that arrive with it; reply() is called when its tasks are on disk. */
static void hold(struct http_request *request, struct api *api, const struct submission *submissions, size_t count,
                 store_task_fn *fn, void (*reply)(struct held_start *start))
{
    struct held_start *start = arena_alloc(http_arena(request), sizeof *start);

    if (!start)
        return;
    start->request = request;
    start->reply = reply;
    start->group = (struct submission_group){.submissions = submissions, .count = count, .fn = fn, .arg = start};
    buf_init(&start->answer, API_ANSWER_MAX);
    *api->held_end = start;
    api->held_end = &start->next;
    http_hold(request);
}

void api_answer_held(void *app)
{
    struct api *api = app;
    struct held_start *first = api->held_first, *start;
    struct submission_group *groups;
    size_t n = 0;

    api->held_first = NULL;
    api->held_end = &api->held_first;
    for (start = first; start; start = start->next)
        n++;
    if (!n || !(groups = calloc(n, sizeof *groups))) /* without memory: 500 for all */
        return;
    n = 0;
    for (start = first; start; start = start->next)
        groups[n++] = start->group;
    dispatch_submit(api->options.dispatch, groups, n);
    n = 0;
    for (start = first; start; start = start->next, n++) {
        if (groups[n].ok)
            start->reply(start);
        else
            api_reply_err(start->request, &groups[n].err);
        buf_release(&start->answer);
    }
    free(groups);
}

/* ---- one task ---- */

static void on_accepted(void *arg, const struct store_task *task)
{
    api_task_json(&((struct held_start *)arg)->answer, task);
}

static void reply_task(struct held_start *start)
{
    http_reply_buf(start->request, 200, &start->answer);
}

static void start(struct http_request *request, struct api *api, const char *kind_name, const struct field_table *table)
{
    const struct task_kind *kind = task_kind_find(kind_name);
    struct arena *arena = http_arena(request);
    void *in = arena ? arena_alloc(arena, table->size) : NULL;
    struct submission *submission = in ? arena_alloc(arena, sizeof *submission) : NULL;

    if (submission && http_read_body(request, table, in) && prepare(request, api, kind, in, submission))
        hold(request, api, submission, 1, on_accepted, reply_task);
}

void api_start_training(struct http_request *request, void *app)
{
    start(request, app, "training", &((struct api *)app)->training);
}

void api_start_inference(struct http_request *request, void *app)
{
    start(request, app, "inference", &((struct api *)app)->inference);
}

/* ---- several ---- */

/* The answer collects the ids. */
static void on_batch_accepted(void *arg, const struct store_task *task)
{
    struct held_start *start = arg;

    if (start->accepted++)
        buf_puts(&start->answer, ",");
    buf_json_string(&start->answer, task->id);
}

static void reply_batch(struct held_start *start)
{
    char message[96];
    struct buf json;

    snprintf(message, sizeof message, tr("已启动 %zu 个推理任务", "%zu inference tasks started"), start->accepted);
    buf_init(&json, API_ANSWER_MAX);
    buf_puts(&json, "{\"status\":\"success\",\"message\":");
    buf_json_string(&json, message);
    buf_printf(&json, ",\"task_ids\":[%s],\"total\":%zu}", start->answer.data ? start->answer.data : "",
               start->accepted);
    http_reply_buf(start->request, 200, &json);
    buf_release(&json);
}

/* A batch longer than the queue could never be accepted. */
static bool check_batch_size(struct http_request *request, size_t count, int64_t most)
{
    json_t *faults, *ctx;
    char msg[96];

    if ((int64_t)count <= most)
        return true;
    faults = json_array();
    ctx = json_pack("{s:s, s:I, s:I}", "field_type", "List", "max_length", (json_int_t)most, "actual_length",
                    (json_int_t)count);
    snprintf(msg, sizeof msg, "List should have at most %lld items after validation, not %zu", (long long)most, count);
    fields_fault(faults, "too_long", "body", "source_paths", msg, NULL, ctx);
    json_decref(ctx);
    http_reply_faults(request, faults);
    return false;
}

/* Where the results of path i go: {base}/{i}; without a base to a folder of the batch's own under results/. */
static const char *batch_folder(struct arena *arena, const struct infer_batch_request *batch, const char *own, size_t i)
{
    if (batch->save_base_path && *batch->save_base_path)
        return arena_printf(arena, "%s/%zu", batch->save_base_path, i);
    return arena_printf(arena, "results/%s/%zu", own, i);
}

void api_start_batch(struct http_request *request, void *app)
{
    struct api *api = app;
    const struct task_kind *kind = task_kind_find("inference");
    struct arena *arena = http_arena(request);
    struct infer_batch_request batch;
    struct submission *submissions;
    char own[32];

    if (!arena || !http_read_body(request, &api->batch, &batch) ||
        !check_batch_size(request, batch.source_paths.count, api->options.settings->task_queue_size))
        return;
    submissions = arena_alloc(arena, (batch.source_paths.count + 1) * sizeof *submissions);
    snprintf(own, sizeof own, "batch-%016llx", (unsigned long long)random_seed());
    for (size_t i = 0; submissions && i < batch.source_paths.count; i++) {
        struct infer_request *in = arena_alloc(arena, sizeof *in);

        if (!in || !fields_defaults(&api->inference, in, arena))
            return;
        in->cfg_path = batch.cfg_path;
        in->weight_path = batch.weight_path;
        in->source_path = batch.source_paths.items[i];
        in->save_path = batch_folder(arena, &batch, own, i);
        in->device = batch.device;
        in->priority = batch.priority;
        in->precision = batch.precision;
        if (!prepare(request, api, kind, in, &submissions[i]))
            return;
    }
    if (submissions && batch.source_paths.count)
        hold(request, api, submissions, batch.source_paths.count, on_batch_accepted, reply_batch);
    else if (submissions)
        reply_batch(&(struct held_start){.request = request});
}
