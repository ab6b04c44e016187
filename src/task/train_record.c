/* train_record.c - see train_record.h */
#include "task/train_record.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/disk.h"
#include "base/text.h"
#include "data/image.h"
#include "engine/net.h"
#include "formats/model_cfg.h"
#include "formats/pth.h"
#include "task/files.h"

struct train_record {
    struct task *task;
    const struct train_request *request;
    /* in the task's arena */
    const char *folder, *best_path, *confusion_csv, *confusion_png;
    FILE *log, *csv;
};

/* One line of the validation each, in the contract's order: what it is called in the log, in the metrics, in the
 * metrics of old. All are fractions. */
static const struct measure {
    const char *label, *key, *old_key;
    size_t offset;
} measures[] = {
    {"macro_F1", "macro_f1", NULL, offsetof(struct metrics, macro_f1)},
    {"micro_F1", "micro_f1", NULL, offsetof(struct metrics, micro_f1)},
    {"macro_Precision", "macro_precision", "precision", offsetof(struct metrics, macro_precision)},
    {"macro_Recall", "macro_recall", "recall", offsetof(struct metrics, macro_recall)},
    {"micro_Precision", "micro_precision", NULL, offsetof(struct metrics, micro_precision)},
    {"micro_Recall", "micro_recall", NULL, offsetof(struct metrics, micro_recall)},
    {"mAP", "mAP", NULL, offsetof(struct metrics, mean_average_precision)},
};
enum { MEASURES = sizeof measures / sizeof *measures };

static double measured(const struct measure *measure, const struct metrics *metrics)
{
    return *(const double *)(const void *)((const char *)metrics + measure->offset);
}

static char *path_in(struct train_record *record, const char *name)
{
    return arena_printf(record->task->arena, "%s/%s", record->folder, name);
}

static FILE *open_in(struct train_record *record, const char *name, const char *mode, struct err *err)
{
    char *path = path_in(record, name);
    FILE *file = path ? fopen(path, mode) : NULL;

    if (!path)
        err_set(err, ERR_MEMORY, "out of memory");
    else if (!file)
        err_cannot_write(err, path, errno);
    return file;
}

bool train_record_open(struct task *task, const struct train_request *request, const char *folder,
                       struct train_record **ret, struct err *err)
{
    struct train_record *record = calloc(1, sizeof *record);

    if (!record)
        return err_set(err, ERR_MEMORY, "out of memory");
    *record = (struct train_record){.task = task, .request = request, .folder = folder};
    record->best_path = path_in(record, "best_model.pth");
    record->confusion_csv = path_in(record, "confusion_matrix.csv");
    record->confusion_png = path_in(record, "confusion_matrix.png");
    if (!record->best_path || !record->confusion_csv || !record->confusion_png) {
        train_record_free(record);
        return err_set(err, ERR_MEMORY, "out of memory");
    }
    if (!folder_make(folder, err) || !(record->log = open_in(record, "train.log", "ae", err)) ||
        !(record->csv = open_in(record, "metrics.csv", "we", err))) {
        train_record_free(record);
        return false;
    }
    fputs("epoch,train_loss,train_acc,val_loss,val_acc,best_acc", record->csv);
    for (int i = 0; i < MEASURES; i++)
        fprintf(record->csv, ",%s", measures[i].key);
    for (int k = 0; k < METRICS_TOP; k++)
        fprintf(record->csv, ",top%d_acc", metrics_top_k[k]);
    fputs(",learning_rate,seconds\n", record->csv);
    *ret = record;
    return true;
}

struct train_record *train_record_free(struct train_record *record)
{
    if (!record)
        return NULL;
    if (record->log)
        fclose(record->log);
    if (record->csv)
        fclose(record->csv);
    free(record);
    return NULL;
}

/* Appends to train.log in the form of the reference's logger. A disk that is full shows at the epoch's end. */
static void write_log(struct train_record *record, const char *text)
{
    struct timespec now;
    struct tm local;
    char date[32];

    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &local);
    strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S", &local);
    fprintf(record->log, "%s,%03ld - Train - %s\n", date, now.tv_nsec / 1000000, text);
    fflush(record->log);
}

