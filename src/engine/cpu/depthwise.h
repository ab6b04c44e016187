/* depthwise.h - the gradient of a depthwise convolution's weight, for large kernels. */
#ifndef RFUAV_ENGINE_CPU_DEPTHWISE_H
#define RFUAV_ENGINE_CPU_DEPTHWISE_H

#include "engine/cpu/stream.h"

/* Is it a problem for this? And, since it works on planes alone, do the tensors lie so? */
bool depthwise_weight_wanted(const struct simd *simd, const struct op_attrs *attrs, const struct tensor *x,
                             const struct tensor *dy);
bool depthwise_weight_fits(const struct stream *stream, const struct op_attrs *attrs, const struct tensor *x,
                           const struct tensor *dy, const struct tensor *dweight);

void depthwise_weight_run(const struct stream *stream, const struct op_attrs *attrs, const struct tensor *x,
                          const struct tensor *dy, float *dweight);

#endif
