/* plan.c - see plan.h */
#include "engine/plan.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct plan {
    struct graph *graph;
    const struct backend *backend;
    struct stream *stream;
    struct params *params;
    struct placement placement;
    void *recording; /* of the ops after the prologue, by the backend; NULL: not yet */
    bool ran;        /* since it was bound */
};

/* Everything is plain until a kernel's prepare says otherwise; STATE tensors are nothing. */
static void make_plain(struct graph *graph)
{
    for (int t = 0; t < graph->tensor_count; t++) {
        struct tensor *tensor = &graph->tensors[t];

        tensor->bytes = tensor->role == TENSOR_STATE ? 0 : tensor_plain_bytes(tensor);
        tensor->fixed = tensor->role == TENSOR_INPUT;
    }
}

/* A gradient or moment lies as what it is of, in numbers of its own type. */
static void lie_like(struct tensor *tensor, const struct tensor *of)
{
    tensor->layout = of->layout;
    tensor->bytes = (of->bytes - of->extra) / dtype_size(of->dtype) * dtype_size(tensor->dtype);
    tensor->fixed = true;
}

/* Sets the layouts that follow another tensor's, before the op's prepare sees them. */
static void before_prepare(struct graph *graph, const struct op *op)
{
    for (int i = 0; i < op->input_count; i++) {
        struct tensor *tensor = op_input(graph, op, i);

        if (tensor && tensor->role == TENSOR_MOMENT && !tensor->fixed)
            lie_like(tensor, &graph->tensors[tensor->of]);
    }
    for (int i = 0; i < op->output_count; i++) {
        struct tensor *tensor = op_output(graph, op, i);
        const struct tensor *of = tensor && tensor->of != NO_TENSOR ? &graph->tensors[tensor->of] : NULL;

        if (of && !tensor->fixed && tensor->role == TENSOR_GRADIENT && of->role == TENSOR_PARAM)
            lie_like(tensor, of);
    }
}

/* What the op's prepare has left open is decided now. */
static void after_prepare(struct graph *graph, const struct op *op)
{
    for (int i = 0; i < op->input_count; i++)
        if (op_input(graph, op, i))
            op_input(graph, op, i)->fixed = true;
    for (int i = 0; i < op->output_count; i++)
        if (op_output(graph, op, i))
            op_output(graph, op, i)->fixed = true;
}

/* A batch norm that keeps a mask does not look at y again. */
static void drop_masked_y(const struct graph *graph, struct op *op)
{
    const struct tensor *mask = op->type == OP_BATCH_NORM_BACKWARD ? op_input(graph, op, BNB_MASK) : NULL;

    if (mask && mask->bytes)
        op->inputs[BNB_Y] = NO_TENSOR;
}

static bool prepare_op(struct plan *plan, struct op *op, struct err *err)
{
    const struct kernel *kernel = &plan->backend->kernels[op->type];

    drop_masked_y(plan->graph, op);
    before_prepare(plan->graph, op);
    if (!kernel->run)
        return err_set(err, ERR_BUG, "backend %s has no %s", plan->backend->name, op_info(op->type)->name);
    if (kernel->prepare && !kernel->prepare(plan->stream, plan->graph, op, err))
        return err_prefix(err, "%s", op_info(op->type)->name);
    after_prepare(plan->graph, op);
    return true;
}

/* Appends a REORDER of t to plain and returns its output. */
static tensor_id reorder_to_plain(struct plan *plan, tensor_id t, struct err *err)
{
    struct graph *graph = plan->graph;
    tensor_id y = graph_like(graph, graph->tensors[t].role, t);
    struct op *op;

    graph->tensors[y].bytes = tensor_plain_bytes(&graph->tensors[y]);
    op = graph_op(graph, OP_REORDER, NULL, 1, &t, 1, &y);
    return op && prepare_op(plan, op, err) ? y : NO_TENSOR;
}

/* Moves one op to the end of the new list and prepares it there, REORDERs first where its kernel wants plain inputs. */
static bool append_prepared(struct plan *plan, const struct op *source, struct err *err)
{
    struct graph *graph = plan->graph;
    struct op *op;

    for (int i = 0; plan->backend->kernels[source->type].plain && i < source->input_count; i++) {
        const struct tensor *tensor = op_input(graph, source, i);

        if (!tensor || !tensor->layout || (tensor->role != TENSOR_ACTIVATION && tensor->role != TENSOR_GRADIENT))
            continue;
        source->inputs[i] = reorder_to_plain(plan, source->inputs[i], err);
        if (source->inputs[i] == NO_TENSOR)
            return false;
    }
    op = graph_op(graph, source->type, &source->attrs, source->input_count, source->inputs, source->output_count,
                  source->outputs);
    return op && prepare_op(plan, op, err);
}

/* Prepares all ops, the prologue last (so that layouts of DERIVED tensors are their readers' choice), then puts the
 * prologue back in front. */