void train_say(struct train_record *record, enum log_level level, const char *fmt, ...)
{
    va_list args;
    char *text = NULL;

    va_start(args, fmt);
    if (vasprintf(&text, fmt, args) >= 0) {
        task_log(record->task, level, "%s", text);
        write_log(record, text);
        free(text);
    }
    va_end(args);
}

void train_report(struct train_record *record, int64_t epoch, const char *stage, json_t *metrics, const char *fmt, ...)
{
    va_list args;
    char *text = NULL;

    if (metrics) {
        json_object_set_new(metrics, "epoch", json_integer(epoch));
        json_object_set_new(metrics, "total_epochs", json_integer(record->request->num_epochs));
    }
    va_start(args, fmt);
    if (vasprintf(&text, fmt, args) >= 0) {
        task_log_metrics(record->task, metrics ? stage : NULL, metrics, "%s", text);
        write_log(record, text);
        free(text);
    } else {
        json_decref(metrics);
    }
    va_end(args);
}

/* A number with the digits that the contract's line shows. */
static json_t *rounded(double x, int digits)
{
    double scale = pow(10, digits);

    return json_real(round(x * scale) / scale);
}

/* printf() writes the NaN of this processor as "-nan", the reference as "nan". */
static double printable(double x)
{
    return isnan(x) ? (double)NAN : x;
}

static json_t *loss_and_acc(const char *loss_key, double loss, const char *acc_key, double acc)
{
    /* JSON has no NaN: such a line goes without metrics */
    return isfinite(loss) ? json_pack("{s:o, s:o}", loss_key, rounded(loss, 4), acc_key, rounded(acc, 2)) : NULL;
}

void train_report_training(struct train_record *record, const struct epoch_result *result)
{
    train_report(record, result->epoch, "training",
                 loss_and_acc("train_loss", result->train_loss, "train_acc", result->train_acc),
                 "Epoch [%lld/%lld], Train Loss: %.4f, Train Accuracy: %.2f%%", (long long)result->epoch,
                 (long long)record->request->num_epochs, printable(result->train_loss), result->train_acc);
}

static void report_top_k(struct train_record *record, const struct epoch_result *result)
{
    json_t *top = json_object();
    char line[128] = "", key[16];
    int size = 0;

    for (int k = 0; k < METRICS_TOP; k++) {
        double acc = result->val.top_k[k];

        if (isnan(acc))
            continue;
        size +=
            snprintf(line + size, sizeof line - (size_t)size, "%s'top%d': %.2f", k ? ", " : "", metrics_top_k[k], acc);
        snprintf(key, sizeof key, "top%d_acc", metrics_top_k[k]);
        json_object_set_new(top, key, rounded(acc, 2));
    }
    train_report(record, result->epoch, "validation", top, "Validation Top-k Accuracy: {%s}", line);
}

void train_report_validation(struct train_record *record, const struct epoch_result *result)
{
    double learning_rate = record->request->learning_rate;

    train_report(record, result->epoch, "validation",
                 loss_and_acc("val_loss", result->val.loss, "val_acc", result->val.accuracy),
                 "Validation Loss: %.4f, Validation Accuracy: %.2f%%", printable(result->val.loss),
                 result->val.accuracy);
    train_report(record, result->epoch, "training", json_pack("{s:f}", "learning_rate", learning_rate),
                 "Learning Rate: %.6f", learning_rate);
    for (int i = 0; i < MEASURES; i++) {
        double x = measured(&measures[i], &result->val);
        json_t *metrics = json_pack("{s:o}", measures[i].key, rounded(x, 6));

        if (metrics && measures[i].old_key)
            json_object_set_new(metrics, measures[i].old_key, rounded(x, 6));
        train_report(record, result->epoch, "validation", metrics, "Validation %s: %.4f", measures[i].label, x);
    }
    report_top_k(record, result);
}

bool train_record_config(struct train_record *record, const char *const *class_names, struct err *err)
{
    const struct train_request *request = record->request;
    const char *path = path_in(record, "config.yaml");
    struct model_cfg cfg = {
        .model = request->model,
        .num_classes = (int)request->num_classes,
        .image_size = (int)request->image_size,
        .class_names = class_names,
        .train = request->train_path,
        .val = request->val_path,
        .save_path = record->folder,
        .weights = record->best_path,
        .device = record->task->device,
        .batch_size = (int)request->batch_size,
        .num_epochs = (int)request->num_epochs,
        .shuffle = request->shuffle,
        .lr = request->learning_rate,
    };

    if (!path)
        return err_set(err, ERR_MEMORY, "out of memory");
    return model_cfg_write(path, &cfg, err);
}

