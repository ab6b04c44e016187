/* models.h - the registry of networks. A family is a file with a table of its sizes and one function that builds any of
 * them; a network is a row here. */
#ifndef RFUAV_ENGINE_MODELS_MODELS_H
#define RFUAV_ENGINE_MODELS_MODELS_H

#include "engine/graph.h"

struct model {
    const char *name;       /* "resnet18" */
    const char *class_name; /* what torchvision calls its class: "ResNet" */
    const char *head;       /* scope of the last layer or layers: "fc" */
    int min_image_size;     /* smallest that leaves one pixel everywhere */
    int image_size;         /* the only size that is possible; 0: any from the smallest */

    /* x (N,S,S,3) in [0,1] -> logits (N,num_classes); `size` is the family's own row. */
    tensor_id (*build)(struct graph *graph, const void *size, tensor_id x, int num_classes);
    const void *size;

    /* (optional) The family's row with the last layers that torchvision gives the network, where the service's are
     * others; the weight that tells them apart, and how many rows it has in torchvision's. */
    const void *torchvision_size;
    const char *probe;
    int probe_rows;
};

const struct model *model_find(const char *name); /* NULL: unknown */
const char *const *model_names(void);             /* in the API's order, NULL-terminated */

/* resnet.c: He et al., "Deep residual learning for image recognition", CVPR 2016. */
struct resnet;
extern const struct resnet resnet18, resnet34, resnet50, resnet101, resnet152;
tensor_id resnet_build(struct graph *graph, const void *size, tensor_id x, int num_classes);

/* mobilenet_v3.c: Howard et al., "Searching for MobileNetV3", ICCV 2019. */
struct mobilenet_v3;
extern const struct mobilenet_v3 mobilenet_v3_large, mobilenet_v3_large_torchvision;
extern const struct mobilenet_v3 mobilenet_v3_small, mobilenet_v3_small_torchvision;
tensor_id mobilenet_v3_build(struct graph *graph, const void *size, tensor_id x, int num_classes);

#endif
