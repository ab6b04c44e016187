/* progress.c - see progress.h */
#include "cli/progress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "cli/service.h"
#include "cli/table.h"

enum { BAR_CELLS = 24 };

void progress_init(struct progress *progress)
{
    *progress = (struct progress){
        .train_loss = NAN, .train_acc = NAN, .val_loss = NAN, .val_acc = NAN, .best_acc = NAN, .speed = NAN};
}

void progress_metrics(struct progress *progress, const json_t *metrics)
{
    const struct {
        const char *key;
        double *value;
    } rows[] = {
        {"train_loss", &progress->train_loss}, {"train_acc", &progress->train_acc},
        {"val_loss", &progress->val_loss},     {"val_acc", &progress->val_acc},
        {"best_acc", &progress->best_acc},     {"images_per_second", &progress->speed},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (json_is_number(json_object_get(metrics, rows[i].key)))
            progress->measured_epoch = (int64_t)json_double(metrics, "epoch", (double)progress->measured_epoch);
        *rows[i].value = json_double(metrics, rows[i].key, *rows[i].value);
    }
    progress->epoch = (int64_t)json_double(metrics, "epoch", (double)progress->epoch);
    progress->epochs = (int64_t)json_double(metrics, "total_epochs", (double)progress->epochs);
}

void progress_record(struct progress *progress, const json_t *record, double now)
{
    snprintf(progress->status, sizeof progress->status, "%s", json_text(record, "status", progress->status));
    snprintf(progress->device, sizeof progress->device, "%s", json_text(record, "device", progress->device));
    snprintf(progress->message, sizeof progress->message, "%s", json_text(record, "message", progress->message));
    progress->percent = (int)json_double(record, "progress", progress->percent);
    progress->epoch = (int64_t)json_double(record, "current_epoch", (double)progress->epoch);
    progress->epochs = (int64_t)json_double(record, "total_epochs", (double)progress->epochs);
    if (progress->started <= 0 && strcmp(progress->status, "running") == 0) {
        progress->started = now;
        progress->started_percent = progress->percent;
    }
}

double progress_remaining(const struct progress *progress, double now)
{
    int done = progress->percent - progress->started_percent;

    if (progress->started <= 0 || done <= 0 || progress->percent >= 100)
        return -1;
    return (now - progress->started) * (100 - progress->percent) / done;
}

/* "0:42", "1:02:03" */
static void put_duration(struct buf *out, double seconds)
{
    long s = (long)(seconds + 0.5);

    if (s >= 3600)
        buf_printf(out, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        buf_printf(out, "%ld:%02ld", s / 60, s % 60);
}

static void put_value(struct buf *out, const char *name, const char *fmt, double value)
{
    char text[32];

    if (isnan(value))
        return;
    snprintf(text, sizeof text, *fmt == 'l' ? "%.4f" : *fmt == '%' ? "%.2f%%" : "%.1f", value);
    buf_printf(out, "  %s %s", name, text);
}

static void put_epoch(int64_t epoch, int64_t epochs, struct buf *out)
{
    if (epochs > 0)
        buf_printf(out, tr("第 %lld/%lld 轮", "epoch %lld/%lld"), (long long)epoch, (long long)epochs);
}

static void put_values(const struct progress *progress, struct buf *out)
{
    put_value(out, tr("训练损失", "loss"), "loss", progress->train_loss);
    put_value(out, tr("训练", "train"), "%", progress->train_acc);
    put_value(out, tr("验证", "val"), "%", progress->val_acc);
    put_value(out, tr("最佳", "best"), "%", progress->best_acc);
    put_value(out, tr("图/秒", "images/s"), "speed", progress->speed);
}

/* Cuts what does not fit, at a character's border. */
static void cut(struct buf *out, size_t width)
{
    size_t fit = out->data ? text_fit(out->data, width) : 0;

    if (out->data && fit < out->size) {
        out->size = fit;
        out->data[fit] = '\0';
    }
}

void progress_line(const struct progress *progress, double now, size_t width, struct buf *out)
{
    double left = progress_remaining(progress, now);

    if (strcmp(progress->status, "running") != 0) {
        buf_puts(out, progress->message);
        cut(out, width);
        return;
    }
    put_epoch(progress->epoch, progress->epochs, out);
    buf_printf(out, "%s[", progress->epochs > 0 ? " " : "");
    for (int i = 0; i < BAR_CELLS; i++)
        buf_puts(out, i * 100 < progress->percent * BAR_CELLS ? "#" : ".");
    buf_printf(out, "] %3d%%", progress->percent);
    if (left >= 0) {
        buf_puts(out, tr("  剩余 ", "  left "));
        put_duration(out, left);
    }
    put_values(progress, out);
    cut(out, width);
}

void progress_epoch_line(const struct progress *progress, struct buf *out)
{
    put_epoch(progress->measured_epoch, progress->epochs, out);
    put_values(progress, out);
}
