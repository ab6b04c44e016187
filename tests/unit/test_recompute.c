/* test_recompute.c - the pass that makes activations again: every network's ops stay in an order in which they can run,
 * what is made again is what was kept, and memory shrinks. (Values: the op cases with CASE_RECOMPUTE.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/net_internal.h"

static struct graph *make_graph(const char *name, int batch, size_t recompute_bytes)
{
    const struct model *model = model_find(name);
    struct backend backend = *backend_find("cuda");
    const struct net_config config = {.model = name,
                                      .num_classes = 5,
                                      .image_size = 224,
                                      .batch_size = batch,
                                      .mode = NET_TRAIN,
                                      .precision = DTYPE_F32,
                                      .learning_rate = 1e-4};
    struct graph *graph;

    backend.recompute_bytes = recompute_bytes;
    graph = net_graph(model, &config, &backend, batch, true);
    assert_non_null(graph);
    if (graph->failed)
        fail_msg("%s: %s", name, graph->err.message);
    return graph;
}

static int count_ops(const struct graph *graph, enum op_type type)
{
    int count = 0;

    for (int i = 0; i < graph->op_count; i++)
        count += graph->ops[i].type == type;
    return count;
}

/* Whatever lives in a run is written once, before it is read. */
static void check_order(const char *name, const struct graph *graph)
{
    bool *made = calloc((size_t)graph->tensor_count, sizeof *made);

    for (int t = 0; t < graph->tensor_count; t++)
        made[t] = tensor_is_persistent(graph->tensors[t].role) || graph->tensors[t].role == TENSOR_INPUT;
    for (int i = 0; i < graph->op_count; i++) {
        const struct op *op = &graph->ops[i];

        for (int k = 0; k < op->input_count; k++)
            if (op->inputs[k] != NO_TENSOR && !made[op->inputs[k]])
                fail_msg("%s: op %d (%s) reads tensor %d before it is there", name, i, op_info(op->type)->name,
                         op->inputs[k]);
        for (int k = 0; k < op->output_count; k++) {
            if (op->outputs[k] == NO_TENSOR)
                continue;
            if (made[op->outputs[k]])
                fail_msg("%s: op %d (%s) writes tensor %d a second time", name, i, op_info(op->type)->name,
                         op->outputs[k]);
            made[op->outputs[k]] = true;
        }
    }
    free(made);
}

static void test_order(void **state)
{
    (void)state;
    for (const char *const *name = net_models(); *name; name++) {
        struct graph *kept = make_graph(*name, 2, 0), *graph = make_graph(*name, 2, 1);

        check_order(*name, kept);
        check_order(*name, graph);
        assert_int_equal(count_ops(kept, OP_BATCH_NORM_APPLY), 0);
        assert_int_equal(count_ops(kept, OP_BATCH_NORM), count_ops(graph, OP_BATCH_NORM));
        assert_int_equal(count_ops(kept, OP_BATCH_NORM_BACKWARD), count_ops(graph, OP_BATCH_NORM_BACKWARD));
        graph_free(kept);
        graph_free(graph);
    }
}

/* ResNet 18: the inner batch norm of 8 blocks; and of the 7 residual sums that a gradient reads (the last one's reader,
 * a pool, does not) those whose shortcut is kept: the first in the first stage, the second in the next two. */
static void test_choice(void **state)
{
    struct graph *graph = make_graph("resnet18", 2, 1);

    (void)state;
    assert_int_equal(count_ops(graph, OP_BATCH_NORM_APPLY), 8 + 3);
    assert_int_equal(count_ops(graph, OP_IMAGE), 2);
    graph_free(graph);
}

static void test_memory(void **state)
{
    struct graph *kept = make_graph("resnet50", 64, 0), *graph = make_graph("resnet50", 64, 1);
    struct plan_memory with, without;
    struct err err;

    (void)state;
    assert_true(plan_forecast(kept, backend_find("cuda"), &without, &err));
    assert_true(plan_forecast(graph, backend_find("cuda"), &with, &err));
    assert_true((double)with.arena < 0.8 * (double)without.arena);
    graph_free(kept);
    graph_free(graph);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
