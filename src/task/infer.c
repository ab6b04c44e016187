/* infer.c - an inference, section 14 of the contract: the pictures of a file or folder through a trained net, an
 * annotated copy of each, and the predictions as tables. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "engine/net.h"
#include "formats/checkpoint.h"
#include "formats/model_cfg.h"
#include "task/admit.h"
#include "task/files.h"
#include "task/infer_source.h"
#include "task/pictures.h"
#include "task/predictions.h"
#include "task/requests.h"
#include "task/work.h"

/* Files that have a log line each; of more only every hundredth has. */
enum { LINES_MAX = 1000, LINES_EVERY = 100 };

struct inference {
    struct task *task;
    const struct infer_request *request;
    const char *folder; /* in the task's arena */
    struct model_cfg *cfg;
    struct source source;
    int batch_size;
    struct pictures *pictures;
    struct net *net;

    uint8_t *images;   /* (batch_size, image_size, image_size, 3) */
    size_t *indices;   /* (batch_size) of the batch's pictures in the source */
    float *logits;     /* (batch_size, num_classes) */
    size_t *per_class; /* (num_classes) pictures predicted so */

    struct prediction *predictions; /* (picture_count) */
    size_t done, unreadable;
    const char *first_reason; /* why the first unreadable picture is */
};

static void say_header(struct inference *inf)
{
    struct task *task = inf->task;

    task_log(task, LOG_INFO, "%s", tr("开始推理...", "inference starts..."));
    task_log(task, LOG_INFO, tr("加载模型: %s", "loading the model: %s"), inf->request->weight_path);
    task_log(task, LOG_INFO, tr("推理数据: %s", "data: %s"), inf->request->source_path);
    task_log(task, LOG_INFO, tr("保存目录: %s", "output folder: %s"), inf->folder);
}

static void say_raw_files(struct inference *inf)
{
    for (size_t i = 0; i < inf->source.raw_count; i++)
        task_log(inf->task, LOG_WARNING,
                 tr("跳过 %s: 此版本尚不支持原始 IQ 数据", "skipped %s: this version does not support raw IQ data yet"),
                 inf->source.raws[i].name);
}

/* Reading pictures begins here, before the net is there, so that the first batch does not wait. */
static bool open_pictures(struct inference *inf, struct err *err)
{
    size_t count = inf->source.picture_count, image = (size_t)inf->cfg->image_size * (size_t)inf->cfg->image_size * 3;
    int wanted = inf->request->batch_size ? (int)inf->request->batch_size : INFER_BATCH;
    size_t classes = (size_t)inf->cfg->num_classes;
    struct pictures_config config = {.image_size = inf->cfg->image_size, .threads = inf->task->threads};

    inf->batch_size = count < (size_t)wanted ? (int)count : wanted;
    config.batch_size = inf->batch_size;
    inf->images = calloc((size_t)inf->batch_size, image);
    inf->indices = calloc((size_t)inf->batch_size, sizeof *inf->indices);
    inf->logits = calloc((size_t)inf->batch_size, classes * sizeof *inf->logits);
    inf->per_class = calloc(classes, sizeof *inf->per_class);
    inf->predictions = calloc(count, sizeof *inf->predictions);
    if (!inf->images || !inf->indices || !inf->logits || !inf->per_class || !inf->predictions)
        return err_set(err, ERR_MEMORY, "out of memory for %zu pictures in batches of %d", count, inf->batch_size);
    return pictures_open(inf->source.pictures, count, &config, &inf->pictures, err);
}

static bool open_net(struct inference *inf, struct err *err)
{
    struct net_config config = {
        .model = inf->cfg->model,
        .num_classes = inf->cfg->num_classes,
        .image_size = inf->cfg->image_size,
        .batch_size = inf->batch_size,
        .mode = NET_INFER,
        .precision = DTYPE_F32,
        .backend = inf->task->backend,
        .device = inf->task->device_uuid,
        .threads = inf->task->threads,
        .load_follows = true,
    };
    struct state_dict *weights = NULL;
    bool skipped, ok;

    if (!checkpoint_read(inf->request->weight_path, &weights, err))
        return false;
    ok = net_open(&config, &inf->net, err) &&
         (net_load(inf->net, weights, false, &skipped, err) || err_prefix(err, "%s", inf->request->weight_path));
    state_dict_free(weights);
    if (ok)
        task_memory(inf->task, net_memory(inf->net)->total + (strcmp(inf->task->backend, "cuda") != 0
                                                                  ? decode_memory(inf->batch_size, inf->cfg->image_size)
                                                                  : 0));
    return ok;
}