static bool prepare_all(struct plan *plan, struct err *err)
{
    struct graph *graph = plan->graph;
    struct op *source = graph->ops, *rotated;
    int count = graph->op_count, prologue = graph->prologue_count, main_count;
    bool ok = true;

    graph->ops = NULL;
    graph->op_count = graph->op_capacity = 0;
    for (int i = prologue; i < count && ok; i++)
        ok = append_prepared(plan, &source[i], err);
    main_count = graph->op_count;
    for (int i = 0; i < prologue && ok; i++)
        ok = append_prepared(plan, &source[i], err);
    free(source);
    if (graph->failed)
        return err_set(err, graph->err.kind, "%s", graph->err.message);
    if (!ok || !prologue)
        return ok;
    rotated = graph_alloc(graph, (size_t)graph->op_count * sizeof *rotated);
    if (!rotated)
        return err_set(err, ERR_MEMORY, "no memory for a plan");
    graph->prologue_count = graph->op_count - main_count;
    memcpy(rotated, graph->ops + main_count, (size_t)graph->prologue_count * sizeof *rotated);
    memcpy(rotated + graph->prologue_count, graph->ops, (size_t)main_count * sizeof *rotated);
    memcpy(graph->ops, rotated, (size_t)graph->op_count * sizeof *rotated);
    return true;
}

bool plan_new(struct graph *graph, const struct backend *backend, struct stream *stream, struct params *params,
              struct plan **ret, struct err *err)
{
    struct plan *plan = calloc(1, sizeof *plan);

    if (!plan) {
        graph_free(graph);
        return err_set(err, ERR_MEMORY, "no memory for a plan");
    }
    *plan = (struct plan){.graph = graph, .backend = backend, .stream = stream, .params = params};
    if (graph->failed) {
        err_set(err, graph->err.kind, "%s", graph->err.message);
        goto fail;
    }
    make_plain(graph);
    params_offer(params, graph);
    if (!prepare_all(plan, err))
        goto fail;
    if (!placement_make(&plan->placement, graph, backend->kernels, err) || !params_take(params, graph, err))
        goto fail;
    *ret = plan;
    return true;
fail:
    plan_free(plan);
    return false;
}

struct plan *plan_free(struct plan *plan)
{
    if (!plan)
        return NULL;
    if (plan->recording)
        plan->backend->forget(plan->recording);
    for (int i = 0; i < plan->graph->op_count; i++) {
        const struct kernel *kernel = &plan->backend->kernels[plan->graph->ops[i].type];

        if (kernel->release && plan->graph->ops[i].state)
            kernel->release(&plan->graph->ops[i]);
    }
    placement_release(&plan->placement);
    graph_free(plan->graph);
    free(plan);
    return NULL;
}

/* Do two ops pose the same problem: equal attributes, and tensors of equal shapes and roles? */
static bool same_problem(const struct graph *graph, const struct op *a, const struct op *b)
{
    if (a->type != b->type || a->input_count != b->input_count || a->output_count != b->output_count ||
        !op_attrs_equal(&a->attrs, &b->attrs))
        return false;
    for (int i = 0; i < a->input_count + a->output_count; i++) {
        int k = i - a->input_count;
        const struct tensor *x = k < 0 ? op_input(graph, a, i) : op_output(graph, a, k);
        const struct tensor *y = k < 0 ? op_input(graph, b, i) : op_output(graph, b, k);

        if (!x != !y || (x && (x->role != y->role || !tensor_same_shape(x, y))))
            return false;
    }
    return true;
}

/* What was estimated for one op holds for another with the same problem. DERIVED tensors are their readers' choice. */
static void copy_estimate(const struct graph *graph, const struct op *from, struct op *to)
{
    to->scratch_bytes = from->scratch_bytes;
    for (int k = 0; k < to->output_count; k++)
        if (op_output(graph, to, k) && op_output(graph, to, k)->role != TENSOR_DERIVED)
            op_output(graph, to, k)->bytes = op_output(graph, from, k)->bytes;
    for (int k = 0; k < to->input_count; k++) {
        struct tensor *tensor = op_input(graph, to, k);

        /* a parameter may have a copy in another precision behind it */
        if (tensor && (tensor->role == TENSOR_DERIVED ||
                       (tensor->role == TENSOR_PARAM && tensor->bytes < op_input(graph, from, k)->bytes)))
            tensor->bytes = op_input(graph, from, k)->bytes;
    }
}

/* Asks the backend once for each different problem: deep networks repeat few. The prologue last, as in prepare. */
static bool estimate_all(struct graph *graph, const struct backend *backend)
{
    int *different = graph_alloc(graph, (size_t)graph->op_count * sizeof *different), count = 0;

    if (!different)
        return false;
    for (int i = 0; i < graph->op_count; i++) {
        struct op *op = &graph->ops[(i + graph->prologue_count) % graph->op_count];
        int k = 0;

        drop_masked_y(graph, op);
        while (k < count && !same_problem(graph, &graph->ops[different[k]], op))
            k++;
        if (k < count) {
            copy_estimate(graph, &graph->ops[different[k]], op);
        } else {
            backend->estimate(graph, op);
            different[count++] = (int)(op - graph->ops);
        }
    }
    return true;
}

