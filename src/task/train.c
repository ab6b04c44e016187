/* train.c - a training, section 13 of the contract: data sets, net, first weights, then epoch by epoch one pass of
 * training, one of validation, and the files of both. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/clock.h"
#include "base/random.h"
#include "base/text.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "engine/jpeg.h"
#include "engine/net.h"
#include "task/admit.h"
#include "task/files.h"
#include "task/metrics.h"
#include "task/requests.h"
#include "task/train_record.h"
#include "task/train_weights.h"
#include "task/work.h"

/* Past this many classes a confusion matrix is no help to anyone, and its memory is a burden. */
enum { CONFUSION_CLASSES_MAX = 1000 };

/* What a training batch costs, in validation batches: forward and backward against forward. */
enum { TRAIN_WEIGHT = 3 };

/* Steps after which a device has done the first, and everything that it takes is taken. */
enum { SETTLED = 4 };

struct training {
    struct task *task;
    const struct train_request *request;
    uint64_t seed;
    const char *folder;             /* in the task's arena, like the names */
    const char *const *class_names; /* (num_classes) */
    struct train_record *record;
    struct dataset *train_set, *val_set;
    struct picture_cache *disk;   /* NULL: none */
    struct jpeg_decoder *engines; /* NULL: none */
    struct picture_decoder decoder;
    struct loader *train_loader, *val_loader;
    struct net *net;

    /* of one validation */
    float *logits;   /* (val images, num_classes) */
    int32_t *labels; /* (val images) */
    int64_t *confusion;

    double best_acc; /* below 0: no epoch yet */
};

static bool check_cancelled(struct training *t, struct err *err)
{
    return !t->task->cancelled(t->task) ||
           err_set(err, ERR_CANCELLED, "%s", tr("训练已被取消", "the training was cancelled"));
}

static void say_header(struct training *t)
{
    const struct train_request *request = t->request;
    struct task *task = t->task;

    task_log(task, LOG_INFO, "%s", tr("开始训练...", "training starts..."));
    task_log(task, LOG_INFO, tr("模型: %s", "model: %s"), request->model);
    task_log(task, LOG_INFO, tr("设备: %s", "device: %s"), task->device);
    task_log(task, LOG_INFO, tr("批次大小: %lld", "batch size: %lld"), (long long)request->batch_size);
    task_log(task, LOG_INFO, tr("训练轮数: %lld", "epochs: %lld"), (long long)request->num_epochs);
    task_log(task, LOG_INFO, tr("保存目录: %s", "output folder: %s"), t->folder);
    task_log(task, LOG_INFO, tr("随机种子: %llu", "seed: %llu"), (unsigned long long)t->seed);
}

static bool is_class(const struct dataset *set, const char *name)
{
    for (size_t i = 0; i < set->class_count; i++)
        if (strcmp(set->classes[i], name) == 0)
            return true;
    return false;
}

/* The folders' names, then class_N for the outputs that no folder stands behind, distinct from all of them. */
static bool name_classes(struct training *t, struct err *err)
{
    size_t n = (size_t)t->request->num_classes, folders = t->train_set->class_count;
    const char **names = arena_alloc(t->task->arena, n * sizeof *names);

    for (size_t i = 0; names && i < n; i++) {
        names[i] = i < folders ? arena_strdup(t->task->arena, t->train_set->classes[i])
                               : arena_printf(t->task->arena, "class_%zu", i);
        while (i >= folders && names[i] && is_class(t->train_set, names[i]))
            names[i] = arena_printf(t->task->arena, "%s_", names[i]);
        if (!names[i])
            names = NULL;
    }
    t->class_names = names;
    return names || err_set(err, ERR_MEMORY, "out of memory for %zu class names", n);
}

static bool open_data_sets(struct training *t, struct err *err)
{
    const struct train_request *request = t->request;

    if (!dataset_open(request->train_path, NULL, &t->train_set, err) ||
        !dataset_open(request->val_path, t->train_set, &t->val_set, err))
        return false;
    if (t->train_set->class_count > (size_t)request->num_classes)
        return err_set(err, ERR_INVALID,
                       tr("num_classes 为 %lld，但 %s 中有 %zu 个类别文件夹: num_classes 至少应为 %zu",
                          "num_classes is %lld, but %s has %zu class folders: it must be at least %zu"),
                       (long long)request->num_classes, request->train_path, t->train_set->class_count,
                       t->train_set->class_count);
    return name_classes(t, err);
}

