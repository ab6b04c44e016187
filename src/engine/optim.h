/* optim.h - optimizers as ops among those of the backward. */
#ifndef RFUAV_ENGINE_OPTIM_H
#define RFUAV_ENGINE_OPTIM_H

#include "engine/graph.h"

/* The parameters of one ADAM: so many bytes that launches do not count, and so large a part of all. */
enum { ADAM_BYTES = 32 << 20, ADAM_PARTS = 4 };

/* The last pass over a graph for training, after graph_backward(): ADAM for every parameter that has a gradient, betas
 * 0.9 and 0.999, eps 1e-8 (torch.optim.Adam's defaults). A parameter is updated as soon as the backward has its
 * gradient and reads it no more, together with others until they are least_bytes and 1 / parts of all, so that no more
 * gradients than these are there at once ("optimizer in the backward": Lv et al. 2023, arXiv:2306.09782, section 3).
 * The values are those of one update at the end. */
void graph_adam(struct graph *graph, double learning_rate, size_t least_bytes, int parts);

#endif
