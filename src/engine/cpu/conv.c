/* conv.c - the three passes of a convolution with oneDNN.
 *
 * Activations are taken as they lie. Where oneDNN has fast code only for another combination of layouts (a number of
 * channels that is no multiple of the block, say), plain copies are made in scratch. */
#include "engine/cpu/conv.h"
#include "engine/cpu/depthwise.h"
#include "engine/cpu/kernels.h"

struct conv_state {
    struct primitive conv;
    struct operand x, weight, y; /* inputs or outputs, by pass */
    struct primitive residual;   /* forward: brings it to where the result will be */
    size_t scratchpad;           /* offset in scratch */
    bool depthwise;              /* backward weight: by depthwise.h alone */
    size_t weight_offset;        /* of the form that is used, from the weight's beginning */
};

void cpu_conv2d_release(struct op *op)
{
    struct conv_state *state = op->state;

    if (!state)
        return;
    primitive_release(&state->conv);
    primitive_release(&state->residual);
    operand_release(&state->x);
    operand_release(&state->weight);
    operand_release(&state->y);
}

/* Tries the problem with x and y as they lie, then as convolutions like them, then plain; each with the weight as it
 * lies, then as oneDNN likes it. Fast code first, in that order; if there is none, any. Leaves the layouts of the
 * choice in *problem. */
static dnnl_primitive_desc_t choose_layouts(struct stream *stream, struct conv_problem *problem)
{
    enum { FOUND, WANTED, PLAIN, LAYOUTS };
    const struct conv_problem found = *problem;

    for (int round = 0; round < 2 * LAYOUTS * 2; round++) {
        bool reference = round >= 2 * LAYOUTS, any_weight = round & 1;
        int layouts = round / 2 % LAYOUTS;
        dnnl_primitive_desc_t desc;

        *problem = found;
        if (layouts == WANTED) {
            activation_wanted_md(stream, found.x, &problem->x_md);
            activation_wanted_md(stream, found.y, &problem->y_md);
        } else if (layouts == PLAIN) {
            activation_plain_md(found.x, &problem->x_md);
            activation_plain_md(found.y, &problem->y_md);
        }
        if (any_weight)
            weight_any_md(found.weight, found.attrs->groups, &problem->weight_md);
        desc = conv_choose(stream, problem, reference);
        if (desc)
            return desc;
    }
    return NULL;
}

static const dnnl_query_t weight_queries[] = {dnnl_query_weights_md, dnnl_query_weights_md, dnnl_query_diff_weights_md};

/* An undecided weight takes the layout of the choice, and `ready` behind unless that is NULL. */
static bool decide_weight(struct stream *stream, const struct conv_problem *problem, dnnl_primitive_desc_t desc,
                          const dnnl_memory_desc_t *ready, struct tensor *weight, struct err *err)
{
    dnnl_memory_desc_t plain;

    if (weight->fixed)
        return true;
    weight_plain_md(weight, problem->attrs->groups, &plain);
    return stream_set_layout(stream, weight, dnnl_primitive_desc_query_md(desc, weight_queries[problem->pass], 0),
                             &plain, ready, err);
}

/* The choice, and operands for what lies otherwise than chosen. */
static bool choose_operands(struct stream *stream, struct op *op, struct conv_problem *problem, struct tensor *weight,
                            struct conv_state *state, dnnl_primitive_desc_t *ret, struct err *err)
{
    const enum conv_pass pass = problem->pass;
    const struct conv_problem found = *problem;
    dnnl_primitive_desc_t desc = choose_layouts(stream, problem);
    dnnl_memory_desc_t lies;

    if (!desc)
        return err_set(err, ERR_DEVICE, "oneDNN has no convolution for %s", weight->name ? weight->name : "a weight");
    *ret = desc;
    problem->weight_md = *dnnl_primitive_desc_query_md(desc, weight_queries[pass], 0);
    if (!decide_weight(stream, problem, desc, NULL, weight, err))
        return false;
    weight_md(weight, problem->attrs->groups, &lies);
    return operand_make(stream, op, pass != CONV_BACKWARD_DATA, &found.x_md, &problem->x_md, &state->x, err) &&
           operand_make(stream, op, pass != CONV_BACKWARD_WEIGHT, &lies, &problem->weight_md, &state->weight, err) &&
           operand_make(stream, op, pass != CONV_FORWARD, &found.y_md, &problem->y_md, &state->y, err);
}

/* The choice with ready transformed weights, for those that are computed once for many runs. *ret is NULL where that
 * is not to be had. */