/* Collects the next batch of readable pictures; returns how many. */
static int next_batch(struct inference *inf)
{
    size_t image = (size_t)inf->cfg->image_size * (size_t)inf->cfg->image_size * 3, index;
    const char *reason;
    int n = 0;

    while (n < inf->batch_size && pictures_next(inf->pictures, &index, inf->images + (size_t)n * image, &reason)) {
        if (!reason) {
            inf->indices[n++] = index;
            continue;
        }
        task_log(inf->task, LOG_WARNING, tr("无法读取图像: %s (%s)", "cannot read the image %s (%s)"),
                 inf->source.pictures[index].name, reason);
        inf->first_reason = inf->first_reason ? inf->first_reason : reason;
        inf->unreadable++;
    }
    return n;
}

static void take_prediction(struct inference *inf, size_t index, const float *logits)
{
    struct prediction *p = &inf->predictions[inf->done++];
    const char *name;
    char text[512];

    p->file = inf->source.pictures[index].name;
    prediction_from(logits, (size_t)inf->cfg->num_classes, p);
    name = inf->cfg->class_names[p->classes[0]];
    inf->per_class[p->classes[0]]++;
    snprintf(text, sizeof text, "%s %.2f%%", name, 100 * p->probabilities[0]);
    pictures_write(inf->pictures, index, text);
    if (inf->source.picture_count <= LINES_MAX || inf->done % LINES_EVERY == 0)
        task_log(inf->task, LOG_INFO, "%s: %s", p->file, text);
}

static bool run_batches(struct inference *inf, struct err *err)
{
    size_t classes = (size_t)inf->cfg->num_classes, count = inf->source.picture_count;

    for (;;) {
        int n;

        if (inf->task->cancelled(inf->task))
            return err_set(err, ERR_CANCELLED, "%s", tr("推理已被取消", "the inference was cancelled"));
        if ((n = next_batch(inf)) == 0)
            break;
        if (!net_logits(inf->net, inf->images, n, inf->logits, err) || !pictures_check(inf->pictures, err))
            return false;
        for (int i = 0; i < n; i++)
            take_prediction(inf, inf->indices[i], inf->logits + (size_t)i * classes);
        task_progress(inf->task, (int)(99 * (inf->done + inf->unreadable) / count), 0);
    }
    if (inf->done == 0)
        return err_set(
            err, ERR_INVALID,
            tr("%zu 张图像均无法读取，第一张的原因: %s", "none of the %zu images can be read; the first: %s"), count,
            inf->first_reason);
    return pictures_finish(inf->pictures, err);
}

static void say_summary(struct inference *inf)
{
    struct task *task = inf->task;

    task_log(task, LOG_INFO, tr("共识别 %zu 张图像，%zu 张无法读取", "%zu images classified, %zu unreadable"),
             inf->done, inf->unreadable);
    for (int c = 0; c < inf->cfg->num_classes; c++)
        if (inf->per_class[c] > 0)
            task_log(task, LOG_INFO, "%s: %zu", inf->cfg->class_names[c], inf->per_class[c]);
}

static bool classify(struct inference *inf, struct err *err)
{
    if (inf->source.picture_count == 0) {
        task_log(inf->task, LOG_WARNING, tr("%s 中没有可识别的图像", "no images in %s"), inf->request->source_path);
        return true;
    }
    if (!open_pictures(inf, err) || !open_net(inf, err) || !run_batches(inf, err) ||
        !predictions_write(inf->folder, inf->predictions, inf->done, inf->cfg->class_names, err))
        return false;
    say_summary(inf);
    return true;
}

bool infer_run(struct task *task, const void *request, struct err *err)
{
    struct inference inf = {.task = task, .request = request};
    bool ok;

    inf.folder = output_folder(task->arena, inf.request->save_path, inf.request->name);
    if (!inf.folder)
        return err_set(err, ERR_MEMORY, "out of memory");
    say_header(&inf);
    ok = model_cfg_read(inf.request->cfg_path, &inf.cfg, err) && folder_make(inf.folder, err) &&
         source_list(inf.request->source_path, inf.folder, task->arena, &inf.source, err);
    if (ok) {
        say_raw_files(&inf);
        ok = classify(&inf, err);
    }
    if (ok) {
        task_progress(task, 100, 0);
        task_log(task, LOG_INFO, "%s", tr("推理完成！", "inference completed!"));
    }
    pictures_free(inf.pictures);
    net_free(inf.net);
    model_cfg_free(inf.cfg);
    free(inf.images);
    free(inf.indices);
    free(inf.logits);
    free(inf.per_class);
    free(inf.predictions);
    return ok;
}
