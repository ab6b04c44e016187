/* cudnn_plan.h - what cudnn.c and cudnn_search.c share: descriptors that live and die together. */
#ifndef RFUAV_ENGINE_CUDA_CUDNN_PLAN_H
#define RFUAV_ENGINE_CUDA_CUDNN_PLAN_H

#include "engine/cuda/cudnn.h"

enum { CUDNN_BAG_SIZE = 1024 };

/* Descriptors, and the first failure of making them: after one, later calls do nothing. */
struct cudnn_bag {
    cudnnBackendDescriptor_t items[CUDNN_BAG_SIZE];
    int count;
    cudnnStatus_t status;
};

struct cudnn_bag *cudnn_bag_new(void); /* NULL without memory */
struct cudnn_bag *cudnn_bag_free(struct cudnn_bag *bag);

cudnnBackendDescriptor_t cudnn_make(struct cudnn_bag *bag, cudnnBackendDescriptorType_t type);
void cudnn_set(struct cudnn_bag *bag, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
               cudnnBackendAttributeType_t type, int64_t count, const void *values);
void cudnn_finalize(struct cudnn_bag *bag, cudnnBackendDescriptor_t d);

/* The problem as an operation graph. */
cudnnBackendDescriptor_t cudnn_graph_of(struct stream *stream, struct cudnn_bag *bag, const struct conv_problem *p);

#endif
