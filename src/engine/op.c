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
