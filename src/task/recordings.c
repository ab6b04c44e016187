/* recordings.c - see recordings.h */
#include "task/recordings.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "data/iq.h"
#include "data/video.h"
#include "task/files.h"
#include "task/pictures.h"

enum { FRAMES_PER_SECOND = 5 };

/* A picture between recordings_next() and recordings_write(). */
struct held {
    struct image image;
    struct frame frame;
};

struct recordings {
    const struct source *source;
    struct task *task;
    int image_size;
    size_t *counts; /* (raw_count) frames of each file */
    size_t count;   /* of all */
    size_t unreadable;
    char *reason;

    size_t file, frame; /* the next to be handed out */
    struct iq *iq;      /* of that file; NULL before its first frame */
    struct held held[RECORDINGS_BATCH];
    size_t held_first, held_count;

    const struct source_file *written; /* the file whose frames are being written */
    size_t written_count;
    struct video *video; /* NULL: its frames become pictures */
};

/* --- looking at the files -------------------------------------------------------------------------------------------
 */

static void take_unreadable(struct recordings *r, size_t frames, const char *reason)
{
    if (!r->reason)
        r->reason = strdup(reason);
    r->unreadable += frames;
}

static struct iq *open_file(struct recordings *r, const struct source_file *file, struct err *err)
{
    struct iq_config config = {.threads = r->task->threads};
    struct iq *iq = NULL;

    return iq_open(file->path, &config, &iq, err) ? iq : NULL;
}

/* Returns how many frames it has. */
static size_t look_at(struct recordings *r, const struct source_file *file)
{
    struct err err;
    struct iq *iq = open_file(r, file, &err);
    unsigned long long samples = iq ? iq_samples(iq) : 0;
    size_t frames = iq ? iq_frames(iq) : 0;
    double seconds = (double)samples / IQ_RATE;

    if (!iq) {
        take_unreadable(r, 1, err.message);
        task_log(r->task, LOG_WARNING, tr("无法读取IQ文件: %s (%s)", "cannot read the IQ file %s (%s)"), file->name,
                 err.message);
        return 0;
    }
    if (iq_spare(iq) > 0)
        task_log(r->task, LOG_WARNING,
                 tr("%s 末尾的 %u 字节不足一个采样，已忽略",
                    "%s ends in %u bytes that are no whole sample; they are left out"),
                 file->name, iq_spare(iq));
    if (frames == 0)
        task_log(r->task, LOG_WARNING,
                 tr("跳过 %s: 时长 %.6f 秒 (%llu 个采样)，不足一帧的 %.1f 秒 (%d 个采样)",
                    "skipped %s: it is %.6f s long (%llu samples), a frame is %.1f s (%d samples)"),
                 file->name, seconds, samples, (double)IQ_FRAME / IQ_RATE, IQ_FRAME);
    else
        task_log(r->task, LOG_INFO, tr("%s: 时长 %.3f 秒，%zu 帧", "%s: %.3f s, frames: %zu"), file->name, seconds,
                 frames);
    iq_free(iq);
    return frames;
}

bool recordings_open(const struct source *source, int image_size, struct task *task, struct recordings **ret,
                     struct err *err)
{
    struct recordings *r = calloc(1, sizeof *r);

    if (r)
        r->counts = calloc(source->raw_count + 1, sizeof *r->counts);
    if (!r || !r->counts) {
        free(r);
        return err_set(err, ERR_MEMORY, "out of memory for %zu raw files", source->raw_count);
    }
    r->source = source;
    r->task = task;
    r->image_size = image_size;
    for (size_t i = 0; i < source->raw_count; i++)
        r->count += r->counts[i] = look_at(r, &source->raws[i]);
    *ret = r;
    return true;
}

struct recordings *recordings_free(struct recordings *r)
{
    if (!r)
        return NULL;
    for (size_t i = 0; i < RECORDINGS_BATCH; i++)
        image_release(&r->held[i].image);
    iq_free(r->iq);
    video_free(r->video);
    free(r->counts);
    free(r->reason);
    free(r);
    return NULL;
}

size_t recordings_count(const struct recordings *r)
{
    return r->count;
}

size_t recordings_unreadable(const struct recordings *r)
{
    return r->unreadable;
}

const char *recordings_reason(const struct recordings *r)
{
    return r->reason;
}

/* --- reading --------------------------------------------------------------------------------------------------------
 */

static void next_file(struct recordings *r)
{
    r->iq = iq_free(r->iq);
    r->file++;
    r->frame = 0;
}