static bool checkpoint_path(struct train_record *record, int64_t epoch, char path[PATH_MAX], struct err *err)
{
    const char *class_name = net_class_name(record->request->model);

    if (snprintf(path, PATH_MAX, "%s/%s_epoch_%lld.pth", record->folder, class_name, (long long)epoch) >= PATH_MAX)
        return err_set(err, ERR_IO, "the path is longer than %d bytes: %s", PATH_MAX - 1, record->folder);
    return true;
}

/* Saves the epoch's checkpoint, then drops the one that keep_checkpoints no longer covers. */
static bool save_checkpoint(struct train_record *record, const struct epoch_result *result,
                            const struct state_dict *weights, struct err *err)
{
    int64_t keep = record->request->keep_checkpoints;
    char path[PATH_MAX];

    if (!checkpoint_path(record, result->epoch, path, err) || !pth_write(path, weights, err))
        return false;
    train_say(record, LOG_INFO, "Model saved at %s (Validation Accuracy: %.2f%%)", path, result->val.accuracy);
    if (keep > 0 && result->epoch > keep) {
        if (!checkpoint_path(record, result->epoch - keep, path, err))
            return false;
        unlink(path);
    }
    return true;
}

static bool save_confusion(struct train_record *record, const int64_t *confusion, const char *const *class_names,
                           struct err *err)
{
    size_t n = (size_t)record->request->num_classes;
    struct buf csv;
    bool ok;

    buf_init(&csv, 256 * MEGABYTE);
    buf_puts(&csv, "true\\predicted");
    for (size_t i = 0; i < n; i++) {
        buf_puts(&csv, ",");
        csv_text(&csv, class_names[i]);
    }
    buf_puts(&csv, "\n");
    for (size_t row = 0; row < n; row++) {
        csv_text(&csv, class_names[row]);
        for (size_t column = 0; column < n; column++)
            buf_printf(&csv, ",%lld", (long long)confusion[row * n + column]);
        buf_puts(&csv, "\n");
    }
    ok = file_write(record->confusion_csv, &csv, err) &&
         image_write_confusion_png(record->confusion_png, confusion, n, class_names, err);
    buf_release(&csv);
    return ok;
}

static bool append_csv(struct train_record *record, const struct epoch_result *result, struct err *err)
{
    const struct metrics *val = &result->val;

    fprintf(record->csv, "%lld,%.6f,%.4f,%.6f,%.4f,%.4f", (long long)result->epoch, printable(result->train_loss),
            result->train_acc, printable(val->loss), val->accuracy, result->best_acc);
    for (int i = 0; i < MEASURES; i++)
        fprintf(record->csv, ",%.6f", measured(&measures[i], val));
    for (int k = 0; k < METRICS_TOP; k++)
        if (isnan(val->top_k[k]))
            fputs(",", record->csv);
        else
            fprintf(record->csv, ",%.4f", val->top_k[k]);
    fprintf(record->csv, ",%g,%.3f\n", record->request->learning_rate, result->seconds);
    if (fflush(record->csv) != 0 || ferror(record->csv) || ferror(record->log))
        return err_cannot_write(err, record->folder, errno);
    return true;
}

bool train_record_epoch(struct train_record *record, const struct epoch_result *result,
                        const struct state_dict *weights, const int64_t *confusion, const char *const *class_names,
                        struct err *err)
{
    if (!save_checkpoint(record, result, weights, err))
        return false;
    if (result->best) {
        if (!pth_write(record->best_path, weights, err) ||
            (confusion && !save_confusion(record, confusion, class_names, err)))
            return false;
        train_report(record, result->epoch, "epoch_end",
                     json_pack("{s:o}", "best_acc", rounded(result->val.accuracy, 2)),
                     "New best model saved with Accuracy: %.2f%%", result->val.accuracy);
    }
    return append_csv(record, result, err);
}
