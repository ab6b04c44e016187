/* predictions.c - see predictions.h */
#include "task/predictions.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/text.h"
#include "task/files.h"
#include "task/metrics.h"

void prediction_from(const float *logits, size_t classes, struct prediction *ret)
{
    double norm = log_sum_exp(logits, classes);

    ret->count = 0;
    for (size_t c = 0; c < classes; c++) {
        int at = ret->count;

        while (at > 0 && logits[c] > logits[ret->classes[at - 1]])
            at--;
        if (at == PREDICTION_TOP)
            continue;
        if (ret->count < PREDICTION_TOP)
            ret->count++;
        for (int i = ret->count - 1; i > at; i--)
            ret->classes[i] = ret->classes[i - 1];
        ret->classes[at] = (int32_t)c;
    }
    for (int i = 0; i < ret->count; i++)
        ret->probabilities[i] = exp(logits[ret->classes[i]] - norm);
}

static void csv_lines(struct buf *out, const struct prediction *predictions, size_t n, const char *const *names)
{
    buf_puts(out, "file,class,probability");
    for (int k = 1; k <= PREDICTION_TOP; k++)
        buf_printf(out, ",top%d_class,top%d_probability", k, k);
    buf_puts(out, ",frame\n");
    for (size_t i = 0; i < n; i++) {
        const struct prediction *p = &predictions[i];

        csv_text(out, p->file);
        for (int k = -1; k < PREDICTION_TOP; k++) {
            int at = k < 0 ? 0 : k; /* the best stands in front of the five, too */

            buf_puts(out, ",");
            if (at < p->count) {
                csv_text(out, names[p->classes[at]]);
                buf_printf(out, ",%.6f", p->probabilities[at]);
            } else {
                buf_puts(out, ",");
            }
        }
        buf_puts(out, ",");
        if (p->frame != NO_FRAME)
            buf_printf(out, "%lld", (long long)p->frame);
        buf_puts(out, "\n");
    }
}

/* "class":…,"probability":… */
static void json_pair(struct buf *out, const char *name, double probability)
{
    buf_puts(out, "\"class\":");
    buf_json_string(out, name);
    if (isnan(probability))
        buf_puts(out, ",\"probability\":null");
    else
        buf_printf(out, ",\"probability\":%.6f", probability);
}

static void json_lines(struct buf *out, const struct prediction *predictions, size_t n, const char *const *names)
{
    for (size_t i = 0; i < n; i++) {
        const struct prediction *p = &predictions[i];

        buf_puts(out, "{\"file\":");
        buf_json_string(out, p->file);
        buf_puts(out, ",");
        json_pair(out, names[p->classes[0]], p->probabilities[0]);
        buf_puts(out, ",\"top5\":[");
        for (int k = 0; k < p->count; k++) {
            buf_puts(out, k ? ",{" : "{");
            json_pair(out, names[p->classes[k]], p->probabilities[k]);
            buf_puts(out, "}");
        }
        buf_puts(out, "]");
        if (p->frame != NO_FRAME)
            buf_printf(out, ",\"frame\":%lld", (long long)p->frame);
        buf_puts(out, "}\n");
    }
}

static bool write_table(const char *folder, const char *name,
                        void (*lines)(struct buf *, const struct prediction *, size_t, const char *const *),
                        const struct prediction *predictions, size_t n, const char *const *names, struct err *err)
{
    char path[PATH_MAX];
    struct buf content;
    bool ok;

    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return err_set(err, ERR_IO, "the path is longer than %d bytes: %s", PATH_MAX - 1, folder);
    buf_init(&content, SIZE_MAX / 2);
    lines(&content, predictions, n, names);
    ok = file_write(path, &content, err);
    buf_release(&content);
    return ok;
}

bool predictions_write(const char *folder, const struct prediction *predictions, size_t n,
                       const char *const *class_names, struct err *err)
{
    return write_table(folder, "predictions.csv", csv_lines, predictions, n, class_names, err) &&
           write_table(folder, "predictions.jsonl", json_lines, predictions, n, class_names, err);
}
