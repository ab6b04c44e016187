/* progress.h - the one-line picture of a running task: where it is, how well it does, how long it will take. */
#ifndef RFUAV_CLI_PROGRESS_H
#define RFUAV_CLI_PROGRESS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

struct progress {
    char status[16], device[16], message[256];
    int64_t epoch, epochs;  /* 0: not known, or no training */
    int64_t measured_epoch; /* which the values below are of; the record may be ahead of the log */
    int percent;            /* of the whole task */
    /* percent 0–100, losses ≥ 0, images/s; NAN: not known */
    double train_loss, train_acc, val_loss, val_acc, best_acc, speed;
    double started;      /* clock_seconds() when it was first seen running; 0: not yet */
    int started_percent; /* the percent at that time */
};

void progress_init(struct progress *progress);

/* Takes over what a task's record, or the metrics of a log line, say. now: clock_seconds(). */
void progress_record(struct progress *progress, const json_t *record, double now);
void progress_metrics(struct progress *progress, const json_t *metrics);

/* Seconds until the end by the pace so far; negative: not known. */
double progress_remaining(const struct progress *progress, double now);

/* "epoch 3/10 [######········] 27%  loss 0.4321  train 81.20%  val 79.00%  0:42 left", at most `width` cells. */
void progress_line(const struct progress *progress, double now, size_t width, struct buf *out);

/* The summary of the epoch that has just ended: "epoch 3/10  loss 0.4321 …  val loss …". */
void progress_epoch_line(const struct progress *progress, struct buf *out);

#endif