bool plan_forecast(struct graph *graph, const struct backend *backend, struct plan_memory *ret, struct err *err)
{
    struct placement placement = {0};

    if (graph->failed)
        return err_set(err, graph->err.kind, "%s", graph->err.message);
    make_plain(graph);
    if (backend->estimate && !estimate_all(graph, backend))
        return err_set(err, ERR_MEMORY, "no memory for a forecast");
    if (!placement_make(&placement, graph, backend->kernels, err))
        return false;
    *ret = placement.memory;
    placement_release(&placement);
    return true;
}

const struct plan_memory *plan_memory(const struct plan *plan)
{
    return &plan->placement.memory;
}

struct graph *plan_graph(const struct plan *plan)
{
    return plan->graph;
}

void plan_bind(struct plan *plan, void *arena)
{
    if (plan->recording)
        plan->backend->forget(plan->recording); /* it holds the old addresses */
    plan->recording = NULL;
    plan->ran = false;
    placement_bind(&plan->placement, plan->graph, arena);
}

static bool run_ops(struct plan *plan, int from, int to, struct err *err)
{
    for (int i = from; i < to; i++) {
        const struct op *op = &plan->graph->ops[i];

        if (!plan->backend->kernels[op->type].run(plan->stream, plan->graph, op, err))
            return err_prefix(err, "%s", op_info(op->type)->name);
    }
    return true;
}

static double microseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec * 1e-3;
}

static bool run_op_times(struct plan *plan, int op, int times, struct err *err)
{
    for (int i = 0; i < times; i++)
        if (!run_ops(plan, op, op + 1, err))
            return false;
    return true;
}

bool plan_time_op(struct plan *plan, int op, int times, double *ret, struct err *err)
{
    const struct backend *backend = plan->backend;
    void *recording = NULL;
    double begin = 0;
    bool ok = run_op_times(plan, op, 1, err);

    if (ok && backend->record) {
        ok = backend->record(plan->stream, err) && run_op_times(plan, op, times, err);
        ok = backend->recorded(plan->stream, &recording, ok ? err : NULL) && ok;
    }
    for (int i = 0; ok && i < 2; i++) { /* the first warms up */
        begin = microseconds();
        ok = recording ? backend->replay(plan->stream, recording, err) && backend->wait(plan->stream, err)
                       : run_op_times(plan, op, times, err);
    }
    if (recording)
        backend->forget(recording);
    if (ok)
        *ret = (microseconds() - begin) / times;
    return ok;
}

/* The ops after the prologue: the first time one by one, since libraries load their code then; the second time they are
 * recorded where the device can do that; from then on replayed. */
static bool run_main(struct plan *plan, struct err *err)
{
    const struct backend *backend = plan->backend;
    bool ok;

    if (!plan->recording && plan->ran && backend->record) {
        if (!backend->record(plan->stream, err))
            return false;
        ok = run_ops(plan, plan->graph->prologue_count, plan->graph->op_count, err);
        if (!backend->recorded(plan->stream, &plan->recording, ok ? err : NULL) || !ok)
            return false;
    }
    plan->ran = true;
    if (plan->recording)
        return backend->replay(plan->stream, plan->recording, err);
    return run_ops(plan, plan->graph->prologue_count, plan->graph->op_count, err);
}

bool plan_fold(struct plan *plan, bool (*write)(void *arg, const struct tensor *tensor, struct err *err), void *arg,
               struct err *err)
{
    const struct graph *graph = plan->graph;

    for (int i = 0; i < graph->prologue_count; i++) {
        for (int k = 0; k < graph->ops[i].input_count; k++) {
            const struct tensor *tensor = op_input(graph, &graph->ops[i], k);

            if (tensor && tensor->passing && !write(arg, tensor, err))
                return false;
        }
        if (!run_ops(plan, i, i + 1, err))
            return false;
    }
    params_set_derived_valid(plan->params, true);
    return true;
}

bool plan_run(struct plan *plan, struct err *err)
{
    const struct graph *graph = plan->graph;

    if (graph->prologue_count && !params_derived_valid(plan->params)) {
        if (graph->fold_once)
            return err_set(err, ERR_BUG, "this net has no weights yet");
        if (!run_ops(plan, 0, graph->prologue_count, err))
            return false;
        params_set_derived_valid(plan->params, true);
    } else if (!graph->prologue_count) {
        params_set_derived_valid(plan->params, false); /* this run writes where they lie */
    }
    return run_main(plan, err);
}
