/* conv.h - how a convolution runs on the CPU: which algorithm, which layouts. */
#ifndef RFUAV_ENGINE_CPU_CONV_H
#define RFUAV_ENGINE_CPU_CONV_H

#include "engine/cpu/primitive.h"

enum conv_pass { CONV_FORWARD, CONV_BACKWARD_DATA, CONV_BACKWARD_WEIGHT };

/* The three tensors of a convolution in any of its passes, whether values or gradients, and what else matters. */
struct conv_problem {
    enum conv_pass pass;
    const struct op_attrs *attrs;
    const struct tensor *x, *weight, *y;
    dnnl_memory_desc_t x_md, y_md; /* how the activations lie */
    dnnl_memory_desc_t weight_md;  /* likewise; format `any`: to be chosen */
    bool bias, residual;           /* forward: post-ops; backward weight: bias gradient */
};

/* A forward Winograd primitive that takes the weight ready transformed: in the form problem->weight_md, or, format
 * `any`, in one to be asked of it. NULL where there is none or where it does not pay. */
dnnl_primitive_desc_t conv_choose_ready(struct stream *stream, const struct conv_problem *problem);

/* A primitive for the problem that reads and writes exactly these layouts. NULL where oneDNN has none, or, unless
 * `reference`, only its slow reference code. The caller destroys it. */
dnnl_primitive_desc_t conv_choose(struct stream *stream, const struct conv_problem *problem, bool reference);

#endif
