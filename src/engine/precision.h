/* precision.h - the graph pass that makes a network compute in half precision. */
#ifndef RFUAV_ENGINE_PRECISION_H
#define RFUAV_ENGINE_PRECISION_H

#include "engine/graph.h"

/* With DTYPE_BF16, as torch.autocast would have it: activations, their gradients, and those of weights with two or more
 * dimensions and of linear layers' biases become BF16, and so does all that the prologue makes. Parameters, optimizer
 * moments, statistics, vectors, logits and what the loss makes of them stay F32; kernels of such a backend take a
 * weight in F32 with an activation in BF16. After graph_backward(). DTYPE_F32 changes nothing. */
void graph_precision(struct graph *graph, enum dtype precision);

/* For nets that only infer, after graph_precision(): weights of linear layers, each read by its layer alone, are kept
 * in the precision in which they are read. Whoever writes them rounds (net_weights.c). */
void graph_halve_weights(struct graph *graph, enum dtype precision);

#endif
