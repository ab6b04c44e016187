/* conv.c - convolutions: depthwise ones by kernels of our own, the others by cuDNN's plan where it has one, fused with
 * what follows if it can; else the direct kernels. */
#include "engine/cuda/cudnn.h"
#include "engine/cuda/kernels.h"

struct conv_state {
    struct conv_problem problem;
    struct conv_plan plan; /* plan.plan NULL: direct */
    bool depthwise;
    bool epilogue; /* bias, residual and activation by a kernel of their own */
    size_t sums;   /* offset in scratch: of the bias's gradient */
};

static struct direct_launch shape_of(const struct op *op, const struct tensor *x, const struct tensor *y)
{
    const struct op_attrs *a = &op->attrs;
    struct direct_launch shape = {
        .number = number_of(x),
        .weight_number = number_of(x),
        .n = (int)x->shape[0],
        .h = (int)x->shape[1],
        .w = (int)x->shape[2],
        .c = layout_channels(x),
        .oh = (int)y->shape[1],
        .ow = (int)y->shape[2],
        .o = (int)y->shape[3],
        .kernel = {a->kernel[0], a->kernel[1]},
        .stride = {a->stride[0], a->stride[1]},
        .padding = {a->padding[0], a->padding[1]},
        .groups = a->groups,
    };

    if (layout_is_blocked(x)) {
        shape.h = shape.h / 2 + BLOCKED_BORDER;
        shape.w = shape.w / 2 + BLOCKED_BORDER;
        shape.kernel[0] = shape.kernel[1] = BLOCKED_KERNEL;
        shape.stride[0] = shape.stride[1] = 1;
        shape.padding[0] = shape.padding[1] = 0;
    }
    return shape;
}

/* op->state for a pass over x and y. */
static struct conv_state *new_state(struct graph *graph, struct op *op, enum conv_pass pass, const struct tensor *x,
                                    const struct tensor *y, struct err *err)
{
    struct conv_state *state = graph_alloc(graph, sizeof *state);

    if (!state) {
        err_set(err, ERR_MEMORY, "no memory for a convolution");
        return NULL;
    }
    op->state = state;
    state->problem.pass = pass;
    state->problem.shape = shape_of(op, x, y);
    state->depthwise = !x->layout && depthwise_fits(&state->problem.shape);
    return state;
}

/* Finds a plan and books its workspace; none is no failure. */
static bool find_plan(struct stream *stream, struct op *op, struct conv_state *state, struct err *err)
{
    if (state->depthwise)
        return true;
    if (!conv_plan_find(stream, &state->problem, &state->plan, err) && err->message[0])
        return false;
    op->scratch_bytes = (state->plan.workspace + 255) / 256 * 256;
    return true;
}

void cuda_conv2d_release(struct op *op)
{
    struct conv_state *state = op->state;

    conv_plan_release(&state->plan);
}

bool cuda_conv2d_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, CONV2D_X), *y = op_output(graph, op, 0);
    const struct tensor *bias = op_input(graph, op, CONV2D_BIAS);
    struct tensor *weight = op_input(graph, op, CONV2D_WEIGHT);
    struct conv_state *state = new_state(graph, op, CONV_FORWARD, x, y, err);
    struct conv_problem *problem;
    bool general;

    if (!state)
        return false;
    problem = &state->problem;
    layout_set_weight(weight, layout_of_weight(x), number_of(x) != number_of(weight));
    problem->bias = bias;
    problem->bias_number = bias ? number_of(bias) : NUMBER_F32;
    problem->residual = op_input(graph, op, CONV2D_RESIDUAL);
    problem->relu = op->attrs.activation == ACTIVATION_RELU;
    if (state->depthwise && !problem->residual)
        return true;
    state->depthwise = false;
    general = op->attrs.activation > ACTIVATION_RELU; /* cuDNN's fused engines know none of them */
    if (!general && !find_plan(stream, op, state, err))
        return false;
    if (state->plan.plan || !(problem->bias || problem->residual || problem->relu || general))
        return true;
    state->epilogue = true;
    problem->bias = problem->residual = problem->relu = false;
    return find_plan(stream, op, state, err);
}

