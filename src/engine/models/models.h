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
    int image_step;         /* sizes must be multiples of this; 0: any from the smallest */

    /* x (N,S,S,3) in [0,1] -> logits (N,num_classes); `size` is the family's own row. */
    tensor_id (*build)(struct graph *graph, const void *size, tensor_id x, int num_classes);
    const void *size;

    /* (optional) The family's row with the last layers that torchvision gives the network, where the service's are
     * others; the weight that tells them apart, and how many rows it has in torchvision's. */
    const void *torchvision_size;
    const char *probe;
    int probe_rows;

    /* (optional) For weights from elsewhere. renamed: pairs of what stands in a name now and what stood there in older
     * files, ended by NULL. fit: makes a tensor of a net for another image size fit, `to` gives name and shape;
     * false: that cannot be (ret NULL: only to ask), or no memory. */
    const char *const *renamed;
    bool (*fit)(const struct named_tensor *from, const struct tensor *to, float *ret);
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

/* vit.c: Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021. */
struct vit;
extern const struct vit vit_b_16, vit_b_32, vit_l_16, vit_l_32;
tensor_id vit_build(struct graph *graph, const void *size, tensor_id x, int num_classes);
extern const char *const vit_renamed[];
bool vit_fit(const struct named_tensor *from, const struct tensor *to, float *ret);

/* swin_v2.c: Liu et al., "Swin Transformer V2: Scaling Up Capacity and Resolution", CVPR 2022. */
struct swin_v2;
extern const struct swin_v2 swin_v2_t, swin_v2_s, swin_v2_b;
tensor_id swin_v2_build(struct graph *graph, const void *size, tensor_id x, int num_classes);

#endif