/* The picture of the next frame of the present file. */
static bool make_picture(struct recordings *r, struct image *ret, uint8_t *out, struct err *err)
{
    const struct source_file *file = &r->source->raws[r->file];
    struct image image = {0};
    size_t unusable = 0;

    if (!r->iq && !(r->iq = open_file(r, file, err)))
        return false;
    if (!iq_picture(r->iq, r->frame, &image, &unusable, err))
        return false;
    if (unusable > 0)
        task_log(
            r->task, LOG_WARNING,
            tr("%s 第 %zu 帧: %zu 个采样无效 (NaN、无穷或超出范围)，按 0 处理",
               "%s, frame %zu: %zu samples are no usable numbers (NaN, infinite or beyond all bounds) and count as 0"),
            file->name, r->frame, unusable);
    if (!image_resize(&image, r->image_size, r->image_size, out, err)) {
        image_release(&image);
        return false;
    }
    *ret = image;
    return true;
}

bool recordings_next(struct recordings *r, uint8_t *out, struct frame *ret)
{
    while (r->file < r->source->raw_count) {
        const struct source_file *file = &r->source->raws[r->file];
        struct held *held = &r->held[(r->held_first + r->held_count) % RECORDINGS_BATCH];
        struct err err;

        if (r->frame == r->counts[r->file]) {
            next_file(r);
        } else if (make_picture(r, &held->image, out, &err)) {
            *ret = held->frame = (struct frame){file, r->frame++};
            r->held_count++;
            return true;
        } else {
            task_log(r->task, LOG_WARNING,
                     tr("无法读取 %s 第 %zu 帧及其后: %s", "cannot read %s from frame %zu on: %s"), file->name,
                     r->frame, err.message);
            take_unreadable(r, r->counts[r->file] - r->frame, err.message);
            next_file(r);
        }
    }
    return false;
}

/* --- writing --------------------------------------------------------------------------------------------------------
 */

static bool end_video(struct recordings *r, struct err *err)
{
    bool ok = !r->video || video_finish(r->video, err);

    if (ok && r->video)
        task_log(r->task, LOG_INFO, tr("已写入 %s (%zu 帧)", "written: %s (frames: %zu)"), r->written->target,
                 r->written_count);
    r->video = video_free(r->video);
    r->written = NULL;
    return ok;
}

/* A file's frames become pictures when there is no encoder, and also when its video cannot be begun for another reason:
 * should that be the folder's, writing the first picture says it once more. */
static void begin_video(struct recordings *r, const struct held *held)
{
    struct video_config config = {.width = held->image.width,
                                  .height = held->image.height,
                                  .frames_per_second = FRAMES_PER_SECOND,
                                  .threads = r->task->threads};
    struct err err;

    r->written = held->frame.file;
    r->written_count = 0;
    if (!video_open(r->written->target, &config, &r->video, &err))
        task_log(r->task, LOG_WARNING,
                 tr("无法生成视频，%s 的各帧改存为JPEG图像 (%s)",
                    "no video can be made, the frames of %s become JPEG files (%s)"),
                 r->written->name, err.message);
}

static bool write_picture(struct recordings *r, const struct held *held, struct err *err)
{
    const char *path = source_frame_target(r->source, held->frame.file, held->frame.index, r->task->arena);

    return path ? image_write_jpeg(path, &held->image, ANNOTATED_JPEG_QUALITY, err)
                : err_set(err, ERR_MEMORY, "out of memory");
}

bool recordings_write(struct recordings *r, const char *text, struct err *err)
{
    struct held *held = &r->held[r->held_first];
    bool ok;

    if (r->held_count == 0)
        return err_set(err, ERR_BUG, "no frame is out");
    if (r->written != held->frame.file) {
        if (!end_video(r, err))
            return false;
        begin_video(r, held);
    }
    ok = picture_annotate(&held->image, text, err) &&
         (r->video ? video_write(r->video, &held->image, err) : write_picture(r, held, err));
    image_release(&held->image);
    r->held_first = (r->held_first + 1) % RECORDINGS_BATCH;
    r->held_count--;
    r->written_count++;
    return ok;
}

bool recordings_finish(struct recordings *r, struct err *err)
{
    return end_video(r, err);
}

uint64_t recordings_memory(int threads)
{
    enum { BLOCK = 3 * MEGABYTE, ENCODER = 120 * MEGABYTE }; /* a thread's part of a transform; libx264, as measured */
    uint64_t picture = (uint64_t)IQ_WIDTH * IQ_HEIGHT * 3, plane = (uint64_t)IQ_WINDOW * IQ_WIDTH * sizeof(float);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    return (RECORDINGS_BATCH + 1) * picture + plane +
           (uint64_t)(threads > 0 ? threads
                      : cores > 0 ? cores
                                  : 1) *
               BLOCK +
           ENCODER;
}
