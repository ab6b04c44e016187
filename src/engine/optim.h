/* optim.h - optimizers as ops at the end of the graph. */
#ifndef RFUAV_ENGINE_OPTIM_H
#define RFUAV_ENGINE_OPTIM_H

#include "engine/graph.h"

/* After graph_backward(): one ADAM over all parameters, betas 0.9 and 0.999, eps 1e-8 (torch.optim.Adam's defaults). */
void graph_adam(struct graph *graph, double learning_rate);

#endif