bool cuda_conv2d(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct conv_state *state = op->state;
    const struct tensor *y = op_output(graph, op, 0), *residual = op_input(graph, op, CONV2D_RESIDUAL);
    const struct tensor *bias = op_input(graph, op, CONV2D_BIAS);
    struct conv_operands operands = {
        .x = op_input(graph, op, CONV2D_X)->data,
        .w = layout_weight_data(op_input(graph, op, CONV2D_WEIGHT), state->problem.shape.number),
        .y = y->data,
    };
    const struct depthwise_epilogue end = {
        .bias = data_of(bias),
        .bias_number = bias ? number_of(bias) : NUMBER_F32,
        .activation = op->attrs.activation,
    };
    bool direct = !state->plan.plan;

    if (state->depthwise)
        return cuda_ok(depthwise_forward(stream->queue, &state->problem.shape, &end, operands.x, operands.w, y->data),
                       "convolution", err);
    if (!direct && !state->epilogue) {
        operands.bias = data_of(bias);
        operands.residual = data_of(residual);
    }
    if (direct ? !cuda_ok(direct_forward(stream->queue, &state->problem.shape, operands.x, operands.w, y->data),
                          "convolution", err)
               : !conv_plan_run(stream, &state->plan, &operands, op->scratch, err))
        return false;
    return !state->epilogue ||
           cuda_ok(epilogue(stream->queue, number_of(y), number_of(y), y->data, tensor_rows(y), (int)tensor_channels(y),
                            data_of(bias), bias ? number_of(bias) : NUMBER_F32, data_of(residual), op->attrs.activation,
                            y->data),
                   "convolution", err);
}

bool cuda_conv2d_backward_data_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    struct tensor *weight = op_input(graph, op, 1);
    struct conv_state *state =
        new_state(graph, op, CONV_BACKWARD_DATA, op_output(graph, op, 0), op_input(graph, op, 0), err);

    if (!state)
        return false;
    layout_set_weight(weight, layout_of_weight(op_output(graph, op, 0)),
                      state->problem.shape.number != number_of(weight));
    return find_plan(stream, op, state, err);
}

bool cuda_conv2d_backward_data(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct conv_state *state = op->state;
    void *dx = op_output(graph, op, 0)->data;
    const struct conv_operands operands = {
        .x = dx,
        .w = layout_weight_data(op_input(graph, op, 1), state->problem.shape.number),
        .y = op_input(graph, op, 0)->data,
    };

    if (state->depthwise)
        return cuda_ok(depthwise_backward_data(stream->queue, &state->problem.shape, operands.y, operands.w, dx),
                       "convolution", err);
    if (state->plan.plan)
        return conv_plan_run(stream, &state->plan, &operands, op->scratch, err);
    return cuda_ok(direct_backward_data(stream->queue, &state->problem.shape, operands.y, operands.w, dx),
                   "convolution", err);
}

bool cuda_conv2d_backward_weight_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    const struct tensor *dy = op_input(graph, op, 0), *x = op_input(graph, op, 1), *dweight = op_output(graph, op, 0);
    struct conv_state *state = new_state(graph, op, CONV_BACKWARD_WEIGHT, x, dy, err);
    const struct direct_launch *shape;

    if (!state)
        return false;
    shape = &state->problem.shape;
    state->problem.shape.weight_number = number_of(dweight);
    if (!find_plan(stream, op, state, err))
        return false;
    if (state->depthwise)
        op->scratch_bytes =
            depthwise_scratch_bytes(shape->n, shape->oh, shape->ow, shape->c, shape->kernel[0] * shape->kernel[1]);
    state->sums = op->scratch_bytes;
    if (op_output(graph, op, 1))
        op->scratch_bytes += norm_scratch_bytes(tensor_rows(dy), (int)tensor_channels(dy));
    return true;
}

static bool weight_gradient(struct stream *stream, const struct op *op, const struct conv_operands *operands,
                            struct err *err)
{
    const struct conv_state *state = op->state;
    const struct direct_launch *shape = &state->problem.shape;
    void *dweight = (void *)(uintptr_t)operands->w;

    if (state->depthwise)
        return cuda_ok(depthwise_backward_weight(stream->queue, shape, operands->y, operands->x, op->scratch, dweight),
                       "convolution", err);
    if (state->plan.plan)
        return conv_plan_run(stream, &state->plan, operands, op->scratch, err);
    return cuda_ok(direct_backward_weight(stream->queue, shape, operands->y, operands->x, dweight), "convolution", err);
}

bool cuda_conv2d_backward_weight(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct conv_state *state = op->state;
    const struct tensor *dy = op_input(graph, op, 0), *dbias = op_output(graph, op, 1);
    void *dweight = op_output(graph, op, 0)->data;
    const struct conv_operands operands = {.x = op_input(graph, op, 1)->data, .w = dweight, .y = dy->data};
    const struct norm_launch launch = {
        .number = number_of(dy),
        .rows = tensor_rows(dy),
        .channels = (int)tensor_channels(dy),
        .scratch = op->scratch ? (char *)op->scratch + state->sums : NULL,
    };

    if (!weight_gradient(stream, op, &operands, err))
        return false;
    if (layout_is_blocked(op_input(graph, op, 1)) &&
        !cuda_ok(
            blocked_weight_mask(stream->queue, state->problem.shape.weight_number, state->problem.shape.o, dweight),
            "convolution", err))
        return false;
    return !dbias || cuda_ok(column_sums(stream->queue, &launch, dy->data, dbias->data), "a bias's gradient", err);
}
