/* infer.c - an inference, section 14 of the contract: the pictures of a file or folder and the frames of its raw
 * recordings through a trained net, an annotated copy of each, and the predictions as tables. */
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
#include "task/recordings.h"
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
    size_t total; /* pictures and frames there are to classify */
    int batch_size;
    struct pictures *pictures;     /* NULL: none in the source */
    struct recordings *recordings; /* its raw files */
    struct net *net;

    uint8_t *images;   /* (batch_size, image_size, image_size, 3), the net's, new for each batch */
    size_t *indices;   /* (batch_size) of the batch's pictures in the source */
    float *logits;     /* (batch_size, num_classes) */
    size_t *per_class; /* (num_classes) pictures predicted so */

    struct prediction *predictions; /* (total) */
    size_t done, unreadable;        /* unreadable: pictures */
    const char *first_reason;       /* why the first unreadable picture is */
};

static void say_header(struct inference *inf)
{
    struct task *task = inf->task;

    task_log(task, LOG_INFO, "%s", tr("开始推理...", "inference starts..."));
    task_log(task, LOG_INFO, tr("加载模型: %s", "loading the model: %s"), inf->request->weight_path);
    task_log(task, LOG_INFO, tr("推理数据: %s", "data: %s"), inf->request->source_path);
    task_log(task, LOG_INFO, tr("保存目录: %s", "output folder: %s"), inf->folder);
}

/* Reading pictures begins here, before the net is there, so that the first batch does not wait. */
static bool open_batch(struct inference *inf, struct err *err)
{
    size_t count = inf->total;
    int wanted = inf->request->batch_size ? (int)inf->request->batch_size : INFER_BATCH;
    size_t classes = (size_t)inf->cfg->num_classes;
    struct pictures_config config = {.image_size = inf->cfg->image_size, .threads = inf->task->threads};

    inf->batch_size = count < (size_t)wanted ? (int)count : wanted;
    config.batch_size = inf->batch_size;
    inf->indices = calloc((size_t)inf->batch_size, sizeof *inf->indices);
    inf->logits = calloc((size_t)inf->batch_size, classes * sizeof *inf->logits);
    inf->per_class = calloc(classes, sizeof *inf->per_class);
    inf->predictions = calloc(count, sizeof *inf->predictions);
    if (!inf->indices || !inf->logits || !inf->per_class || !inf->predictions)
        return err_set(err, ERR_MEMORY, "out of memory for %zu pictures in batches of %d", count, inf->batch_size);
    return inf->source.picture_count == 0 ||
           pictures_open(inf->source.pictures, inf->source.picture_count, &config, &inf->pictures, err);
}

/* Bytes on the host beside the net's. */
static uint64_t memory_beside(const struct inference *inf)
{
    return decode_memory(inf->batch_size, inf->cfg->image_size) +
           (recordings_count(inf->recordings) > 0 ? recordings_memory(inf->task->threads) : 0);
}

