/* estimate.h - what the CPU backend's kernels will take beside their tensors, for the forecast of memory. */
#ifndef RFUAV_ENGINE_CPU_ESTIMATE_H
#define RFUAV_ENGINE_CPU_ESTIMATE_H

#include "engine/graph.h"

/* See struct backend. Asks oneDNN, which allocates next to nothing for a description. */
void cpu_estimate(struct graph *graph, struct op *op);

#endif
