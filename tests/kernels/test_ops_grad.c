/* test_ops_grad.c - every backward rule against finite differences on the reference backend.
 * With L = sum(y dy), the derivative of L along a direction v is sum(gradient v); numerically it is
 * (L(x + h v) - L(x - h v)) / 2h. Directions move all elements, a few, or one. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "op_cases.h"

enum { DIRECTIONS = 3 };
static const double tolerance = 3e-2; /* one output may happen to lie on a kink at every step size */

static double loss_of(struct case_run *run, const struct op_case *c, tensor_id moved, const float *direction, double h)
{
    float *y, *dy = NULL;
    double sum = 0;
    struct err err;

    assert_true(case_run(run, c, moved, direction, h, &err));
    y = case_read(run, run->y, &err);
    if (run->dy != NO_TENSOR) {
        dy = malloc(tensor_plain_bytes(&run->graph->tensors[run->dy]));
        case_fill(run->graph, run->dy, 1, dy);
    }
    for (int64_t i = 0; i < tensor_elements(&run->graph->tensors[run->y]); i++)
        sum += (double)y[i] * (dy ? (double)dy[i] : 1);
    free(y);
    free(dy);
    return sum;
}

/* Direction k: all elements, an eighth of them, or one. */
static void draw_direction(float *direction, int64_t count, int k)
{
    struct random random;
    int64_t only;

    random_init(&random, 11, (uint64_t)k);
    only = random_below(&random, (uint32_t)count);
    for (int64_t i = 0; i < count; i++) {
        bool moves = k % 3 == 0 || (k % 3 == 1 && random_below(&random, 8) == 0) || (k % 3 == 2 && i == only);

        direction[i] = moves ? (float)random_normal(&random) : 0;
    }
}

/* Returns how far the numerical derivative along one direction is from the analytical one, relative to its size. */
static double mismatch(struct case_run *run, const struct op_case *c, tensor_id t, const float *gradient, int k)
{
    int64_t count = tensor_elements(&run->graph->tensors[t]);
    float *direction = malloc((size_t)count * sizeof *direction);
    double analytical = 0, along = 0, all = 0, scale, best = INFINITY;

    draw_direction(direction, count, k);
    for (int64_t i = 0; i < count; i++) {
        double product = (double)gradient[i] * (double)direction[i];

        analytical += product;
        along += product * product;
        all += (double)gradient[i] * (double)gradient[i];
    }
    scale = sqrt(along) + 0.1 * sqrt(all) + 1e-3;
    /* a kink (relu, max) inside the step, or rounding, spoils one step size; a wrong gradient spoils all */
    for (double h = 1e-2; h > 1e-4 && !(best < tolerance); h /= 3) {
        double plus = loss_of(run, c, t, direction, h), minus = loss_of(run, c, t, direction, -h);
        double difference = fabs((plus - minus) / (2 * h) - analytical);
        double rounding = 4e-7 * (fabs(plus) + 1) / h;

        best = fmin(best, fmax(0, difference - rounding) / scale);
    }
    free(direction);
    return best;
}

static void check_case(const struct op_case *c)
{
    struct case_run run;
    struct err err;

    if (!case_open(c, backend_find("ref"), true, &run, &err))
        fail_msg("%s: %s", c->name, err.message);
    for (tensor_id t = 0; t < run.forward_tensors; t++) {
        tensor_id d = t < run.graph->gradient_count ? run.graph->gradients[t] : NO_TENSOR;
        float *gradient;

        if (d == NO_TENSOR)
            continue;
        assert_true(case_run(&run, c, NO_TENSOR, NULL, 0, &err));
        gradient = case_read(&run, d, &err);
        for (int k = 0; k < DIRECTIONS; k++) {
            double error = mismatch(&run, c, t, gradient, k);

            if (!(error < tolerance))
                fail_msg("%s: gradient of tensor %d (%s), direction %d: off by %g", c->name, t,
                         run.graph->tensors[t].name, k, error);
        }
        free(gradient);
    }
    case_close(&run);
}

static void test_gradients(void **state)
{
    (void)state;
    for (int i = 0; i < OP_CASES; i++)
        if (!(op_cases[i].flags & (CASE_INFER | CASE_ADAM)))
            check_case(&op_cases[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gradients)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
