/* placement.h - from a prepared graph to places in the arena: lifetimes, memory taken over in place, offsets, sums. */
#ifndef RFUAV_ENGINE_PLACEMENT_H
#define RFUAV_ENGINE_PLACEMENT_H

#include "engine/backend.h"
#include "engine/graph.h"

/* What a plan needs. `live` and `scratch` are what is alive at the step where most is; together with `gaps` (lost to
 * placement) they make up the arena. `persistent` lies outside. */
struct plan_memory {
    size_t arena;
    size_t live[TENSOR_ROLE_COUNT], scratch, gaps;
    size_t persistent[TENSOR_ROLE_COUNT];
    size_t inputs; /* all INPUT tensors, alive or not */
};

struct placement {
    size_t *tensors; /* by tensor: offset, or SIZE_MAX for one that is not in the arena */
    size_t *scratch; /* by op, likewise */
    struct plan_memory memory;
};

/* Reads tensor->bytes and op->scratch_bytes. kernels: who forbids working in place; NULL: nobody. */
bool placement_make(struct placement *placement, const struct graph *graph, const struct kernel *kernels,
                    struct err *err);
void placement_release(struct placement *placement);

/* Sets tensor->data and op->scratch of all that lies in the arena. */
void placement_bind(const struct placement *placement, struct graph *graph, void *arena);

#endif
