/* params.h - what a net keeps between runs: parameters, buffers, optimizer moments, counters. All plans of a net share
 * it; the first plan that uses a tensor decides its layout (backend.h). */
#ifndef RFUAV_ENGINE_PARAMS_H
#define RFUAV_ENGINE_PARAMS_H

#include "engine/backend.h"
#include "engine/graph.h"

struct params;

/* An empty store on a stream, which must outlive it. NULL without memory. */
struct params *params_new(const struct backend *backend, struct stream *stream);
struct params *params_free(struct params *params); /* accepts and returns NULL */

/* Before a graph's ops are prepared: gives its persistent and DERIVED tensors the layouts that are decided already. */
void params_offer(const struct params *params, struct graph *graph);

/* Afterwards: keeps the layouts that this graph decided, allocates what is new, zeroed, and sets tensor->data of the
 * tensors that the graph keeps (graph_keeps(); the others lie in the plans' arena). */
bool params_take(struct params *params, struct graph *graph, struct err *err);

/* The bytes held for one role. */
size_t params_bytes(const struct params *params, enum tensor_role role);

/* Have the DERIVED tensors been computed since weights or the arena last changed? */
bool params_derived_valid(const struct params *params);
void params_set_derived_valid(struct params *params, bool valid);

#endif