/* Warns when the checkpoints of all epochs will not fit on the disk. */
static void check_disk(struct training *t)
{
    uint64_t size = net_memory(t->net)->weights, epochs = (uint64_t)t->request->num_epochs;
    uint64_t keep = (uint64_t)t->request->keep_checkpoints, files = (keep && keep < epochs ? keep : epochs) + 1, room;
    struct statvfs disk;

    if (statvfs(t->folder, &disk) < 0)
        return;
    room = (uint64_t)disk.f_bavail * disk.f_frsize;
    if (room / files < size)
        train_say(
            t->record, LOG_WARNING,
            tr("磁盘空间可能不足: %llu 个检查点需要 %llu MB，剩余 %llu MB (keep_checkpoints 可限制其数量)",
               "the disk may fill: %llu checkpoints need %llu MB, %llu MB are free (keep_checkpoints bounds them)"),
            (unsigned long long)files, (unsigned long long)(files * size / MEGABYTE),
            (unsigned long long)(room / MEGABYTE));
}

static bool open_net(struct training *t, struct err *err)
{
    struct task *task = t->task;
    struct net_config config = train_net_config(t->request, task->backend);

    size_t largest = t->train_set->count > t->val_set->count ? t->train_set->count : t->val_set->count;

    if ((size_t)config.batch_size > largest)
        config.batch_size = (int)largest; /* no batch will be larger */
    config.device = task->device_uuid;
    config.threads = task->threads;
    config.seed = t->seed;
    config.load_follows = t->request->weight_path && *t->request->weight_path; /* or the training fails */
    train_say(t->record, LOG_INFO, "Loading model: %s", t->request->model);
    if (!net_open(&config, &t->net, err) || !train_weights_load(task, t->request, t->record, t->net, err))
        return false;
    train_say(t->record, LOG_INFO, "%s loaded onto device: %s", t->request->model, task->device);
    train_say(t->record, LOG_INFO, "Loading dataset from: %s and %s", t->request->train_path, t->request->val_path);
    check_disk(t);
    return true;
}

static void on_bad_picture(void *arg, const char *path, const char *reason)
{
    struct training *t = arg;

    train_say(t->record, LOG_WARNING, tr("无法读取图像: %s (%s)", "cannot read the image %s (%s)"), path, reason);
}

static bool decode_on_device(void *arg, const struct jpeg_picture *picture, uint8_t *out)
{
    return jpeg_decoder_run(arg, picture, out);
}

static bool device_ready(void *arg)
{
    return jpeg_decoder_ready(arg);
}

/* The threads begin to decode at once, while the net is being opened. */
static bool open_loaders(struct training *t, struct err *err)
{
    size_t train = t->train_set->count, val = t->val_set->count;
    struct loader_config config = {
        .image_size = (int)t->request->image_size,
        .batch_size = (int)t->request->batch_size,
        .threads = t->task->threads,
        .cache_bytes = (size_t)((double)t->task->memory_limit * ((double)train / (double)(train + val))),
        .shuffle = t->request->shuffle,
        .seed = t->seed,
        .on_bad = on_bad_picture,
        .arg = t,
    };

    t->engines = jpeg_decoder_open(t->task->backend, t->task->device_uuid, config.image_size);
    t->decoder = (struct picture_decoder){decode_on_device, device_ready, t->engines, JPEG_THREADS};
    config.decoder = t->engines ? &t->decoder : NULL;
    config.disk = t->disk = picture_cache_open(config.image_size);
    if (!loader_open(t->train_set, &config, &t->train_loader, err))
        return false;
    config.cache_bytes = (size_t)t->task->memory_limit - config.cache_bytes;
    config.shuffle = false;
    return loader_open(t->val_set, &config, &t->val_loader, err) && loader_start(t->train_loader, 1, err);
}

