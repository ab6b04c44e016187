/* kinds.c - see kinds.h */
#include "task/kinds.h"

#include <string.h>

#include "base/text.h"
#include "engine/backend.h"
#include "engine/net.h"
#include "task/admit.h"
#include "task/requests.h"
#include "task/work.h"

static int64_t train_total_epochs(const void *request)
{
    return ((const struct train_request *)request)->num_epochs;
}

static int64_t no_epochs(const void *request)
{
    (void)request;
    return 0;
}

static const char *train_text(enum task_text which)
{
    switch (which) {
    case TASK_TEXT_PENDING:
        return tr("等待开始", "waiting to start");
    case TASK_TEXT_QUEUED:
        return tr("等待资源...", "waiting for resources...");
    case TASK_TEXT_RUNNING:
        return tr("训练中...", "training...");
    case TASK_TEXT_COMPLETED:
        return tr("训练完成", "training completed");
    case TASK_TEXT_FAILED:
        return tr("训练失败: ", "training failed: ");
    case TASK_TEXT_CANCELLED:
        return tr("任务已取消", "task cancelled");
    case TASK_TEXT_RELEASED:
        return tr("训练已被用户取消", "training cancelled by the user");
    case TASK_TEXTS:
        break;
    }
    return "";
}

static const char *infer_text(enum task_text which)
{
    switch (which) {
    case TASK_TEXT_RUNNING:
        return tr("推理中...", "inferring...");
    case TASK_TEXT_COMPLETED:
        return tr("推理完成", "inference completed");
    case TASK_TEXT_FAILED:
        return tr("推理失败: ", "inference failed: ");
    case TASK_TEXT_RELEASED:
        return train_text(TASK_TEXT_CANCELLED);
    default:
        return train_text(which);
    }
}

/* where the members that every kind's request has lie in its struct */
#define MEMBERS(s)                                                                                                     \
    .device_offset = offsetof(struct s, device), .task_id_offset = offsetof(struct s, task_id),                        \
    .priority_offset = offsetof(struct s, priority)

const struct task_kind task_kinds[] = {
    {.name = "training",
     .command = "train",
     .start_path = "/api/v2/training/start",
     .slot = SLOT_TRAINING,
     .request = &train_request_table,
     MEMBERS(train_request),
     .check = train_check,
     .memory = train_memory,
     .total_epochs = train_total_epochs,
     .run = train_run,
     .text = train_text},
    {.name = "inference",
     .command = "infer",
     .start_path = "/api/v2/inference/start",
     .slot = SLOT_INFERENCE,
     .request = &infer_request_table,
     MEMBERS(infer_request),
     .check = infer_check,
     .memory = infer_memory,
     .total_epochs = no_epochs,
     .run = infer_run,
     .text = infer_text},
};

const size_t task_kind_count = sizeof task_kinds / sizeof *task_kinds;

const struct task_kind *task_kind_find(const char *name)
{
    for (size_t i = 0; name && i < task_kind_count; i++)
        if (strcmp(task_kinds[i].name, name) == 0)
            return &task_kinds[i];
    return NULL;
}

bool task_backend_exists(const char *name)
{
    const struct backend *backend = backend_find(name);

    return backend && backend->stream_open && (!backend->available || backend->available());
}

bool task_backend_supports(const char *name, int compute_major, int *ret_oldest)
{
    const struct backend *backend = backend_find(name);

    *ret_oldest = backend ? backend->oldest_capability : 0;
    return compute_major == 0 || compute_major >= *ret_oldest;
}

const char *task_engine_version(void)
{
    return net_version();
}