static bool choose_ready(struct stream *stream, struct conv_problem *problem, struct tensor *weight,
                         struct conv_state *state, dnnl_primitive_desc_t *ret, struct err *err)
{
    const struct layout *layout = weight->layout;
    struct conv_problem ready = *problem;
    dnnl_primitive_desc_t desc, other;
    bool ok;

    *ret = NULL;
    if (weight->role != TENSOR_DERIVED || (weight->fixed && !(layout && layout->ready_offset)))
        return true;
    if (weight->fixed)
        ready.weight_md = layout->ready;
    desc = conv_choose_ready(stream, &ready);
    if (!desc)
        return true;
    ready.weight_md = *dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0);
    other = conv_choose(stream, problem, true);
    ok = other && decide_weight(stream, problem, other, &ready.weight_md, weight, err);
    if (other)
        dnnl_primitive_desc_destroy(other);
    if (!ok) {
        dnnl_primitive_desc_destroy(desc);
        return !other; /* without another there is nothing ready either */
    }
    layout = weight->layout;
    state->weight_offset = layout->ready_offset;
    problem->weight_md = ready.weight_md;
    *ret = desc;
    return true;
}

/* Always false. */
static bool drop(dnnl_primitive_desc_t desc)
{
    if (desc)
        dnnl_primitive_desc_destroy(desc);
    return false;
}

/* The primitive of the choice, which is given up; its scratchpad is the last thing in scratch. */
static bool make_primitive(struct stream *stream, struct op *op, dnnl_primitive_desc_t desc,
                           const struct argument *args, int arg_count, struct conv_state *state, struct err *err)
{
    bool ok = primitive_create(stream, desc, args, arg_count, &state->conv, err);

    state->scratchpad = scratch_book(op, primitive_scratchpad(desc));
    dnnl_primitive_desc_destroy(desc);
    return ok;
}

static struct conv_state *new_state(struct graph *graph, struct op *op, struct err *err)
{
    op->state = graph_alloc(graph, sizeof(struct conv_state));
    if (!op->state)
        err_set(err, ERR_MEMORY, "no memory for a convolution");
    return op->state;
}

bool cpu_conv2d_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    struct conv_state *state = new_state(graph, op, err);
    struct tensor *weight = op_input(graph, op, CONV2D_WEIGHT), *y = op_output(graph, op, 0);
    struct tensor *residual = op_input(graph, op, CONV2D_RESIDUAL);
    struct conv_problem problem = {
        .pass = CONV_FORWARD,
        .attrs = &op->attrs,
        .x = op_input(graph, op, CONV2D_X),
        .weight = weight,
        .y = y,
        .bias = op_input(graph, op, CONV2D_BIAS),
        .residual = residual,
    };
    dnnl_memory_desc_t bias_md, residual_md;
    dnnl_primitive_desc_t desc = NULL;

    if (!state)
        return false;
    activation_md(problem.x, &problem.x_md);
    if (!activation_output_md(stream, y, &problem.y_md, err))
        return false;
    weight_problem_md(weight, op->attrs.groups, &problem.weight_md);
    if (!choose_ready(stream, &problem, weight, state, &desc, err))
        return false;
    if (!desc && !choose_operands(stream, op, &problem, weight, state, &desc, err))
        return drop(desc);
    vector_md(y->shape[3], &bias_md);

    const struct argument args[] = {
        {DNNL_ARG_SRC, &problem.x_md},
        {DNNL_ARG_WEIGHTS, &problem.weight_md},
        {DNNL_ARG_DST, &problem.y_md},
        {DNNL_ARG_BIAS, &bias_md},
    };

    if (residual)
        activation_md(residual, &residual_md);
    return make_primitive(stream, op, desc, args, problem.bias ? 4 : 3, state, err) &&
           (!residual || reorder_create(stream, &residual_md, &problem.y_md, &state->residual, err));
}

bool cpu_conv2d(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    struct conv_state *state = op->state;
    const struct tensor *bias = op_input(graph, op, CONV2D_BIAS), *residual = op_input(graph, op, CONV2D_RESIDUAL);
    void *y = op_output(graph, op, 0)->data;
    void *args[PRIMITIVE_MAX_ARGS] = {0};
    int n = 0;

    args[n++] = operand_load(stream, op, &state->x, op_input(graph, op, CONV2D_X)->data, err);
    args[n++] = operand_load(stream, op, &state->weight,
                             (char *)op_input(graph, op, CONV2D_WEIGHT)->data + state->weight_offset, err);
    args[n++] = operand_target(op, &state->y, y);
    if (!args[0] || !args[1])
        return false;
    if (residual && residual->data != args[2]) {
        void *const copy[PRIMITIVE_MAX_ARGS] = {residual->data, args[2]};

        if (!primitive_run(stream, &state->residual, copy, err))
            return false;
    }
    if (bias)
        args[n++] = bias->data;
    args[n] = scratch_at(op, state->scratchpad);
    return primitive_run(stream, &state->conv, args, err) && operand_store(stream, op, &state->y, y, err);
}

