/* optim.c - Adam (Kingma and Ba 2015) as torch.optim.Adam computes it. See ref.h, op.h */
#include "engine/ref/ref.h"

#include <math.h>

bool ref_adam(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct op_attrs *a = &op->attrs;
    int64_t *step = op_input(graph, op, ADAM_STEP)->data;
    double correction1, correction2;
    float beta1 = (float)a->beta1, beta2 = (float)a->beta2, step_size, root;

    (void)stream, (void)err;
    correction1 = 1 - pow(a->beta1, (double)(*step + 1));
    correction2 = 1 - pow(a->beta2, (double)(*step + 1));
    step_size = (float)(a->learning_rate / correction1);
    root = (float)sqrt(correction2);
    for (int k = ADAM_FIRST; k < op->input_count; k += ADAM_GROUP) {
        const struct tensor *param = op_input(graph, op, k + ADAM_PARAM);
        float *p = ref_f32(param), *m = ref_f32(op_input(graph, op, k + ADAM_EXP_AVG));
        float *v = ref_f32(op_input(graph, op, k + ADAM_EXP_AVG_SQ));
        const float *g = ref_f32(op_input(graph, op, k + ADAM_GRAD));
        int64_t count = (int64_t)(param->bytes / sizeof *p);

#pragma omp parallel for simd
        for (int64_t i = 0; i < count; i++) {
            m[i] = beta1 * m[i] + (1 - beta1) * g[i];
            v[i] = beta2 * v[i] + (1 - beta2) * g[i] * g[i];
            p[i] -= step_size * m[i] / (sqrtf(v[i]) / root + a->eps);
        }
    }
    *step += a->counts_step;
    return true;
}
