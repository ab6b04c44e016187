/* ref.h - the reference backend: every op in plain C, written to be read. It defines what the ops mean; the tests
 * compare every other backend with it.
 * Layouts: activations plain (N, H, W, C); convolution weights (KH, KW, I/groups, O), everything else plain. */
#ifndef RFUAV_ENGINE_REF_REF_H
#define RFUAV_ENGINE_REF_REF_H

#include "engine/backend.h"

extern const struct backend ref_backend;
extern const struct kernel ref_kernels[OP_COUNT];

#endif
