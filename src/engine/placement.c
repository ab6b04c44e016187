/* placement.c - see placement.h. Time is the index of an op; inputs are there from the beginning, since the host writes
 * them before the run. */
#include "engine/placement.h"

#include <stdlib.h>
#include <string.h>

#include "engine/offsets.h"

struct work {
    const struct graph *graph;
    struct span *spans; /* tensors, then ops (their scratch) */
    int *owner;         /* by tensor: whose span it lives in; itself unless it took over an input's memory */
    int *order;
};

static bool in_arena(const struct tensor *tensor)
{
    return tensor->role == TENSOR_INPUT || tensor->role == TENSOR_ACTIVATION || tensor->role == TENSOR_GRADIENT ||
           tensor->role == TENSOR_STATE || tensor->passing;
}

static void extend(struct span *span, int step)
{
    if (step < span->birth)
        span->birth = step;
    if (step > span->death)
        span->death = step;
}

static void find_lifetimes(struct work *w)
{
    const struct graph *graph = w->graph;

    for (int t = 0; t < graph->tensor_count; t++) {
        const struct tensor *tensor = &graph->tensors[t];

        w->owner[t] = t;
        w->spans[t] = (struct span){.birth = graph->op_count, .death = -1};
        if (in_arena(tensor))
            w->spans[t].bytes = tensor->bytes;
        if (tensor->role == TENSOR_INPUT)
            extend(&w->spans[t], 0);
    }
    for (int i = 0; i < graph->op_count; i++) {
        const struct op *op = &graph->ops[i];

        w->spans[graph->tensor_count + i] = (struct span){.bytes = op->scratch_bytes, .birth = i, .death = i};
        for (int k = 0; k < op->input_count; k++)
            if (op->inputs[k] != NO_TENSOR)
                extend(&w->spans[op->inputs[k]], i);
        for (int k = 0; k < op->output_count; k++)
            if (op->outputs[k] != NO_TENSOR)
                extend(&w->spans[op->outputs[k]], i);
    }
    for (int t = 0; t < graph->tensor_count; t++) {
        if (w->spans[t].death < 0)
            w->spans[t].bytes = 0; /* no op knows it */
        else if (graph->tensors[t].keep)
            w->spans[t].death = graph->op_count;
    }
}

/* May output y of op i live where its input `slot` lived? */
static bool may_take_over(const struct work *w, int i, unsigned slots, int slot, tensor_id y)
{
    const struct op *op = &w->graph->ops[i];
    const struct tensor *in = op_input(w->graph, op, slot), *out = &w->graph->tensors[y];

    if (!in || (in->role != TENSOR_ACTIVATION && in->role != TENSOR_GRADIENT) || in->bytes != out->bytes ||
        in->layout != out->layout || w->spans[w->owner[op->inputs[slot]]].death != i)
        return false;
    for (int k = 0; k < op->input_count; k++) /* read in another way too? */
        if (op->inputs[k] == op->inputs[slot] && !(slots >> k & 1))
            return false;
    return true;
}

static void take_over(struct work *w, int i, int output, unsigned slots)
{
    const struct op *op = &w->graph->ops[i];
    tensor_id y = output < op->output_count ? op->outputs[output] : NO_TENSOR;

    for (int slot = 0; y != NO_TENSOR && slots >> slot; slot++) {
        if (slots >> slot & 1 && may_take_over(w, i, slots, slot, y)) {
            int owner = w->owner[op->inputs[slot]];

            w->owner[y] = owner;
            w->spans[owner].death = w->spans[y].death;
            if (w->spans[y].death == i)
                w->spans[owner].death = i + 1; /* nobody reads y; still, no other output may take the place */
            w->spans[y].bytes = 0;
            return;
        }
    }
}

static void work_in_place(struct work *w, const struct kernel *kernels)
{
    for (int i = 0; i < w->graph->op_count; i++) {
        const struct op *op = &w->graph->ops[i];

        if (kernels && kernels[op->type].not_in_place)
            continue;
        take_over(w, i, 0, op_info(op->type)->inplace0);
        take_over(w, i, 3, op_info(op->type)->inplace3);
    }
}

/* DERIVED tensors that are not kept, by slot, from the start of the arena; returns where they end. */
static size_t place_derived(struct placement *placement, const struct graph *graph)
{
    size_t offset = 0;

    for (int t = 0; t < graph->tensor_count; t++) {
        if (graph->tensors[t].role != TENSOR_DERIVED || graph->fold_once)
            continue;
        placement->tensors[t] = offset;
        offset += offset_round(graph->tensors[t].bytes);
    }
    return offset;
}

/* Under which role a tensor is summed: gradients of activations are activations, only those of parameters are not; so
 * are parameters on their way through the prologue. */
static int column_of(const struct graph *graph, tensor_id t)
{
    const struct tensor *tensor = &graph->tensors[t];

    if (tensor->role == TENSOR_GRADIENT && (tensor->of == NO_TENSOR || graph->tensors[tensor->of].role != TENSOR_PARAM))
        return TENSOR_ACTIVATION;
    if (tensor->passing)
        return TENSOR_ACTIVATION;
    return tensor->role;
}

