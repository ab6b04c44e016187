/* admit.c - see admit.h */
#include "task/admit.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "engine/jpeg.h"
#include "formats/model_cfg.h"
#include "task/infer_source.h"
#include "task/recordings.h"

/* `path` as seen from the root folder, in the arena. */
static bool make_absolute(const char **path, struct arena *arena, struct err *err)
{
    char folder[PATH_MAX];
    const char *rest = *path, *absolute;

    if (*rest == '/')
        return true;
    if (!getcwd(folder, sizeof folder))
        return err_set(err, ERR_IO, "the service's working folder is gone: %s", strerror(errno));
    while (rest[0] == '.' && rest[1] == '/')
        for (rest += 2; *rest == '/'; rest++)
            ;
    absolute = arena_printf(arena, "%s/%s", strcmp(folder, "/") == 0 ? "" : folder, rest);
    if (!absolute)
        return err_set(err, ERR_MEMORY, "out of memory");
    *path = absolute;
    return true;
}

/* Fails with the contract's text (a format with one %s) when nothing is at *path; else makes it absolute. */
static bool check_path(const char **path, const char *text, struct arena *arena, struct err *err)
{
    if (access(*path, F_OK) < 0) {
        char message[sizeof err->message];
        int n = snprintf(message, sizeof message, text, *path);

        if (errno != ENOENT && errno != ENOTDIR && n >= 0 && n < (int)sizeof message)
            snprintf(message + n, sizeof message - (size_t)n, " (%s)", strerror(errno));
        return err_set(err, ERR_REQUEST, "%s", message);
    }
    return make_absolute(path, arena, err);
}

char *output_folder(struct arena *arena, const char *save_path, const char *name)
{
    return name && *name ? arena_printf(arena, "%s/%s", save_path, name) : arena_strdup(arena, save_path);
}

enum dtype precision_on(const char *precision, const char *backend)
{
    return precision && strcmp(precision, "bf16") == 0 && strcmp(backend, "cuda") == 0 ? DTYPE_BF16 : DTYPE_F32;
}

bool precision_check(const char *precision, struct err *err)
{
    static const char *const known[] = {PRECISIONS};

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!precision || strcmp(precision, known[i]) == 0)
            return true;
    return err_set(err, ERR_REQUEST,
                   tr("不支持的精度: %s (可选 fp32、bf16)", "unsupported precision: %s (there are fp32 and bf16)"),
                   precision);
}

struct net_config train_net_config(const struct train_request *request, const char *backend)
{
    return (struct net_config){
        .model = request->model,
        .num_classes = (int)request->num_classes,
        .image_size = (int)request->image_size,
        .batch_size = (int)request->batch_size,
        .mode = NET_TRAIN,
        .precision = precision_on(request->precision, backend),
        .backend = backend,
        .learning_rate = request->learning_rate,
        .deterministic = request->deterministic,
    };
}

bool train_check(void *request, struct arena *arena, struct err *err)
{
    struct train_request *train = request;
    struct net_config config = train_net_config(train, "cpu");
    struct err reason;

    if (!net_class_name(train->model))
        return err_set(err, ERR_REQUEST, tr("不支持的模型: %s", "unsupported model: %s"), train->model);
    if (!check_path(&train->train_path, tr("训练集路径不存在: %s", "the training set does not exist: %s"), arena,
                    err) ||
        !check_path(&train->val_path, tr("验证集路径不存在: %s", "the validation set does not exist: %s"), arena, err))
        return false;
    if (train->weight_path && *train->weight_path &&
        !check_path(&train->weight_path, tr("权重文件不存在: %s", "the weight file does not exist: %s"), arena, err))
        return false;
    if (!precision_check(train->precision, err))
        return false;
    if (!net_check(&config, &reason))
        return err_set(err, ERR_REQUEST, "%s", reason.message);
    if (!*train->save_path)
        train->save_path = "models/output";
    return make_absolute(&train->save_path, arena, err);
}

bool infer_check(void *request, struct arena *arena, struct err *err)
{
    struct infer_request *infer = request;

    if (!check_path(&infer->cfg_path, tr("配置文件不存在: %s", "the configuration file does not exist: %s"), arena,
                    err) ||
        !check_path(&infer->weight_path, tr("模型权重不存在: %s", "the model's weights do not exist: %s"), arena,
                    err) ||
        !check_path(&infer->source_path, tr("数据路径不存在: %s", "the data path does not exist: %s"), arena, err))
        return false;
    if (!precision_check(infer->precision, err))
        return false;
    if (!infer->save_path || !*infer->save_path)
        infer->save_path = "results";
    return make_absolute(&infer->save_path, arena, err);
}

/* Of decode_memory(): what every image of a batch adds. */
static uint64_t decode_memory_each(int64_t image_size)
{
    return (uint64_t)image_size * (uint64_t)image_size * 3 * BATCHES_AHEAD;
}

uint64_t decode_memory(int64_t batch_size, int64_t image_size)
{
    /* one photograph under way per thread, as decoded: what a picture of this field has at most */
    enum { THREADS = 8, PICTURE = 1920 * 1440 * 3 };

    return (uint64_t)batch_size * decode_memory_each(image_size) + (uint64_t)THREADS * PICTURE;
}

