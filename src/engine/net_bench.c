/* net_bench.c - what only benchmarks ask of a net. See net.h */
#include <stdio.h>

#include "engine/net_internal.h"

enum { TIMES = 20 };

bool net_repeat(struct net *net, int n, bool training, int times, struct err *err)
{
    struct plan *plan;

    if (!net->config.keep_inputs)
        return err_set(err, ERR_BUG, "this net was opened without keep_inputs");
    if (!net_plan_for(net, n, training, &plan, err))
        return false;
    for (int i = 0; i < times; i++)
        if (!plan_run(plan, err))
            return false;
    return !net->backend->wait || net->backend->wait(net->stream, err);
}

static void shape_text(const struct tensor *tensor, char *text, size_t size)
{
    size_t length = 0;

    text[0] = '\0';
    for (int i = 0; tensor && i < tensor->rank && length < size; i++)
        length += (size_t)snprintf(text + length, size - length, "%s%lld", i ? "x" : "", (long long)tensor->shape[i]);
}

bool net_time_ops(struct net *net, int n, bool training, void (*fn)(void *arg, const struct net_op_time *time),
                  void *arg, struct err *err)
{
    const struct graph *graph;
    struct plan *plan;

    if (!net_plan_for(net, n, training, &plan, err))
        return false;
    graph = plan_graph(plan);
    for (int i = graph->prologue_count; i < graph->op_count; i++) {
        struct net_op_time time = {.op = op_info(graph->ops[i].type)->name};

        shape_text(op_output(graph, &graph->ops[i], 0), time.output, sizeof time.output);
        if (!plan_time_op(plan, i, TIMES, &time.us, err))
            return false;
        fn(arg, &time);
    }
    if (!graph->fold_once)
        params_set_derived_valid(net->params, false);
    return true;
}

bool net_device_memory(struct net *net, uint64_t *used, uint64_t *total)
{
    return net->backend->memory && net->backend->memory(net->stream, used, total, NULL);
}
