/* estimate.c - see estimate.h */
#include "engine/cpu/estimate.h"

#include "engine/cpu/conv.h"
#include "engine/cpu/depthwise.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/norm.h"

/* Room for the sums of a batch norm; they are small whatever the threads. */
enum { NORM_SUMS = 1 << 14 };

/* A weight that is computed once for many runs may lie there once more, ready for Winograd (conv.c): then the
 * scratchpad of that, and the weight's bytes grow. false: not so. */
static bool ready_scratch(struct stream *stream, const struct conv_problem *problem, struct tensor *weight, size_t *ret)
{
    dnnl_primitive_desc_t desc = weight->role == TENSOR_DERIVED ? conv_choose_ready(stream, problem) : NULL;

    if (!desc)
        return false;
    weight->bytes += dnnl_memory_desc_get_size(dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0));
    *ret = primitive_scratchpad(desc);
    dnnl_primitive_desc_destroy(desc);
    return true;
}

/* The scratchpad of a convolution over preferred layouts, and the copy of the weight that the gradient of the input
 * reads in another order. */
static size_t conv_scratch(struct stream *stream, const struct conv_problem *description, struct tensor *weight)
{
    struct conv_problem problem = *description;
    dnnl_primitive_desc_t desc;
    dnnl_memory_desc_t forward;
    size_t size = 0;

    if (problem.pass == CONV_BACKWARD_WEIGHT && !problem.bias &&
        depthwise_weight_wanted(stream->simd, problem.attrs, problem.x, problem.y))
        return 0;
    activation_wanted_md(stream, problem.x, &problem.x_md);
    activation_wanted_md(stream, problem.y, &problem.y_md);
    weight_any_md(problem.weight, problem.attrs->groups, &problem.weight_md);
    if (problem.pass == CONV_FORWARD && ready_scratch(stream, &problem, weight, &size))
        return size;
    desc = conv_choose(stream, &problem, true);
    if (!desc)
        return 0;
    size = primitive_scratchpad(desc);
    forward = *dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0);
    dnnl_primitive_desc_destroy(desc);
    if (problem.pass != CONV_BACKWARD_DATA)
        return size;
    problem.pass = CONV_FORWARD;
    desc = conv_choose(stream, &problem, true);
    if (!desc)
        return size;
    if (!dnnl_memory_desc_equal(&forward, dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0)))
        size += dnnl_memory_desc_get_size(&forward);
    dnnl_primitive_desc_destroy(desc);
    return size;
}

/* The convolution's tensors by pass: positions of x, weight and y; -1 - i: output i. */
static bool conv_describe(struct graph *graph, struct op *op, struct conv_problem *ret)
{
    *ret = (struct conv_problem){.attrs = &op->attrs};
    switch (op->type) {
    case OP_CONV2D:
        ret->pass = CONV_FORWARD;
        ret->x = op_input(graph, op, CONV2D_X);
        ret->weight = op_input(graph, op, CONV2D_WEIGHT);
        ret->y = op_output(graph, op, 0);
        ret->bias = op_input(graph, op, CONV2D_BIAS);
        ret->residual = op_input(graph, op, CONV2D_RESIDUAL);
        return true;
    case OP_CONV2D_BACKWARD_DATA:
        ret->pass = CONV_BACKWARD_DATA;
        ret->y = op_input(graph, op, 0);
        ret->weight = op_input(graph, op, 1);
        ret->x = op_output(graph, op, 0);
        return true;
    case OP_CONV2D_BACKWARD_WEIGHT:
        ret->pass = CONV_BACKWARD_WEIGHT;
        ret->y = op_input(graph, op, 0);
        ret->x = op_input(graph, op, 1);
        ret->weight = op_output(graph, op, 0);
        ret->bias = op_output(graph, op, 1);
        return true;
    default:
        return false;
    }
}

/* Ops whose prepare is cheap and does what is estimated: scratch for each thread, states. */
static const struct {
    enum op_type type;
    bool (*prepare)(struct stream *stream, struct graph *graph, struct op *op, struct err *err);
} as_prepared[] = {
    {OP_LAYER_NORM_BACKWARD, cpu_layer_norm_backward_prepare},    {OP_ATTENTION, cpu_attention_prepare},
    {OP_ATTENTION_BACKWARD, cpu_attention_backward_prepare},      {OP_WINDOW_ATTENTION, cpu_window_attention_prepare},
    {OP_WINDOW_ATTENTION_BACKWARD, cpu_window_attention_prepare}, {OP_POSITION_BIAS, cpu_position_bias_prepare},
    {OP_POSITION_BIAS_BACKWARD, cpu_position_bias_prepare},
};

static void prepare_as_estimate(struct graph *graph, struct op *op)
{
    const struct stream_config config = {0};
    struct stream *stream;

    for (size_t i = 0; i < sizeof as_prepared / sizeof *as_prepared; i++)
        if (as_prepared[i].type == op->type && stream_open(&config, &stream, NULL)) {
            as_prepared[i].prepare(stream, graph, op, NULL);
            stream_close(stream);
        }
}

void cpu_estimate(struct graph *graph, struct op *op)
{
    const struct stream_config config = {0};
    const struct simd *simd = stream_simd();
    struct tensor *state;
    struct conv_problem problem;
    struct stream *stream;

    prepare_as_estimate(graph, op);
    if (op->type == OP_LINEAR && tensor_rows(op_input(graph, op, LINEAR_X)) >= LINEAR_ENOUGH_ROWS)
        op->scratch_bytes = tensor_plain_bytes(op_input(graph, op, LINEAR_WEIGHT));
    for (int k = 0; k < op->output_count; k++) {
        struct tensor *y = op_output(graph, op, k);

        if (y && (y->role == TENSOR_ACTIVATION || y->role == TENSOR_GRADIENT))
            y->bytes = activation_wanted_bytes(simd, y);
    }
    if (conv_describe(graph, op, &problem)) {
        if (stream_open(&config, &stream, NULL)) {
            op->scratch_bytes = conv_scratch(stream, &problem, op_input(graph, op, CONV2D_WEIGHT));
            stream_close(stream);
        }
    } else if (op->type == OP_BATCH_NORM || op->type == OP_BATCH_NORM_BACKWARD) {
        op->scratch_bytes = NORM_SUMS;
    }
    state = op->type == OP_BATCH_NORM ? op_output(graph, op, BN_MASK) : NULL;
    if (state && op->attrs.activation == ACTIVATION_RELU && activation_planes(simd, op_input(graph, op, BN_X)))
        state->bytes = norm_mask_bytes(simd, op_input(graph, op, BN_X));
    state = op->type == OP_MAX_POOL ? op_output(graph, op, 1) : NULL;
    if (state)
        state->bytes = (size_t)tensor_elements(op_output(graph, op, 0)); /* a byte for each */
}
