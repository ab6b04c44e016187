/* recompute.h - the graph pass that keeps fewer activations: what one cheap pass can make again from tensors that are
 * kept anyway is computed anew in the backward, just before it is needed (Chen et al., "Training deep nets with
 * sublinear memory cost", 2016). */
#ifndef RFUAV_ENGINE_RECOMPUTE_H
#define RFUAV_ENGINE_RECOMPUTE_H

#include "engine/graph.h"

/* For activations of at least so many bytes that a backward op reads:
 *   - outputs of batch norms: BATCH_NORM_APPLY over x, which the batch norm's own gradient needs, and over the
 * residual, if that is kept: of a chain of residual sums every second one stays.
 *   - outputs of LAYER_NORM and of ACTIVATION, where what they read is kept: the same op once more.
 *   - images: IMAGE over the bytes.
 * After graph_backward() and graph_precision(). 0: does nothing. */
void graph_recompute(struct graph *graph, size_t least_bytes);

#endif
