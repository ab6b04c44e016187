/* model_cfg.h - the YAML file that describes a trained model (section 14 of the contract): written by a training, read
 * by an inference, in all the variations that circulate. */
#ifndef RFUAV_FORMATS_MODEL_CFG_H
#define RFUAV_FORMATS_MODEL_CFG_H

#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

struct model_cfg {
    const char *model;
    int num_classes, image_size;    /* image_size: 224 when absent */
    const char *const *class_names; /* (num_classes), by index */
    /* the rest is kept for writing; NULL and 0 are left out */
    const char *train, *val, *save_path, *weights, *device;
    int batch_size, num_epochs, shuffle;
    double lr;
};

/* The error names the file, line and key. The cfg owns its strings; model_cfg_free() takes only one that was read.
 * Values of the keys that only a training uses are taken where they make sense and left out where not. */
bool model_cfg_read(const char *path, struct model_cfg **ret, struct err *err);
bool model_cfg_parse(const char *data, size_t size, struct model_cfg **ret, struct err *err);
struct model_cfg *model_cfg_free(struct model_cfg *cfg);

/* class_names as a map name → index, so that the reference reads it too. Replaces the file whole. */
bool model_cfg_write(const char *path, const struct model_cfg *cfg, struct err *err);
bool model_cfg_print(const struct model_cfg *cfg, struct buf *out, struct err *err); /* the file's text, appended */

#endif
