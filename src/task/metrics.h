/* metrics.h - how good a classifier is on a labelled set: the definitions of section 13 of the contract. Pure functions
 * of logits and labels, O(n · classes · log n). */
#ifndef RFUAV_TASK_METRICS_H
#define RFUAV_TASK_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { METRICS_TOP = 3 };                    /* how many k there are */
extern const int metrics_top_k[METRICS_TOP]; /* 1, 3, 5 */

struct metrics {
    double loss;     /* mean over the batches of each batch's mean cross-entropy; NaN when a logit is */
    double accuracy; /* percent */
    double macro_precision, macro_recall, macro_f1; /* 0 to 1 */
    double micro_precision, micro_recall, micro_f1;
    double mean_average_precision; /* 0 to 1 */
    double top_k[METRICS_TOP];     /* percent; NaN where k is more than there are classes */
};

/* logits (n, classes), labels (n) in 0..classes-1, batch_size the images of each batch but the last. confusion
 * (classes, classes), rows true and columns predicted, is overwritten; it may be NULL.
 * The predicted class is the first of the greatest logits. Images of equal probability share one rank in the average
 * precision, so that it does not depend on their order. Fails only without memory. n 0: everything is 0. */
bool metrics_compute(const float *logits, const int32_t *labels, size_t n, size_t classes, size_t batch_size,
                     struct metrics *ret, int64_t *confusion, struct err *err);

/* log(sum(exp(x))) of n numbers, in double and without overflow. */
double log_sum_exp(const float *x, size_t n);

#endif
