/* models.c - see models.h */
#include "engine/models/models.h"

#include <string.h>

#define RESNET(model)                                                                                                  \
    {                                                                                                                  \
        .name = #model, .class_name = "ResNet", .head = "fc", .min_image_size = 1, .build = resnet_build,              \
        .size = &(model)                                                                                               \
    }

#define VIT(model, side)                                                                                               \
    {                                                                                                                  \
        .name = #model, .class_name = "VisionTransformer", .head = "heads.head", .min_image_size = (side),             \
        .image_step = (side), .build = vit_build, .size = &(model), .renamed = vit_renamed, .fit = vit_fit             \
    }

#define SWIN_V2(model)                                                                                                 \
    {                                                                                                                  \
        .name = #model, .class_name = "SwinTransformer", .head = "head", .min_image_size = 4, .build = swin_v2_build,  \
        .size = &(model)                                                                                               \
    }

#define MOBILENET_V3(model, features)                                                                                  \
    {                                                                                                                  \
        .name = #model, .class_name = "MobileNetV3", .head = "classifier", .min_image_size = 1,                        \
        .build = mobilenet_v3_build, .size = &(model), .torchvision_size = &model##_torchvision,                       \
        .probe = "classifier.0.weight", .probe_rows = (features)                                                       \
    }

static const struct model models[] = {
    RESNET(resnet18),
    RESNET(resnet34),
    RESNET(resnet50),
    RESNET(resnet101),
    RESNET(resnet152),
    VIT(vit_b_16, 16),
    VIT(vit_b_32, 32),
    VIT(vit_l_16, 16),
    VIT(vit_l_32, 32),
    SWIN_V2(swin_v2_t),
    SWIN_V2(swin_v2_s),
    SWIN_V2(swin_v2_b),
    MOBILENET_V3(mobilenet_v3_large, 1280),
    MOBILENET_V3(mobilenet_v3_small, 1024),
};

enum { MODELS = sizeof models / sizeof *models };

const struct model *model_find(const char *name)
{
    for (int i = 0; i < MODELS; i++)
        if (strcmp(models[i].name, name) == 0)
            return &models[i];
    return NULL;
}

const char *const *model_names(void)
{
    static const char *names[MODELS + 1];

    for (int i = 0; i < MODELS; i++)
        names[i] = models[i].name;
    return names;
}
