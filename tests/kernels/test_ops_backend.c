/* test_ops_backend.c - every case on backend "cpu" against the reference, and the reference's fused ops against its
 * unfused ones. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "op_cases.h"

/* Largest difference, relative to the tensor's largest magnitude, or to 0.1 where that is less: inputs are around 1,
 * and what cancels out leaves rounding. */
static double difference(const float *a, const float *b, int64_t count)
{
    double most = 0, scale = 0.1;

    for (int64_t i = 0; i < count; i++) {
        double d = fabs((double)a[i] - (double)b[i]);

        if (isnan(d))
            return INFINITY;
        most = fmax(most, d);
        scale = fmax(scale, fabs((double)a[i]));
    }
    return most / scale;
}

static void compare_tensor(const char *name, const char *what, const struct case_run *a, tensor_id ta,
                           const struct case_run *b, tensor_id tb, double tolerance)
{
    struct err err;
    float *va = case_read(a, ta, &err), *vb = case_read(b, tb, &err);
    double d = difference(va, vb, tensor_elements(&a->graph->tensors[ta]));

    if (!(d < tolerance))
        fail_msg("%s: %s of tensor %d (%s) differs by %g", name, what, ta, a->graph->tensors[ta].name, d);
    free(va);
    free(vb);
}

/* Everything that both runs can show. Forward tensors have equal ids when both graphs are fused alike; the tensors that
 * builders make (all but those of passes) always do. */
static void compare_runs(const struct op_case *c, struct case_run *a, struct case_run *b)
{
    double tolerance = c->flags & CASE_ADAM ? 2e-3 : 1e-4;
    int tensors = a->forward_tensors < b->forward_tensors ? a->forward_tensors : b->forward_tensors;

    compare_tensor(c->name, "output", a, a->y, b, b->y, tolerance);
    for (tensor_id t = 0; t < tensors; t++) {
        const struct tensor *tensor = &a->graph->tensors[t];

        if (tensor_is_persistent(tensor->role))
            compare_tensor(c->name, "value afterwards", a, t, b, t, tolerance);
        if (t < a->graph->gradient_count && a->graph->gradients[t] != NO_TENSOR)
            compare_tensor(c->name, "gradient", a, a->graph->gradients[t], b, b->graph->gradients[t], tolerance);
    }
}

static void compare(const struct op_case *c, const char *name_a, bool fuse_a, const char *name_b, bool fuse_b)
{
    struct case_run a, b;
    struct err err;

    if (!case_open(c, backend_find(name_a), fuse_a, &a, &err) || !case_run(&a, c, NO_TENSOR, NULL, 0, &err))
        fail_msg("%s on %s: %s", c->name, name_a, err.message);
    if (!case_open(c, backend_find(name_b), fuse_b, &b, &err) || !case_run(&b, c, NO_TENSOR, NULL, 0, &err))
        fail_msg("%s on %s: %s", c->name, name_b, err.message);
    compare_runs(c, &a, &b);
    case_close(&a);
    case_close(&b);
}

static void test_cpu_against_ref(void **state)
{
    (void)state;
    for (int i = 0; i < OP_CASES; i++)
        compare(&op_cases[i], "ref", true, "cpu", true);
}

static void test_fused_against_unfused(void **state)
{
    (void)state;
    for (int i = 0; i < OP_CASES; i++)
        compare(&op_cases[i], "ref", false, "ref", true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cpu_against_ref),
        cmocka_unit_test(test_fused_against_unfused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