/* Sums by role at the fullest step; fills live, scratch and gaps. deltas: (op_count + 2) rows of TENSOR_ROLE_COUNT + 1.
 */
static void sum_up(const struct work *w, struct plan_memory *memory, size_t derived, ptrdiff_t *deltas)
{
    enum { COLUMNS = TENSOR_ROLE_COUNT + 1 };
    const struct graph *graph = w->graph;
    ptrdiff_t now[COLUMNS] = {0}, fullest[COLUMNS] = {0}, most = -1;

    for (int i = 0; i < graph->tensor_count + graph->op_count; i++) {
        const struct span *span = &w->spans[i];
        int column = i < graph->tensor_count ? column_of(graph, i) : TENSOR_ROLE_COUNT;

        if (!span->bytes)
            continue;
        deltas[span->birth * COLUMNS + column] += (ptrdiff_t)offset_round(span->bytes);
        deltas[(span->death + 1) * COLUMNS + column] -= (ptrdiff_t)offset_round(span->bytes);
    }
    for (int i = 0; i <= graph->op_count; i++) {
        ptrdiff_t sum = 0;

        for (int c = 0; c < COLUMNS; c++)
            sum += now[c] += deltas[i * COLUMNS + c];
        if (sum > most) {
            most = sum;
            memcpy(fullest, now, sizeof now);
        }
    }
    for (int role = 0; role < TENSOR_ROLE_COUNT; role++)
        memory->live[role] = (size_t)fullest[role];
    memory->live[TENSOR_DERIVED] = derived;
    memory->scratch = (size_t)fullest[TENSOR_ROLE_COUNT];
    memory->gaps = memory->arena - derived - (size_t)most;
    for (int t = 0; t < graph->tensor_count; t++) {
        if (graph_keeps(graph, &graph->tensors[t]))
            memory->persistent[graph->tensors[t].role] += offset_round(graph->tensors[t].bytes);
        if (graph->tensors[t].role == TENSOR_INPUT)
            memory->inputs += offset_round(graph->tensors[t].bytes);
    }
}

static void place(struct work *w, struct placement *placement, const struct kernel *kernels, ptrdiff_t *deltas)
{
    const struct graph *graph = w->graph;
    int tensors = graph->tensor_count;
    size_t derived = place_derived(placement, graph);

    find_lifetimes(w);
    work_in_place(w, kernels);
    placement->memory.arena = offsets_assign(w->spans, tensors + graph->op_count, derived, w->order);
    for (int t = 0; t < tensors; t++)
        if (in_arena(&graph->tensors[t]) && w->spans[w->owner[t]].bytes)
            placement->tensors[t] = w->spans[w->owner[t]].offset;
    for (int i = 0; i < graph->op_count; i++)
        if (graph->ops[i].scratch_bytes)
            placement->scratch[i] = w->spans[tensors + i].offset;
    sum_up(w, &placement->memory, derived, deltas);
}

bool placement_make(struct placement *placement, const struct graph *graph, const struct kernel *kernels,
                    struct err *err)
{
    size_t tensors = (size_t)graph->tensor_count, ops = (size_t)graph->op_count, all = tensors + ops;
    struct work w = {
        .graph = graph,
        .spans = calloc(all, sizeof *w.spans),
        .owner = calloc(tensors, sizeof *w.owner),
        .order = calloc(all, sizeof *w.order),
    };
    ptrdiff_t *deltas = calloc((ops + 2) * (TENSOR_ROLE_COUNT + 1), sizeof *deltas);
    bool ok;

    *placement = (struct placement){
        .tensors = malloc(tensors * sizeof *placement->tensors),
        .scratch = malloc((ops + 1) * sizeof *placement->scratch),
    };
    ok = w.spans && w.owner && w.order && deltas && placement->tensors && placement->scratch;
    if (ok) {
        memset(placement->tensors, 0xFF, tensors * sizeof *placement->tensors);
        memset(placement->scratch, 0xFF, ops * sizeof *placement->scratch);
        place(&w, placement, kernels, deltas);
    } else {
        placement_release(placement);
        err_set(err, ERR_MEMORY, "no memory to plan %zu ops", ops);
    }
    free(w.spans);
    free(w.owner);
    free(w.order);
    free(deltas);
    return ok;
}

void placement_release(struct placement *placement)
{
    free(placement->tensors);
    free(placement->scratch);
    *placement = (struct placement){0};
}

void placement_bind(const struct placement *placement, struct graph *graph, void *arena)
{
    for (int t = 0; t < graph->tensor_count; t++)
        if (placement->tensors[t] != SIZE_MAX)
            graph->tensors[t].data = (char *)arena + placement->tensors[t];
    for (int i = 0; i < graph->op_count; i++)
        if (placement->scratch[i] != SIZE_MAX)
            graph->ops[i].scratch = (char *)arena + placement->scratch[i];
}
