/* test_metrics.c - the metrics against numbers that a Python program computed from the same formula by the plain
 * definitions, and by hand where a case is small enough to be read. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "task/metrics.h"
#include "task/predictions.h"

#include "metrics_golden.h"

/* The formula of make_metrics_golden.py. */
static float golden_logit(size_t i, size_t c)
{
    return (float)(3 * sin(1 + 0.7 * (double)i + 1.3 * (double)c + 0.11 * (double)i * (double)c));
}

static void assert_close(const char *name, double got, double expected)
{
    if (isnan(got) && isnan(expected))
        return;
    if (!(fabs(got - expected) <= 1e-6 * fmax(1, fabs(expected))))
        fail_msg("%s: got %.12g, expected %.12g", name, got, expected);
}

static void assert_metrics(const char *name, const struct metrics *got, const struct metrics *expected)
{
    const double *a = (const double *)got, *b = (const double *)expected;

    for (size_t i = 0; i < sizeof *got / sizeof *a; i++) {
        char where[64];

        snprintf(where, sizeof where, "%s, number %zu", name, i);
        assert_close(where, a[i], b[i]);
    }
}

static void golden_cases(void **state)
{
    (void)state;
    for (size_t g = 0; g < sizeof goldens / sizeof *goldens; g++) {
        const struct golden *golden = &goldens[g];
        size_t n = golden->n, classes = golden->classes;
        float *logits = calloc(n * classes, sizeof *logits);
        int32_t *labels = calloc(n, sizeof *labels);
        int64_t *confusion = calloc(classes * classes, sizeof *confusion), sum = 0;
        struct metrics got;

        for (size_t i = 0; i < n; i++) {
            labels[i] = (int32_t)((i * 5 + i / 3) % golden->used);
            for (size_t c = 0; c < classes; c++)
                logits[i * classes + c] = golden_logit(i % golden->period, c);
        }
        assert_true(metrics_compute(logits, labels, n, classes, golden->batch_size, &got, confusion, NULL));
        assert_metrics(golden->name, &got, &golden->expected);
        for (size_t i = 0; i < classes * classes; i++)
            sum += confusion[i];
        assert_int_equal(sum, n);
        free(logits);
        free(labels);
        free(confusion);
    }
}

static void confusion_rows_are_true_classes(void **state)
{
    static const float logits[] = {5, 0, 0, 0, 5, 0, 0, 5, 0};
    static const int32_t labels[] = {0, 1, 2};
    static const int64_t expected[] = {1, 0, 0, 0, 1, 0, 0, 1, 0};
    int64_t confusion[9];
    struct metrics m;

    (void)state;
    assert_true(metrics_compute(logits, labels, 3, 3, 8, &m, confusion, NULL));
    assert_memory_equal(confusion, expected, sizeof expected);
    assert_close("accuracy", m.accuracy, 200.0 / 3);
    assert_close("macro precision", m.macro_precision, (1 + 0.5 + 0) / 3);
    assert_close("macro recall", m.macro_recall, 2.0 / 3);
}

static void average_precision_by_hand(void **state)
{
    /* class 1, from the most probable on: yes, no, yes, no: (1/1 + 2/3) / 2; class 0 the other way: (1/1 + 2/3) / 2 */
    static const float logits[] = {0, 4, 0, 3, 0, 2, 0, 1};
    static const int32_t labels[] = {1, 0, 1, 0};
    struct metrics m;

    (void)state;
    assert_true(metrics_compute(logits, labels, 4, 2, 4, &m, NULL, NULL));
    assert_close("mAP", m.mean_average_precision, 5.0 / 6);
}

static void order_does_not_matter(void **state)
{
    float logits[40], reversed[40];
    int32_t labels[20], reversed_labels[20];
    struct metrics a, b;

    (void)state;
    for (size_t i = 0; i < 20; i++) {
        labels[i] = reversed_labels[19 - i] = (int32_t)(i % 2);
        for (size_t c = 0; c < 2; c++)
            logits[2 * i + c] = reversed[2 * (19 - i) + c] = (float)(i % 3 + c % 2);
    }
    assert_true(metrics_compute(logits, labels, 20, 2, 20, &a, NULL, NULL));
    assert_true(metrics_compute(reversed, reversed_labels, 20, 2, 20, &b, NULL, NULL));
    assert_metrics("reversed", &b, &a);
}

static void numbers_that_are_none(void **state)
{
    static const float logits[] = {NAN, 1, 2, NAN, NAN, NAN, INFINITY, 0, 0};
    static const int32_t labels[] = {0, 1, 2};
    struct metrics m;

    (void)state;
    assert_true(metrics_compute(logits, labels, 3, 3, 2, &m, NULL, NULL));
    assert_true(isnan(m.loss));
    assert_true(m.accuracy >= 0 && m.accuracy <= 100);
    assert_true(m.mean_average_precision >= 0 && m.mean_average_precision <= 1);
}

static void large_logits_do_not_overflow(void **state)
{
    static const float logits[] = {1e30f, 0, -1e30f, 800, 801, 802};
    static const int32_t labels[] = {0, 2};
    struct metrics m;

    (void)state;
    assert_true(metrics_compute(logits, labels, 2, 3, 2, &m, NULL, NULL));
    assert_close("loss", m.loss, 0.4076059644443803 / 2);
}

static void nothing(void **state)
{
    struct metrics m;

    (void)state;
    assert_true(metrics_compute(NULL, NULL, 0, 3, 2, &m, NULL, NULL));
    assert_close("loss", m.loss, 0);
    assert_close("accuracy", m.accuracy, 0);
    assert_close("mAP", m.mean_average_precision, 0);
}

static void predictions_best_first(void **state)
{
    static const float logits[] = {0, 3, 1, 3, -1, 2, -5}, two[] = {1, 2};
    static const int32_t order[] = {1, 3, 5, 2, 0};
    struct prediction p;
    double sum = 0;

    (void)state;
    prediction_from(logits, 7, &p);
    assert_int_equal(p.count, PREDICTION_TOP);
    assert_memory_equal(p.classes, order, sizeof order);
    for (int c = 0; c < 7; c++)
        sum += exp(logits[c]);
    assert_close("probability", p.probabilities[0], exp(3) / sum);
    assert_close("probability", p.probabilities[4], 1 / sum);
    prediction_from(two, 2, &p);
    assert_int_equal(p.count, 2);
    assert_int_equal(p.classes[0], 1);
    assert_close("sum", p.probabilities[0] + p.probabilities[1], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_cases),
        cmocka_unit_test(confusion_rows_are_true_classes),
        cmocka_unit_test(average_precision_by_hand),
        cmocka_unit_test(order_does_not_matter),
        cmocka_unit_test(numbers_that_are_none),
        cmocka_unit_test(large_logits_do_not_overflow),
        cmocka_unit_test(nothing),
        cmocka_unit_test(predictions_best_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
