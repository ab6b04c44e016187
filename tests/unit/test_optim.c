/* test_optim.c - the pass that updates parameters within the backward: in every network each parameter is updated once,
 * after all that reads it or makes its gradient, and few gradients are there at a time. (Values: the op cases with
 * CASE_ADAM, the golden losses.) */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/autograd.h"
#include "engine/net_internal.h"
#include "engine/nn.h"
#include "engine/optim.h"
#include "engine/plan.h"

static struct graph *make_graph(const char *name, size_t least_bytes, int parts)
{
    const struct model *model = model_find(name);
    struct graph *graph = graph_new(true);
    tensor_id logits;

    assert_non_null(graph);
    graph->input = graph_tensor(graph, TENSOR_INPUT, DTYPE_U8, 4, (int64_t[]){1, 64, 64, 3}, "images");
    logits = model->build(graph, model->size, nn_image(graph, graph->input), 5);
    graph->logits = logits;
    nn_cross_entropy(graph, logits);
    graph_backward(graph, graph->loss, NO_TENSOR);
    graph_adam(graph, 1e-3, least_bytes, parts);
    if (graph->failed)
        fail_msg("%s: %s", name, graph->err.message);
    return graph;
}

static void touch(const struct graph *graph, const bool *updated, tensor_id t, const char *name)
{
    if (t != NO_TENSOR && updated[t])
        fail_msg("%s: tensor %d (%s) is used after its update", name, t, graph->tensors[t].name);
}

/* Marks what an ADAM updates; returns its parameters' bytes. */
static size_t update(const struct graph *graph, const struct op *op, bool *updated, const char *name)
{
    size_t bytes = 0;

    for (int k = ADAM_FIRST; k < op->input_count; k += ADAM_GROUP) {
        tensor_id param = op->inputs[k + ADAM_PARAM], gradient = op->inputs[k + ADAM_GRAD];

        touch(graph, updated, param, name);
        assert_int_equal(gradient, graph->gradients[param]);
        assert_int_equal(graph->tensors[op->inputs[k + ADAM_EXP_AVG]].of, param);
        assert_int_equal(graph->tensors[op->inputs[k + ADAM_EXP_AVG_SQ]].of, param);
        updated[param] = updated[gradient] = true;
        bytes += tensor_plain_bytes(&graph->tensors[param]);
    }
    return bytes;
}

/* Returns the number of ADAMs. */
static int check(const char *name, const struct graph *graph, size_t least_bytes)
{
    bool *updated = calloc((size_t)graph->tensor_count, sizeof *updated);
    int updates = 0, counted = 0;

    for (int i = 0; i < graph->op_count; i++) {
        const struct op *op = &graph->ops[i];

        assert_int_equal(counted, 0); /* it is the last op of all */
        if (op->type == OP_ADAM) {
            size_t bytes = update(graph, op, updated, name);

            updates++;
            counted += op->attrs.counts_step;
            assert_true(bytes >= least_bytes || op->attrs.counts_step);
            continue;
        }
        for (int k = 0; k < op->input_count; k++)
            touch(graph, updated, op->inputs[k], name);
        for (int k = 0; k < op->output_count; k++)
            touch(graph, updated, op->outputs[k], name);
    }
    assert_int_equal(counted, 1);
    for (tensor_id t = 0; t < graph->gradient_count; t++)
        if (graph->tensors[t].role == TENSOR_PARAM && graph->gradients[t] != NO_TENSOR && !updated[t])
            fail_msg("%s: %s is never updated", name, graph->tensors[t].name);
    free(updated);
    return updates;
}

static void test_order(void **state)
{
    const size_t bytes[] = {1, 1 << 20, SIZE_MAX};

    (void)state;
    for (const char *const *name = net_models(); *name; name++) {
        int before = 0;

        for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++) {
            struct graph *graph = make_graph(*name, bytes[i], INT_MAX);
            int updates = check(*name, graph, bytes[i]);

            assert_true(i == 0 || updates < before);
            before = updates;
            graph_free(graph);
        }
        assert_int_equal(before, 1);
    }
}

/* Of moments, slot by slot, the parameters they are of: a net's plans of other batch sizes share them. */
static void test_moments(void **state)
{
    struct graph *one = make_graph("resnet18", 1, 1), *many = make_graph("resnet18", 1, INT_MAX);

    (void)state;
    assert_int_equal(one->tensor_count, many->tensor_count);
    for (int t = 0; t < one->tensor_count; t++) {
        assert_int_equal(one->tensors[t].of, many->tensors[t].of);
        assert_int_equal(one->tensors[t].slot, many->tensors[t].slot);
    }
    graph_free(one);
    graph_free(many);
}

/* In one image's training the gradients of a ViT are more than its activations. */
static void test_memory(void **state)
{
    struct plan_memory late, early;
    struct err err;
    struct graph *graph = make_graph("vit_b_32", 1, 1);
    size_t weights = 4ul * 87000000;

    (void)state;
    assert_true(plan_forecast(graph, backend_find("ref"), &late, &err));
    graph_free(graph);
    graph = make_graph("vit_b_32", ADAM_BYTES, ADAM_PARTS);
    assert_true(plan_forecast(graph, backend_find("ref"), &early, &err));
    assert_int_equal(check("vit_b_32", graph, ADAM_BYTES), ADAM_PARTS);
    graph_free(graph);
    assert_true(late.live[TENSOR_GRADIENT] > weights);
    assert_true(early.arena < late.arena - weights / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_moments),
        cmocka_unit_test(test_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
