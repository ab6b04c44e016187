/* autograd.h - gradients by appending ops to the graph: one backward rule for each forward op. */
#ifndef RFUAV_ENGINE_AUTOGRAD_H
#define RFUAV_ENGINE_AUTOGRAD_H

#include "engine/graph.h"

/* Appends what computes the gradients of y with respect to every PARAM and every F32 INPUT that it depends on, given
 * dy, the gradient that arrives at y (NO_TENSOR: y is the output of a loss, and dy is 1). Where a tensor has several
 * readers its gradients are added. Fills graph->gradients (NO_TENSOR: none). An op without a rule on the way is a
 * failure that names it. */
void graph_backward(struct graph *graph, tensor_id y, tensor_id dy);

#endif
