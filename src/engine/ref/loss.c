/* loss.c - softmax with cross entropy, its gradient, and the sums that a training reports. See ref.h, op.h */
#include "engine/ref/ref.h"

#include <math.h>

/* probabilities = softmax(logits) of one image, `best` being the largest; returns the logarithm of the sum of
 * exp(logits). The largest counts 1, so that nothing overflows. */
static double softmax(const float *logits, int64_t classes, int64_t best, float *probabilities)
{
    double others = 0;

    for (int64_t k = 0; k < classes; k++)
        others += k == best ? 0 : exp((double)logits[k] - (double)logits[best]);
    for (int64_t k = 0; k < classes; k++)
        probabilities[k] = (float)(exp((double)logits[k] - (double)logits[best]) / (1 + others));
    return (double)logits[best] + log1p(others);
}

bool ref_cross_entropy(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *logits = op_input(graph, op, 0), *stats = op_input(graph, op, 2);
    const int32_t *labels = op_input(graph, op, 1)->data;
    float *loss = ref_f32(op_output(graph, op, 0)), *probabilities = ref_f32(op_output(graph, op, 1));
    int64_t n = logits->shape[0], classes = logits->shape[1], correct = 0;
    double sum = 0;

    (void)stream, (void)err;
    for (int64_t i = 0; i < n; i++) {
        const float *row = ref_f32(logits) + i * classes;
        int64_t best = 0;

        for (int64_t k = 1; k < classes; k++)
            if (row[k] > row[best])
                best = k;
        sum += softmax(row, classes, best, probabilities + i * classes) - (double)row[labels[i]];
        correct += best == labels[i];
    }
    *loss = (float)(sum / (double)n);
    if (stats) {
        double *sums = stats->data;

        sums[0] += *loss;
        sums[1] += 1;
        sums[2] += (double)correct;
        sums[3] += (double)n;
    }
    return true;
}

bool ref_cross_entropy_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *probabilities = op_input(graph, op, 0);
    const int32_t *labels = op_input(graph, op, 1)->data;
    float *dlogits = ref_f32(op_output(graph, op, 0));
    int64_t n = probabilities->shape[0], classes = probabilities->shape[1];

    (void)stream, (void)err;
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < classes; k++) {
            float p = ref_f32(probabilities)[i * classes + k];

            dlogits[i * classes + k] = (p - (k == labels[i] ? 1 : 0)) / (float)n;
        }
    return true;
}