static bool open_net(struct inference *inf, struct err *err)
{
    struct net_config config = {
        .model = inf->cfg->model,
        .num_classes = inf->cfg->num_classes,
        .image_size = inf->cfg->image_size,
        .batch_size = inf->batch_size,
        .mode = NET_INFER,
        .precision = precision_on(inf->request->precision, inf->task->backend),
        .backend = inf->task->backend,
        .device = inf->task->device_uuid,
        .threads = inf->task->threads,
        .load_follows = true,
    };
    struct state_dict *weights = NULL;
    bool skipped, ok;

    if (!checkpoint_read(inf->request->weight_path, &weights, err))
        return false;
    config.torchvision_head = net_has_torchvision_head(config.model, weights);
    ok = net_open(&config, &inf->net, err) &&
         (net_load(inf->net, weights, false, &skipped, err) || err_prefix(err, "%s", inf->request->weight_path));
    state_dict_free(weights);
    if (ok)
        task_memory(inf->task,
                    net_memory(inf->net)->total + (strcmp(inf->task->backend, "cuda") != 0 ? memory_beside(inf) : 0));
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

/* Notes what the net says about a picture or frame; `text` becomes what is to be drawn on it. */
static void take_prediction(struct inference *inf, const char *file, int64_t frame, const float *logits, char *text,
                            size_t size)
{
    struct prediction *p = &inf->predictions[inf->done++];

    p->file = file;
    p->frame = frame;
    prediction_from(logits, (size_t)inf->cfg->num_classes, p);
    inf->per_class[p->classes[0]]++;
    snprintf(text, size, "%s %.2f%%", inf->cfg->class_names[p->classes[0]], 100 * p->probabilities[0]);
    if (inf->total > LINES_MAX && inf->done % LINES_EVERY != 0)
        return;
    if (frame == NO_FRAME)
        task_log(inf->task, LOG_INFO, "%s: %s", file, text);
    else
        task_log(inf->task, LOG_INFO, "%s #%lld: %s", file, (long long)frame, text);
}

static bool go_on(struct inference *inf, struct err *err)
{
    size_t over = inf->done + inf->unreadable + recordings_unreadable(inf->recordings);

    if (inf->task->cancelled(inf->task))
        return err_set(err, ERR_CANCELLED, "%s", tr("推理已被取消", "the inference was cancelled"));
    task_progress(inf->task, over < inf->total ? (int)(99 * over / inf->total) : 99, 0);
    return true;
}

static bool classify_pictures(struct inference *inf, struct err *err)
{
    size_t classes = (size_t)inf->cfg->num_classes;
    char text[512];
    int n;

    if (!inf->pictures)
        return true;
    while (go_on(inf, err) && net_input_buffer(inf->net, &inf->images, err)) {
        if ((n = next_batch(inf)) == 0)
            return pictures_finish(inf->pictures, err);
        if (!net_logits(inf->net, inf->images, n, inf->logits, err) || !pictures_check(inf->pictures, err))
            return false;
        task_memory_taken(inf->task);
        for (int i = 0; i < n; i++) {
            take_prediction(inf, inf->source.pictures[inf->indices[i]].name, NO_FRAME,
                            inf->logits + (size_t)i * classes, text, sizeof text);
            pictures_write(inf->pictures, inf->indices[i], text);
        }
    }
    return false;
}

/* As many frames as a batch and the recordings hold, fewer at the end and when the task is cancelled: one takes long.
 */
static int next_frames(struct inference *inf, struct frame frames[RECORDINGS_BATCH])
{
    size_t image = (size_t)inf->cfg->image_size * (size_t)inf->cfg->image_size * 3;
    int n = 0;

    while (n < RECORDINGS_BATCH && n < inf->batch_size && !inf->task->cancelled(inf->task) &&
           recordings_next(inf->recordings, inf->images + (size_t)n * image, &frames[n]))
        n++;
    return n;
}

static bool classify_frames(struct inference *inf, struct err *err)
{
    size_t classes = (size_t)inf->cfg->num_classes;
    struct frame frames[RECORDINGS_BATCH];
    char text[512];

    for (;;) {
        int n;

        if (!net_input_buffer(inf->net, &inf->images, err))
            return false;
        n = next_frames(inf, frames);
        if (!go_on(inf, err))
            return false;
        if (n == 0)
            return recordings_finish(inf->recordings, err);
        if (!net_logits(inf->net, inf->images, n, inf->logits, err))
            return false;
        task_memory_taken(inf->task);
        for (int i = 0; i < n; i++) {
            take_prediction(inf, frames[i].file->name, (int64_t)frames[i].index, inf->logits + (size_t)i * classes,
                            text, sizeof text);
            if (!recordings_write(inf->recordings, text, err))
                return false;
        }
    }
}

/* Something to read and nothing of it readable is a failure. */
static bool check_any(const struct inference *inf, struct err *err)
{
    if (inf->done > 0)
        return true;
    if (inf->unreadable > 0)
        return err_set(
            err, ERR_INVALID,
            tr("%zu 张图像均无法读取，第一张的原因: %s", "none of the %zu images can be read; the first: %s"),
            inf->source.picture_count, inf->first_reason);
    if (recordings_unreadable(inf->recordings) > 0)
        return err_set(err, ERR_INVALID,
                       tr("IQ文件均无法读取，第一个的原因: %s", "no raw IQ file can be read; the first: %s"),
                       recordings_reason(inf->recordings) ? recordings_reason(inf->recordings) : "out of memory");
    return true;
}

static void say_summary(struct inference *inf)
{
    struct task *task = inf->task;
    size_t frames = 0;

    task_log(task, LOG_INFO, tr("共识别 %zu 张图像，%zu 张无法读取", "%zu images classified, %zu unreadable"),
             inf->done, inf->unreadable + recordings_unreadable(inf->recordings));
    for (size_t i = 0; i < inf->done; i++)
        frames += inf->predictions[i].frame != NO_FRAME;
    if (frames > 0)
        task_log(task, LOG_INFO, tr("其中 %zu 张是IQ文件的帧", "%zu of them are frames of raw IQ files"), frames);
    for (int c = 0; c < inf->cfg->num_classes; c++)
        if (inf->per_class[c] > 0)
            task_log(task, LOG_INFO, "%s: %zu", inf->cfg->class_names[c], inf->per_class[c]);
}

static bool classify(struct inference *inf, struct err *err)
{
    if (!recordings_open(&inf->source, inf->cfg->image_size, inf->task, &inf->recordings, err))
        return false;
    inf->total = inf->source.picture_count + recordings_count(inf->recordings);
    if (inf->total == 0) {
        if (inf->source.raw_count == 0)
            task_log(inf->task, LOG_WARNING, tr("%s 中没有可识别的图像", "no images in %s"), inf->request->source_path);
        return check_any(inf, err);
    }
    if (!open_batch(inf, err) || !open_net(inf, err) || !classify_pictures(inf, err) || !classify_frames(inf, err) ||
        !check_any(inf, err) ||
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
         source_list(inf.request->source_path, inf.folder, task->arena, &inf.source, err) && classify(&inf, err);
    if (ok) {
        task_progress(task, 100, 0);
        task_log(task, LOG_INFO, "%s", tr("推理完成！", "inference completed!"));
    }
    pictures_free(inf.pictures);
    recordings_free(inf.recordings);
    net_free(inf.net);
    model_cfg_free(inf.cfg);
    free(inf.indices);
    free(inf.logits);
    free(inf.per_class);
    free(inf.predictions);
    return ok;
}
