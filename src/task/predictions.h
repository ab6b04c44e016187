/* predictions.h - what a classifier says about pictures, and the tables that an inference leaves. */
#ifndef RFUAV_TASK_PREDICTIONS_H
#define RFUAV_TASK_PREDICTIONS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { PREDICTION_TOP = 5, NO_FRAME = -1 };

/* The most probable classes of one picture, best first; equal ones in the order of their index. */
struct prediction {
    const char *file;
    int64_t frame; /* of a raw file; NO_FRAME of a picture */
    int count;     /* PREDICTION_TOP, or fewer when there are fewer classes */
    int32_t classes[PREDICTION_TOP];
    double probabilities[PREDICTION_TOP]; /* softmax, 0 to 1 */
};

void prediction_from(const float *logits, size_t classes, struct prediction *ret); /* leaves file and frame alone */

/* predictions.csv and predictions.jsonl in `folder`, each replaced whole: file, class, probability, then the top five,
 * then the frame: an empty cell in the table, no key in the objects where it is NO_FRAME. */
bool predictions_write(const char *folder, const struct prediction *predictions, size_t n,
                       const char *const *class_names, struct err *err);

#endif
