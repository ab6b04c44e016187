/* models.c - see models.h */
#include "engine/models/models.h"

#include <string.h>

#define RESNET(model)                                                                                                  \
    {                                                                                                                  \
#model, "ResNet", "fc", 1, 0, resnet_build, &(model)                                                           \
    }

static const struct model models[] = {
    RESNET(resnet18), RESNET(resnet34), RESNET(resnet50), RESNET(resnet101), RESNET(resnet152),
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
