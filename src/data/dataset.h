/* dataset.h - a folder with one folder of images per class, as torchvision's ImageFolder. */
#ifndef RFUAV_DATA_DATASET_H
#define RFUAV_DATA_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct sample {
    const char *path;
    int32_t label;
};

struct dataset {
    size_t class_count, count;
    const char *const *classes;   /* sorted by code point; index is the label */
    const struct sample *samples; /* class by class, folder by folder in sorted order */
};

/* Lists `root`. With `like`, labels are those of that data set: a class folder unknown to it is an error, one that is
 * missing here is not. A root without class folders, or a class folder without images, is an error naming it.
 * Links are followed, each folder once. */
bool dataset_open(const char *root, const struct dataset *like, struct dataset **ret, struct err *err);
struct dataset *dataset_free(struct dataset *dataset);

/* Has the name an ending of a training image (.jpg .jpeg .png .ppm .bmp .pgm .tif .tiff .webp), in any case? */
bool dataset_is_image(const char *name);

#endif