/* net_plan(), remembered for the configurations that were asked for last: it takes milliseconds, and a client that
 * starts many tasks starts them alike. One thread. */
static bool plan_memory_of(const struct net_config *config, struct net_memory *ret, struct err *err)
{
    static struct {
        char model[32], backend[8];
        int num_classes, image_size, batch_size;
        enum net_mode mode;
        enum dtype precision;
        struct net_memory memory;
    } known[32], *entry;
    static size_t next;

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].model, config->model) == 0 && strcmp(known[i].backend, config->backend) == 0 &&
            known[i].num_classes == config->num_classes && known[i].image_size == config->image_size &&
            known[i].batch_size == config->batch_size && known[i].mode == config->mode &&
            known[i].precision == config->precision) {
            *ret = known[i].memory;
            return true;
        }
    if (!net_plan(config, ret, err))
        return false;
    entry = &known[next++ % (sizeof known / sizeof *known)];
    if (snprintf(entry->model, sizeof entry->model, "%s", config->model) >= (int)sizeof entry->model ||
        snprintf(entry->backend, sizeof entry->backend, "%s", config->backend) >= (int)sizeof entry->backend)
        entry->model[0] = 0; /* a name that does not fit is not remembered */
    entry->num_classes = config->num_classes;
    entry->image_size = config->image_size;
    entry->batch_size = config->batch_size;
    entry->mode = config->mode;
    entry->precision = config->precision;
    entry->memory = *ret;
    return true;
}

/* A part of so many of a GPU's forecast is added: what it may miss, and the driver rounds up. */
enum { GPU_MARGIN = 64 };

/* What a net takes beside its plan: on the host its loader and the copy of the weights that is saved, on a GPU the JPEG
 * engines' memory. */
static uint64_t memory_beside(const struct net_config *config, const struct net_memory *memory)
{
    if (strcmp(config->backend, "cuda") == 0)
        return config->mode == NET_TRAIN ? JPEG_DEVICE_BYTES : 0;
    return decode_memory(config->batch_size, config->image_size) +
           (config->mode == NET_TRAIN ? memory->weights + TRAIN_BESIDE : 0);
}

/* What a task with this net reserves; what would fit when that is too much. more: what else it takes on the host. */
static uint64_t run_memory(const struct net_config *config, uint64_t more, uint64_t available, char *advice,
                           size_t advice_size)
{
    bool on_gpu = strcmp(config->backend, "cuda") == 0;
    uint64_t each = on_gpu ? 0 : decode_memory_each(config->image_size), beside, total;
    struct net_memory memory;
    struct err err;
    int largest;

    if (!plan_memory_of(config, &memory, &err))
        return 0;
    beside = memory_beside(config, &memory) + more;
    total = memory.total + beside + (on_gpu ? memory.total / GPU_MARGIN : 0);
    if (total <= available || !advice || advice_size == 0)
        return total;
    beside -= each * (uint64_t)config->batch_size; /* a smaller batch has less beside it */
    available = available > beside ? available - beside : 0;
    if (on_gpu)
        available -= available / (GPU_MARGIN + 1);
    largest = net_largest_batch(config, available, each);
    if (largest > 0)
        snprintf(advice, advice_size, tr("可容纳的最大 batch_size 为 %d", "the largest batch_size that fits is %d"),
                 largest);
    else
        snprintf(advice, advice_size,
                 tr("即使 batch_size 为 1 也放不下，请减小 image_size 或选用更小的模型",
                    "not even batch_size 1 fits; a smaller image_size or a smaller model would"));
    return total;
}

uint64_t net_reservation(const struct net_config *config)
{
    return run_memory(config, 0, 0, NULL, 0);
}

uint64_t train_memory(const void *request, const char *backend, uint64_t available, char *advice, size_t advice_size)
{
    struct net_config config = train_net_config(request, backend);

    return run_memory(&config, 0, available, advice, advice_size);
}

uint64_t infer_memory(const void *request, const char *backend, uint64_t available, char *advice, size_t advice_size)
{
    const struct infer_request *infer = request;
    struct net_config config = {.mode = NET_INFER,
                                .precision = precision_on(infer->precision, backend),
                                .backend = backend,
                                .torchvision_head = true}; /* the larger one, since the file is not read yet */
    struct model_cfg *cfg = NULL;
    uint64_t total, raw = 0;
    struct err err;

    if (!model_cfg_read(infer->cfg_path, &cfg, &err))
        return 0; /* the worker will say what is wrong with the file */
    config.model = cfg->model;
    config.num_classes = cfg->num_classes;
    config.image_size = cfg->image_size;
    config.batch_size = infer->batch_size ? (int)infer->batch_size : INFER_BATCH;
    if (strcmp(backend, "cuda") != 0 && source_has_raw(infer->source_path))
        raw = recordings_memory(0);
    total = run_memory(&config, raw, available, advice, advice_size);
    model_cfg_free(cfg);
    return total;
}
