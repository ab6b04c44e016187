/* plan.h - a graph made ready to run: kernels prepared, every tensor given its place, memory known to the byte.
 *
 * The plans of a net (training, its smaller last batch, evaluation) share parameters and one arena, since they never
 * run at the same time. DERIVED tensors lie at the start of the arena, at equal places in all plans that have them. */
#ifndef RFUAV_ENGINE_PLAN_H
#define RFUAV_ENGINE_PLAN_H

#include "engine/backend.h"
#include "engine/graph.h"
#include "engine/params.h"
#include "engine/placement.h"

struct plan;

/* Prepares every op on the stream and places everything. Takes the graph over, also on failure. A failed graph gives
 * its own error; an op that the backend lacks is named. */
bool plan_new(struct graph *graph, const struct backend *backend, struct stream *stream, struct params *params,
              struct plan **ret, struct err *err);
struct plan *plan_free(struct plan *plan); /* accepts and returns NULL */

/* The same numbers without a stream, by the backend's estimates; changes the graph's tensors only in `bytes`. */
bool plan_forecast(struct graph *graph, const struct backend *backend, struct plan_memory *ret, struct err *err);

const struct plan_memory *plan_memory(const struct plan *plan);
struct graph *plan_graph(const struct plan *plan);

/* Sets where the arena of plan_memory()->arena bytes is. */
void plan_bind(struct plan *plan, void *arena);

/* The microseconds that op number `op` takes when it runs alone, `times` in a row. What it computes is spoilt. */
bool plan_time_op(struct plan *plan, int op, int times, double *ret, struct err *err);

/* The prologue of a graph that folds once. `write` gives one after the other of its passing tensors their values: they
 * are there for the next op alone. */
bool plan_fold(struct plan *plan, bool (*write)(void *arg, const struct tensor *tensor, struct err *err), void *arg,
               struct err *err);

/* One run, the prologue before it when the DERIVED tensors are not valid. Does not wait for the device. */
bool plan_run(struct plan *plan, struct err *err);

#endif