bool cpu_conv2d_backward_data_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    struct conv_state *state = new_state(graph, op, err);
    struct tensor *weight = op_input(graph, op, 1), *dx = op_output(graph, op, 0);
    struct conv_problem problem = {
        .pass = CONV_BACKWARD_DATA,
        .attrs = &op->attrs,
        .x = dx,
        .weight = weight,
        .y = op_input(graph, op, 0),
    };
    dnnl_primitive_desc_t desc = NULL;

    if (!state)
        return false;
    activation_md(problem.y, &problem.y_md);
    if (!activation_output_md(stream, dx, &problem.x_md, err))
        return false;
    weight_problem_md(weight, op->attrs.groups, &problem.weight_md);
    if (!choose_operands(stream, op, &problem, weight, state, &desc, err))
        return drop(desc);

    const struct argument args[] = {
        {DNNL_ARG_DIFF_DST, &problem.y_md},
        {DNNL_ARG_WEIGHTS, &problem.weight_md},
        {DNNL_ARG_DIFF_SRC, &problem.x_md},
    };

    return make_primitive(stream, op, desc, args, 3, state, err);
}

bool cpu_conv2d_backward_data(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    struct conv_state *state = op->state;
    void *dx = op_output(graph, op, 0)->data;
    void *const args[PRIMITIVE_MAX_ARGS] = {
        operand_load(stream, op, &state->y, op_input(graph, op, 0)->data, err),
        operand_load(stream, op, &state->weight, op_input(graph, op, 1)->data, err),
        operand_target(op, &state->x, dx),
        scratch_at(op, state->scratchpad),
    };

    return args[0] && args[1] && primitive_run(stream, &state->conv, args, err) &&
           operand_store(stream, op, &state->x, dx, err);
}

bool cpu_conv2d_backward_weight_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    struct conv_state *state = new_state(graph, op, err);
    struct tensor *dweight = op_output(graph, op, 0);
    struct conv_problem problem = {
        .pass = CONV_BACKWARD_WEIGHT,
        .attrs = &op->attrs,
        .x = op_input(graph, op, 1),
        .weight = dweight,
        .y = op_input(graph, op, 0),
        .bias = op_output(graph, op, 1),
    };
    dnnl_primitive_desc_t desc = NULL;
    dnnl_memory_desc_t bias_md;

    if (!state)
        return false;
    state->depthwise = !problem.bias && depthwise_weight_fits(stream, &op->attrs, problem.x, problem.y, dweight);
    if (state->depthwise)
        return true;
    activation_md(problem.x, &problem.x_md);
    activation_md(problem.y, &problem.y_md);
    weight_problem_md(dweight, op->attrs.groups, &problem.weight_md);
    if (!choose_operands(stream, op, &problem, dweight, state, &desc, err))
        return drop(desc);
    vector_md(problem.y->shape[3], &bias_md);

    const struct argument args[] = {
        {DNNL_ARG_DIFF_DST, &problem.y_md},
        {DNNL_ARG_SRC, &problem.x_md},
        {DNNL_ARG_DIFF_WEIGHTS, &problem.weight_md},
        {DNNL_ARG_DIFF_BIAS, &bias_md},
    };

    return make_primitive(stream, op, desc, args, problem.bias ? 4 : 3, state, err);
}

bool cpu_conv2d_backward_weight(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    struct conv_state *state = op->state;
    const struct tensor *dbias = op_output(graph, op, 1);
    void *dweight = op_output(graph, op, 0)->data;
    void *args[PRIMITIVE_MAX_ARGS] = {0};
    int n = 0;

    if (state->depthwise) {
        depthwise_weight_run(stream, &op->attrs, op_input(graph, op, 1), op_input(graph, op, 0), dweight);
        return true;
    }
    args[n++] = operand_load(stream, op, &state->y, op_input(graph, op, 0)->data, err);
    args[n++] = operand_load(stream, op, &state->x, op_input(graph, op, 1)->data, err);
    args[n++] = operand_target(op, &state->weight, dweight);
    if (dbias)
        args[n++] = dbias->data;
    args[n] = scratch_at(op, state->scratchpad);
    return args[0] && args[1] && primitive_run(stream, &state->conv, args, err) &&
           operand_store(stream, op, &state->weight, dweight, err);
}
