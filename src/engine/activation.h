/* activation.h - what passes and scalar code must know of an activation: one row each. */
#ifndef RFUAV_ENGINE_ACTIVATION_H
#define RFUAV_ENGINE_ACTIVATION_H

#include "engine/op.h"

struct activation_info {
    const char *name;         /* "hardswish" */
    bool from_y;              /* the slope is known from the output; else from the input, which must be kept then */
    float (*value)(float x);  /* y */
    float (*slope)(float at); /* dy/dx, from y or x as above */
};

const struct activation_info *activation_info(enum activation activation);

#endif