static bool open_buffers(struct training *t, struct err *err)
{
    size_t n = t->val_set->count, classes = (size_t)t->request->num_classes;

    t->logits = calloc(n, classes * sizeof *t->logits);
    t->labels = calloc(n, sizeof *t->labels);
    if (classes <= CONFUSION_CLASSES_MAX)
        t->confusion = calloc(classes, classes * sizeof *t->confusion);
    if (!t->logits || !t->labels || (classes <= CONFUSION_CLASSES_MAX && !t->confusion))
        return err_set(err, ERR_MEMORY, "out of memory for the validation of %zu images and %zu classes", n, classes);
    return true;
}

/* Tells the daemon what this training takes, the loader's caches and the copy of the weights that is saved included. */
static void report_memory(struct training *t)
{
    const struct net_memory *memory = net_memory(t->net);
    uint64_t planned = memory->total;

    if (strcmp(t->task->backend, "cuda") != 0)
        planned += memory->weights + TRAIN_BESIDE + loader_memory(t->train_loader) + loader_memory(t->val_loader);
    if (t->engines)
        planned += JPEG_DEVICE_BYTES;
    task_memory(t->task, planned);
}

/* Progress in the middle of an epoch: `done` of its batches' costs. */
static void report_progress(struct training *t, int64_t epoch, size_t train_batches, size_t val_batches)
{
    double all = (double)(TRAIN_WEIGHT * loader_batches(t->train_loader) + loader_batches(t->val_loader));
    double part = fmin(1, (double)(TRAIN_WEIGHT * train_batches + val_batches) / fmax(1, all));
    double percent = 100 * ((double)(epoch - 1) + part) / (double)t->request->num_epochs;

    task_progress(t->task, (int)fmin(99, percent), epoch);
}

static bool train_epoch(struct training *t, struct epoch_result *result, struct err *err)
{
    struct net_stats stats;
    struct batch batch;
    uint8_t *images;

    if (!loader_start(t->train_loader, (uint64_t)result->epoch, err))
        return false;
    for (size_t done = 0;; done++) {
        report_progress(t, result->epoch, done, 0);
        if (!check_cancelled(t, err) || !net_input_buffer(t->net, &images, err) ||
            !loader_next(t->train_loader, images, &batch, err))
            return false;
        if (batch.count == 0)
            break;
        if (!net_train(t->net, batch.images, batch.labels, batch.count, err))
            return false;
        if (done == SETTLED)
            task_memory_taken(t->task);
    }
    if (!net_stats(t->net, &stats, err))
        return false;
    task_memory_taken(t->task);
    result->train_loss = stats.batches ? stats.loss_sum / (double)stats.batches : 0;
    result->train_acc = stats.images ? 100.0 * (double)stats.correct / (double)stats.images : 0;
    return true;
}

static bool validate(struct training *t, struct epoch_result *result, struct err *err)
{
    size_t classes = (size_t)t->request->num_classes, n = 0;
    struct batch batch;
    uint8_t *images;

    if (!loader_start(t->val_loader, (uint64_t)result->epoch, err))
        return false;
    for (size_t done = 0;; done++) {
        report_progress(t, result->epoch, loader_batches(t->train_loader), done);
        if (!check_cancelled(t, err) || !net_input_buffer(t->net, &images, err) ||
            !loader_next(t->val_loader, images, &batch, err))
            return false;
        if (batch.count == 0)
            break;
        if (!net_logits(t->net, batch.images, batch.count, t->logits + n * classes, err))
            return false;
        memcpy(t->labels + n, batch.labels, (size_t)batch.count * sizeof *t->labels);
        n += (size_t)batch.count;
    }
    return metrics_compute(t->logits, t->labels, n, classes, (size_t)t->request->batch_size, &result->val, t->confusion,
                           err);
}

