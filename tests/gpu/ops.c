/* ops.c - every op case on the CUDA backend against the reference, in F32 (without TF32) and BF16.
 *
 *   ops [WORD]     only cases whose name has WORD in it
 *
 * One line for each case: the largest difference of anything that both runs can show, relative to the tensor's largest
 * magnitude. A case runs three times on the GPU, so that the recorded step is tested too. Links without the CPU backend
 * and its library. */
#include <math.h>
#include <stdio.h>

#include "../kernels/op_cases.h"

const struct backend cpu_backend = {.name = "cpu"};

struct worst {
    double difference, tolerance;
    char what[160];
};

/* Largest difference relative to the largest magnitude, or the difference's length relative to the tensor's. */
enum norm { LARGEST, LENGTH };

static double difference(const float *a, const float *b, int64_t count, enum norm norm)
{
    double most = 0, scale = 1e-3, length = 0, whole = 1e-6;

    for (int64_t i = 0; i < count; i++) {
        double d = fabs((double)a[i] - (double)b[i]);

        if (isnan(d))
            return INFINITY;
        most = fmax(most, d);
        scale = fmax(scale, fabs((double)a[i]));
        length += d * d;
        whole += (double)a[i] * (double)a[i];
    }
    return norm == LARGEST ? most / scale : sqrt(length / whole);
}

/* Notes the comparison that comes closest to its tolerance, or exceeds it most. */
static bool compare_tensor(const char *what, const struct case_run *a, tensor_id ta, const struct case_run *b,
                           tensor_id tb, enum norm norm, double tolerance, struct worst *worst, struct err *err)
{
    float *va = case_read(a, ta, err), *vb = case_read(b, tb, err);
    const struct tensor *tensor = &a->graph->tensors[ta];
    bool ok = va && vb;
    double d = ok ? difference(va, vb, tensor_elements(tensor), norm) : 0;

    if (d / tolerance >= worst->difference / worst->tolerance) {
        worst->difference = d;
        worst->tolerance = tolerance;
        snprintf(worst->what, sizeof worst->what, "%s %d (%s)", what, ta, tensor->name ? tensor->name : "");
    }
    free(va);
    free(vb);
    return ok;
}

/* In bf16 a network's gradients are compared by length and loosely: values near a kink of an activation fall on either
 * side of it, which a whole gradient downstream depends on. (PyTorch's bf16 gradients of a ResNet are as far from its
 * fp32 ones; parity.py shows both.) */
static bool compare_runs(const struct op_case *c, const struct case_run *a, const struct case_run *b,
                         enum dtype precision, struct worst *worst, struct err *err)
{
    bool half = precision == DTYPE_BF16,
         kinks = c->flags & (CASE_HARDSWISH | CASE_HARDSIGMOID), /* whose slope jumps by a half */
        net = c->build == build_block || c->build == build_bottleneck || c->build == build_chain || kinks;
    double values = c->flags & CASE_ADAM ? half ? 1e-1 : 2e-3 : half ? net ? 6e-2 : 2e-2 : 1e-4;
    double gradients = half && net ? 0.6 : values;
    enum norm norm = half && net ? LENGTH : LARGEST;
    bool ok = compare_tensor("output", a, a->y, b, b->y, LARGEST, values, worst, err);

    for (tensor_id t = 0; ok && t < a->forward_tensors; t++) {
        if (tensor_is_persistent(a->graph->tensors[t].role))
            ok = compare_tensor("value", a, t, b, t, LARGEST, values, worst, err);
        if (ok && t < a->graph->gradient_count && a->graph->gradients[t] != NO_TENSOR)
            ok = compare_tensor("gradient", a, a->graph->gradients[t], b, b->graph->gradients[t], norm, gradients,
                                worst, err);
    }
    return ok;
}

static bool check(const struct op_case *c, enum dtype precision)
{
    const struct backend *cuda = backend_find("cuda");
    struct case_run a = {0}, b = {0};
    struct worst worst = {.tolerance = 1};
    struct err err = {0};
    bool ok = case_open(c, backend_find("ref"), true, &a, &err), good;

    a.rounded = precision == DTYPE_BF16;
    ok = ok && case_run(&a, c, NO_TENSOR, NULL, 0, &err) && case_open_in(c, cuda, true, precision, &b, &err);
    b.rounded = a.rounded;
    for (int i = 0; ok && i < 3; i++)
        ok = case_run(&b, c, NO_TENSOR, NULL, 0, &err);
    ok = ok && compare_runs(c, &a, &b, precision, &worst, &err);
    good = ok && worst.difference < worst.tolerance;
    printf("%-6s %-4s %.1e  %s", good ? "ok" : "FAILED", dtype_name(precision), worst.difference, c->name);
    if (!good)
        printf("  [%s]", ok ? worst.what : err.message);
    printf("\n");
    fflush(stdout);
    if (a.plan)
        case_close(&a);
    if (b.plan)
        case_close(&b);
    return good;
}

int main(int argc, char **argv)
{
    int failed = 0, count = 0;

    setenv("RFUAV_TF32", "0", 1);
    for (int precision = 0; precision < 2; precision++)
        for (int i = 0; i < OP_CASES; i++)
            if (argc < 2 || strstr(op_cases[i].name, argv[1])) {
                failed += !check(&op_cases[i], precision ? DTYPE_BF16 : DTYPE_F32);
                count++;
            }
    printf("%d of %d op cases failed\n", failed, count);
    return failed ? 1 : 0;
}
