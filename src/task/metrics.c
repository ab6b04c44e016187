/* metrics.c - see metrics.h */
#include "task/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const int metrics_top_k[METRICS_TOP] = {1, 3, 5};

/* One image as the average precision of a class sees it. */
struct ranked {
    double score;
    bool positive;
};

double log_sum_exp(const float *x, size_t n)
{
    double largest = -INFINITY, sum = 0;

    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, x[i]);
    if (!isfinite(largest))
        return largest;
    for (size_t i = 0; i < n; i++)
        sum += exp(x[i] - largest);
    return largest + log(sum);
}

static size_t first_largest(const float *x, size_t n)
{
    size_t best = 0;

    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best] || isnan(x[best]))
            best = i;
    return best;
}

/* Classes that come before `label` when sorted by probability, equal ones in the order of their index. */
static size_t rank_of(const float *x, size_t n, size_t label)
{
    size_t before = 0;

    for (size_t i = 0; i < n; i++)
        before += x[i] > x[label] || (i < label && (x[i] == x[label] || isnan(x[label])));
    return before;
}

/* Loss and top-k. */
static void measure_images(const float *logits, const int32_t *labels, size_t n, size_t classes, size_t batch_size,
                           const double *norms, struct metrics *m)
{
    double loss = 0, batch_loss = 0;
    size_t batches = 0, in_batch = 0, hits[METRICS_TOP] = {0};

    for (size_t i = 0; i < n; i++) {
        const float *row = logits + i * classes;
        size_t rank = rank_of(row, classes, (size_t)labels[i]);

        batch_loss += norms[i] - row[labels[i]];
        if (++in_batch == batch_size || i + 1 == n) {
            loss += batch_loss / (double)in_batch;
            batches++;
            batch_loss = 0;
            in_batch = 0;
        }
        for (int k = 0; k < METRICS_TOP; k++)
            hits[k] += rank < (size_t)metrics_top_k[k];
    }
    m->loss = batches ? loss / (double)batches : 0;
    for (int k = 0; k < METRICS_TOP; k++)
        m->top_k[k] = (size_t)metrics_top_k[k] > classes ? NAN : n ? 100.0 * (double)hits[k] / (double)n : 0;
}

/* What happened to the images of one class. */
struct tally {
    int64_t hits, predicted, actual;
};

/* Precision, recall and F1; the reference divides by at least 1e-8 instead of by 0. */
static void measure_classes(const struct tally *tallies, size_t classes, size_t n, struct metrics *m)
{
    int64_t correct = 0;

    for (size_t c = 0; c < classes; c++) {
        const struct tally *t = &tallies[c];
        double precision = (double)t->hits / fmax((double)t->predicted, 1e-8);
        double recall = (double)t->hits / fmax((double)t->actual, 1e-8);

        m->macro_precision += precision / (double)classes;
        m->macro_recall += recall / (double)classes;
        m->macro_f1 += 2 * precision * recall / fmax(precision + recall, 1e-8) / (double)classes;
        correct += t->hits;
    }
    /* one label an image: every false positive is another class's false negative, so the three are one */
    m->micro_precision = m->micro_recall = m->micro_f1 = n ? (double)correct / (double)n : 0;
    m->accuracy = 100 * m->micro_recall;
}

static int by_score_descending(const void *a, const void *b)
{
    double x = ((const struct ranked *)a)->score, y = ((const struct ranked *)b)->score;

    return (x < y) - (x > y);
}

/* Mean over the positives of the precision at each one's rank; images of equal score are taken together. */
static double average_precision(struct ranked *images, size_t n)
{
    double sum = 0, positives = 0;

    qsort(images, n, sizeof *images, by_score_descending);
    for (size_t from = 0, to; from < n; from = to) {
        double here = 0;

        for (to = from; to < n && images[to].score == images[from].score; to++)
            here += images[to].positive;
        positives += here;
        sum += here * positives / (double)to;
    }
    return positives > 0 ? sum / positives : 0;
}

static double mean_average_precision(const float *logits, const int32_t *labels, size_t n, size_t classes,
                                     const double *norms, const struct tally *tallies, struct ranked *images)
{
    double sum = 0;

    for (size_t c = 0; c < classes; c++) {
        if (tallies[c].actual == 0)
            continue;
        for (size_t i = 0; i < n; i++) {
            double score = logits[i * classes + c] - norms[i]; /* the logarithm sorts like the probability */

            images[i] = (struct ranked){isnan(score) ? -INFINITY : score, (size_t)labels[i] == c};
        }
        sum += average_precision(images, n);
    }
    return sum / (double)classes;
}

bool metrics_compute(const float *logits, const int32_t *labels, size_t n, size_t classes, size_t batch_size,
                     struct metrics *ret, int64_t *confusion, struct err *err)
{
    struct metrics m = {0};
    struct ranked *images = malloc((n ? n : 1) * sizeof *images);
    double *norms = malloc((n ? n : 1) * sizeof *norms);
    struct tally *tallies = calloc(classes, sizeof *tallies);
    bool ok = images && norms && tallies;

    if (!ok) {
        err_set(err, ERR_MEMORY, "out of memory for the metrics of %zu images and %zu classes", n, classes);
        goto out;
    }
    if (confusion)
        memset(confusion, 0, classes * classes * sizeof *confusion);
    for (size_t i = 0; i < n; i++) {
        size_t actual = (size_t)labels[i], predicted = first_largest(logits + i * classes, classes);

        norms[i] = log_sum_exp(logits + i * classes, classes);
        tallies[actual].actual++;
        tallies[predicted].predicted++;
        tallies[actual].hits += actual == predicted;
        if (confusion)
            confusion[actual * classes + predicted]++;
    }
    measure_images(logits, labels, n, classes, batch_size, norms, &m);
    measure_classes(tallies, classes, n, &m);
    m.mean_average_precision = mean_average_precision(logits, labels, n, classes, norms, tallies, images);
    *ret = m;
out:
    free(images);
    free(norms);
    free(tallies);
    return ok;
}