/* Once all pictures were seen: where they came from, and what is wrong with the cache on the disk. */
static void say_pictures(struct training *t)
{
    struct loader_counts train = loader_counts(t->train_loader), val = loader_counts(t->val_loader);
    const char *trouble = picture_cache_trouble(t->disk);

    train_say(t->record, LOG_INFO,
              tr("图像: 解码 %zu 张，取自磁盘缓存 %zu 张", "pictures: %zu decoded, %zu from the disk cache"),
              train.decoded + val.decoded, train.from_disk + val.from_disk);
    if (train.by_decoder + val.by_decoder > 0)
        train_say(t->record, LOG_INFO, tr("其中 %zu 张由GPU解码", "%zu of them were decoded by the GPU"),
                  train.by_decoder + val.by_decoder);
    if (trouble)
        train_say(t->record, LOG_WARNING, tr("图像磁盘缓存不可用: %s", "no disk cache of pictures: %s"), trouble);
}

static bool save_epoch(struct training *t, const struct epoch_result *result, struct err *err)
{
    struct state_dict *weights = NULL;
    bool ok = net_save(t->net, &weights, err) &&
              train_record_epoch(t->record, result, weights, t->confusion, t->class_names, err);

    state_dict_free(weights);
    return ok;
}

static bool run_epoch(struct training *t, int64_t epoch, struct err *err)
{
    struct epoch_result result = {.epoch = epoch};
    double started = clock_seconds();

    train_report(t->record, epoch, "epoch_start", json_object(), "Epoch [%lld/%lld] started.", (long long)epoch,
                 (long long)t->request->num_epochs);
    if (!train_epoch(t, &result, err))
        return false;
    train_report_training(t->record, &result);
    train_say(t->record, LOG_INFO, "Starting validation...");
    if (!validate(t, &result, err))
        return false;
    result.best = t->best_acc < 0 || result.val.accuracy > t->best_acc;
    if (result.best)
        t->best_acc = result.val.accuracy;
    result.best_acc = t->best_acc;
    result.seconds = clock_seconds() - started;
    train_report_validation(t->record, &result);
    if (epoch == 1)
        say_pictures(t);
    if (t->engines && loader_complete(t->train_loader) && loader_complete(t->val_loader))
        t->engines = jpeg_decoder_free(t->engines); /* its memory is worth more now */
    return save_epoch(t, &result, err);
}

static bool run_epochs(struct training *t, struct err *err)
{
    int64_t epochs = t->request->num_epochs;

    for (int64_t epoch = 1; epoch <= epochs; epoch++)
        if (!run_epoch(t, epoch, err))
            return false;
    task_progress(t->task, 100, epochs);
    task_log_metrics(t->task, "completed",
                     json_pack("{s:I, s:I, s:f}", "epoch", (json_int_t)epochs, "total_epochs", (json_int_t)epochs,
                               "best_acc", round(t->best_acc * 100) / 100),
                     "%s", tr("训练完成！", "training completed!"));
    return true;
}

bool train_run(struct task *task, const void *request, struct err *err)
{
    struct training t = {.task = task, .request = request, .best_acc = -1};
    bool ok;

    t.seed = t.request->seed >= 0 ? (uint64_t)t.request->seed : random_seed() & INT64_MAX;
    t.folder = output_folder(task->arena, t.request->save_path, t.request->name);
    if (!t.folder)
        return err_set(err, ERR_MEMORY, "out of memory");
    say_header(&t);
    ok = train_record_open(task, request, t.folder, &t.record, err) && open_data_sets(&t, err) &&
         open_loaders(&t, err) && open_net(&t, err) && open_buffers(&t, err) &&
         train_record_config(t.record, t.class_names, err);
    if (ok)
        report_memory(&t);
    ok = ok && run_epochs(&t, err);
    if (!ok && err->kind == ERR_CANCELLED)
        task_log(task, LOG_INFO, "%s", tr("训练已被取消", "the training was cancelled"));

    free(t.logits);
    free(t.labels);
    free(t.confusion);
    loader_free(t.train_loader);
    loader_free(t.val_loader);
    jpeg_decoder_free(t.engines);
    picture_cache_free(t.disk);
    net_free(t.net);
    dataset_free(t.val_set);
    dataset_free(t.train_set);
    train_record_free(t.record);
    return ok;
}
