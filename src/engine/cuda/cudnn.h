/* cudnn.h - convolutions through cuDNN's graph interface: a problem in, the fastest execution plan for it out. */
#ifndef RFUAV_ENGINE_CUDA_CUDNN_H
#define RFUAV_ENGINE_CUDA_CUDNN_H

#include "engine/cuda/stream.h"

enum conv_pass { CONV_FORWARD, CONV_BACKWARD_DATA, CONV_BACKWARD_WEIGHT };

/* Forward may end with y = act(conv + residual + bias). */
struct conv_problem {
    enum conv_pass pass;
    struct direct_launch shape;
    bool bias, residual, relu;
    enum number bias_number;
};

/* Its operands; those that it has not are NULL. w is the weights or, in CONV_BACKWARD_WEIGHT, their gradient. */
struct conv_operands {
    const void *x, *w, *y, *bias, *residual;
};

struct conv_plan {
    struct cudnn_bag *bag; /* every descriptor that the plan stands on */
    cudnnBackendDescriptor_t plan;
    size_t workspace;
};

/* Looks for the fastest plan: in the cache, else by timing the first few that cuDNN's heuristics propose; a
 * deterministic stream takes the first of them that works. All give the same bits in every run. false without
 * an error in *err when cuDNN has no engine for the problem (then err->message is empty). */
bool conv_plan_find(struct stream *stream, const struct conv_problem *problem, struct conv_plan *ret, struct err *err);
bool conv_plan_run(struct stream *stream, const struct conv_plan *plan, const struct conv_operands *operands,
                   void *workspace, struct err *err);
void conv_plan_release(struct conv_plan *plan);

#endif
