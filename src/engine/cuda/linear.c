/* linear.c - linear layers: over a few rows by kernels of our own (few_rows.cu), else through cuBLASLt: y^T = weight
 * x^T, dx^T = weight^T dy^T, dweight^T = x^T dy (matmul.h). In BF16 biases are read as halves, from the copies behind
 * them, so that the product adds them itself. */
#include "engine/cuda/kernels.h"
#include "engine/cuda/matmul.h"

struct linear_state {
    bool few; /* rows: then there is no product */
    struct few_rows_launch rows;
    struct matmul matmul;
    int fused;      /* what the product does itself */
    bool by_kernel; /* bias or activation by a kernel of their own */
    size_t sums;    /* offset in scratch: of the bias's gradient */
};

/* Sets *few to op->state for a few rows; NULL: they are too many, or lie too oddly. */
static bool prepare_few(struct graph *graph, struct op *op, const struct tensor *x, const struct tensor *y, int64_t in,
                        int64_t out, enum number result, struct linear_state **few, struct err *err)
{
    struct linear_state *state;

    *few = NULL;
    if (tensor_rows(x) > FEW_ROWS || in % 8)
        return true;
    state = graph_alloc(graph, sizeof *state);
    if (!state)
        return err_set(err, ERR_MEMORY, "no memory for a linear layer");
    state->few = true;
    state->rows = (struct few_rows_launch){
        .number = number_of(x),
        .result = result,
        .rows = (int)tensor_rows(y),
        .in = (int)in,
        .out = (int)out,
        .activation = op->attrs.activation,
    };
    op->state = *few = state;
    return true;
}

/* The product as op->state, its workspace booked. Without an algorithm for the epilogue: without the epilogue. */
static bool prepare_product(struct stream *stream, struct graph *graph, struct op *op, struct matmul_problem *problem,
                            struct err *err)
{
    struct linear_state *state = graph_alloc(graph, sizeof *state);

    if (!state)
        return err_set(err, ERR_MEMORY, "no memory for a matrix product");
    op->state = state;
    if (!matmul_find(stream, problem, &state->matmul, err)) {
        if (err->message[0])
            return false;
        problem->epilogue = 0;
        if (!matmul_find(stream, problem, &state->matmul, err))
            return err->message[0] ? false : err_set(err, ERR_DEVICE, "cuBLASLt has no such matrix product");
    }
    state->fused = problem->epilogue;
    op->scratch_bytes = (state->matmul.workspace + 255) / 256 * 256;
    return true;
}

void cuda_linear_release(struct op *op)
{
    struct linear_state *state = op->state;

    if (!state->few)
        matmul_release(&state->matmul);
}

bool cuda_linear_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, LINEAR_X), *y = op_output(graph, op, 0);
    struct tensor *weight = op_input(graph, op, LINEAR_WEIGHT), *bias = op_input(graph, op, LINEAR_BIAS);
    enum activation activation = op->attrs.activation;
    int64_t in = tensor_channels(x), out = tensor_channels(y), rows = tensor_rows(x);
    struct matmul_problem problem = {
        .a = {number_of(x), in, out, true},
        .b = {number_of(x), in, rows, false},
        .d = {number_of(y), out, rows, false},
        .epilogue = (bias ? MATMUL_BIAS : 0) | (activation == ACTIVATION_RELU ? MATMUL_RELU : 0),
        .add = op_input(graph, op, LINEAR_RESIDUAL),
    };
    int wanted = problem.epilogue;
    struct linear_state *state;

    layout_set_weight(weight, NULL, number_of(x) != number_of(weight));
    if (bias)
        layout_set_weight(bias, NULL, number_of(x) != number_of(bias));
    if (!problem.add && !prepare_few(graph, op, x, y, in, out, number_of(y), &state, err))
        return false;
    if (!problem.add && state)
        return true;
    if (bias && number_of(bias) != number_of(y) && !bias->extra)
        problem.epilogue = 0; /* decided by an op that had no use for a copy */
    if (!prepare_product(stream, graph, op, &problem, err))
        return false;
    state = op->state;
    state->by_kernel = problem.epilogue != wanted || activation > ACTIVATION_RELU;
    return true;
}

