/* op.c - see op.h */
#include "engine/op.h"

const struct op_info *op_info(enum op_type type)
{
    static const struct op_info infos[OP_COUNT] = {
#define X(name, inputs, outputs, inplace0, inplace3) {#name, inputs, outputs, inplace0, inplace3},
        OPS(X)
#undef X
    };

    return &infos[type];
}

bool op_attrs_equal(const struct op_attrs *a, const struct op_attrs *b)
{
    for (int i = 0; i < 2; i++)
        if (a->kernel[i] != b->kernel[i] || a->stride[i] != b->stride[i] || a->padding[i] != b->padding[i] ||
            a->shift[i] != b->shift[i])
            return false;
    return a->groups == b->groups && a->heads == b->heads && a->scale == b->scale && a->activation == b->activation &&
           a->training == b->training && a->eps == b->eps && a->momentum == b->momentum &&
           a->learning_rate == b->learning_rate && a->beta1 == b->beta1 && a->beta2 == b->beta2 &&
           a->counts_step == b->counts_step && a->p == b->p && a->rows == b->rows && a->seed == b->seed &&
           a->number == b->number;
}
