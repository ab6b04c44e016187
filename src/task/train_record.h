/* train_record.h - what a training says and leaves behind (section 13 of the contract): log lines, to the task and to
 * train.log alike, and the files of its folder. Every file but the two that grow line by line is replaced whole. */
#ifndef RFUAV_TASK_TRAIN_RECORD_H
#define RFUAV_TASK_TRAIN_RECORD_H

#include <stdint.h>

#include "base/err.h"
#include "base/state_dict.h"
#include "task/metrics.h"
#include "task/requests.h"
#include "task/task.h"

struct train_record;

struct epoch_result {
    int64_t epoch;                /* from 1 */
    double train_loss, train_acc; /* acc: percent */
    double best_acc;              /* percent, this epoch included */
    double seconds;
    bool best;
    struct metrics val;
};

/* Makes `folder` and opens its train.log and metrics.csv; a folder that cannot be written is an error here and now. The
 * task and the request must outlive the record. */
bool train_record_open(struct task *task, const struct train_request *request, const char *folder,
                       struct train_record **ret, struct err *err);
struct train_record *train_record_free(struct train_record *record);

/* A line for both logs; `report` with metrics, to which epoch and total_epochs are added. It takes the reference of
 * `metrics`; when that is NULL the line goes without metrics and stage. */
void train_say(struct train_record *record, enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void train_report(struct train_record *record, int64_t epoch, const char *stage, json_t *metrics, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* The lines of an epoch: after its training part, and after its validation. */
void train_report_training(struct train_record *record, const struct epoch_result *result);
void train_report_validation(struct train_record *record, const struct epoch_result *result);

/* config.yaml: what an inference needs to use the checkpoints. class_names: (num_classes). */
bool train_record_config(struct train_record *record, const char *const *class_names, struct err *err);

/* The files of an epoch: its checkpoint (and those that keep_checkpoints drops), best_model.pth and confusion matrix
 * when it is the best, its line of metrics.csv. confusion: (n, n), rows true; NULL: none. */
bool train_record_epoch(struct train_record *record, const struct epoch_result *result,
                        const struct state_dict *weights, const int64_t *confusion, const char *const *class_names,
                        struct err *err);

#endif