bool cuda_linear(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct linear_state *state = op->state;
    const struct tensor *x = op_input(graph, op, LINEAR_X), *y = op_output(graph, op, 0);
    const struct tensor *bias = op_input(graph, op, LINEAR_BIAS);
    const struct matmul_operands operands = {
        .a = layout_weight_data(op_input(graph, op, LINEAR_WEIGHT), number_of(x)),
        .b = x->data,
        .add = data_of(op_input(graph, op, LINEAR_RESIDUAL)),
        .d = y->data,
        .vector = state->fused & MATMUL_BIAS ? layout_weight_data(bias, number_of(y)) : NULL,
        .workspace = op->scratch,
    };

    if (state->few)
        return cuda_ok(few_rows_forward(stream->queue, &state->rows, x->data, operands.a, data_of(bias), y->data),
                       "a linear layer", err);
    if (!matmul_run(stream, &state->matmul, &operands, err))
        return false;
    return !state->by_kernel ||
           cuda_ok(epilogue(stream->queue, number_of(y), number_of(y), y->data, tensor_rows(y), (int)tensor_channels(y),
                            state->fused & MATMUL_BIAS ? NULL : data_of(bias), bias ? number_of(bias) : NUMBER_F32,
                            NULL, op->attrs.activation, y->data),
                   "a bias", err);
}

bool cuda_linear_backward_data_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    const struct tensor *dy = op_input(graph, op, 0), *dx = op_output(graph, op, 0);
    int64_t in = tensor_channels(dx), out = tensor_channels(dy), rows = tensor_rows(dx);
    struct matmul_problem problem = {
        .a = {number_of(dy), in, out, false},
        .b = {number_of(dy), out, rows, false},
        .d = {number_of(dx), in, rows, false},
    };

    layout_set_weight(op_input(graph, op, 1), NULL, number_of(dy) != number_of(op_input(graph, op, 1)));
    return prepare_product(stream, graph, op, &problem, err);
}

bool cuda_linear_backward_data(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct linear_state *state = op->state;
    const struct tensor *dy = op_input(graph, op, 0);
    const struct matmul_operands operands = {
        .a = layout_weight_data(op_input(graph, op, 1), number_of(dy)),
        .b = dy->data,
        .d = op_output(graph, op, 0)->data,
        .workspace = op->scratch,
    };

    return matmul_run(stream, &state->matmul, &operands, err);
}

bool cuda_linear_backward_weight_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    const struct tensor *dy = op_input(graph, op, 0), *x = op_input(graph, op, 1), *dweight = op_output(graph, op, 0);
    const struct tensor *dbias = op_output(graph, op, 1);
    int64_t in = tensor_channels(x), out = tensor_channels(dy), rows = tensor_rows(x);
    struct matmul_problem problem = {
        .a = {number_of(x), in, rows, false},
        .b = {number_of(dy), out, rows, true},
        .d = {number_of(dweight), in, out, false},
        .epilogue = dbias && number_of(dbias) == number_of(dweight) ? MATMUL_SUMS : 0,
    };
    struct linear_state *state;

    if (!prepare_few(graph, op, x, dy, in, out, number_of(dweight), &state, err))
        return false;
    if (state)
        return true;
    if (!prepare_product(stream, graph, op, &problem, err))
        return false;
    state = op->state;
    state->by_kernel = dbias && !problem.epilogue;
    state->sums = op->scratch_bytes;
    if (state->by_kernel)
        op->scratch_bytes += norm_scratch_bytes(rows, (int)out) + (size_t)out * sizeof(float);
    return true;
}

/* dbias by a kernel, through floats where it holds halves. */
static bool sum_columns(struct stream *stream, const struct op *op, const struct tensor *dy, const struct tensor *dbias,
                        struct err *err)
{
    const struct linear_state *state = op->state;
    char *scratch = (char *)op->scratch + state->sums;
    const struct norm_launch launch = {
        .number = number_of(dy),
        .rows = tensor_rows(dy),
        .channels = (int)tensor_channels(dy),
        .scratch = scratch,
    };
    float *sums = number_of(dbias) == NUMBER_F32 ? dbias->data
                                                 : (void *)(scratch + norm_scratch_bytes(launch.rows, launch.channels));

    return cuda_ok(column_sums(stream->queue, &launch, dy->data, sums), "a bias's gradient", err) &&
           (sums == dbias->data ||
            cuda_ok(numbers_copy(stream->queue, NUMBER_F32, sums, NUMBER_BF16, dbias->data, tensor_elements(dbias)),
                    "a bias's gradient", err));
}

bool cuda_linear_backward_weight(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct linear_state *state = op->state;
    const struct tensor *dy = op_input(graph, op, 0), *dbias = op_output(graph, op, 1);
    const struct matmul_operands operands = {
        .a = op_input(graph, op, 1)->data,
        .b = dy->data,
        .d = op_output(graph, op, 0)->data,
        .vector = state->fused & MATMUL_SUMS ? dbias->data : NULL,
        .workspace = op->scratch,
    };

    if (state->few)
        return cuda_ok(few_rows_gradient(stream->queue, &state->rows, dy->data, operands.a, operands.d, data_of(dbias),
                                         dbias ? number_of(dbias) : NUMBER_F32),
                       "a linear layer's gradient", err);
    return matmul_run(stream, &state->matmul, &operands, err) &&
           (!state->by_kernel || sum_columns(stream, op, dy, dbias, err));
}
