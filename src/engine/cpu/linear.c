/* linear.c - the three passes of a linear layer as oneDNN inner products over plain matrices. */
#include <string.h>

#include "engine/cpu/kernels.h"
#include "engine/cpu/parallel.h"
#include "engine/cpu/primitive.h"

/* The matrices x (rows, in), weight (out, in), y (rows, out) and the vector bias (out). */
struct linear_problem {
    dnnl_memory_desc_t x, weight, y, bias;
};

static void describe(const struct tensor *x, const struct tensor *weight, const struct tensor *y,
                     struct linear_problem *ret)
{
    matrix_md(tensor_rows(x), tensor_channels(x), &ret->x);
    matrix_md(weight->shape[0], tensor_channels(x), &ret->weight);
    matrix_md(tensor_rows(y), tensor_channels(y), &ret->y);
    vector_md(weight->shape[0], &ret->bias);
}

struct linear_state {
    struct primitive product;
    size_t scratchpad; /* offset in scratch */
};

void cpu_linear_release(struct op *op)
{
    struct linear_state *state = op->state;

    if (state)
        primitive_release(&state->product);
}

/* The primitive of a description, its arguments in the order in which run gives them. */
static bool make(struct stream *stream, struct graph *graph, struct op *op, const dnnl_inner_product_desc_t *desc,
                 const dnnl_inner_product_desc_t *forward, const_dnnl_post_ops_t post_ops, const struct argument *args,
                 int arg_count, struct err *err)
{
    struct linear_state *state = graph_alloc(graph, sizeof *state);
    dnnl_primitive_desc_t hint = NULL, chosen = NULL;
    dnnl_primitive_attr_t attr = NULL;
    bool is_reference, ok;

    if (!state)
        return err_set(err, ERR_MEMORY, "no memory for a linear layer");
    op->state = state;
    if (!attributes_create(post_ops, &attr, err))
        return false;
    if (forward)
        hint = primitive_choose(stream, forward, attr, NULL, &is_reference);
    if (!forward || hint)
        chosen = primitive_choose(stream, desc, attr, hint, &is_reference);
    ok = chosen ? primitive_create(stream, chosen, args, arg_count, &state->product, err)
                : err_set(err, ERR_DEVICE, "oneDNN has no inner product for this layer");
    if (ok)
        state->scratchpad = scratch_book(op, primitive_scratchpad(chosen));
    if (chosen)
        dnnl_primitive_desc_destroy(chosen);
    if (hint)
        dnnl_primitive_desc_destroy(hint);
    dnnl_primitive_attr_destroy(attr);
    return ok;
}

static void parallel_copy(int threads, const float *from, float *to, int64_t count)
{
    PARALLEL(threads)
    {
        int64_t first, last;

        parallel_share(count, 1024, &first, &last);
        if (last > first)
            memcpy(to + first, from + first, (size_t)(last - first) * sizeof *to);
    }
}

/* What is added to the product in y (the residual, brought there by run), and the activation. *ret: NULL for nothing.
 */
static dnnl_status_t make_post_ops(bool residual, enum activation activation, dnnl_post_ops_t *ret)
{
    dnnl_status_t status = dnnl_success;

    *ret = NULL;
    if (residual || activation != ACTIVATION_NONE)
        status = dnnl_post_ops_create(ret);
    if (status == dnnl_success && residual)
        status = dnnl_post_ops_append_sum(*ret, 1);
    if (status == dnnl_success)
        status = append_activation(*ret, activation);
    return status;
}

bool cpu_linear_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    struct linear_problem p;
    dnnl_inner_product_desc_t desc;
    dnnl_post_ops_t post_ops = NULL;
    bool bias = op_input(graph, op, 2), ok = true;
    dnnl_status_t status;

    describe(op_input(graph, op, 0), op_input(graph, op, 1), op_output(graph, op, 0), &p);
    status = dnnl_inner_product_forward_desc_init(&desc, dnnl_forward_training, &p.x, &p.weight, bias ? &p.bias : NULL,
                                                  &p.y);
    if (status == dnnl_success)
        status = make_post_ops(op_input(graph, op, LINEAR_RESIDUAL), op->attrs.activation, &post_ops);
    if (status != dnnl_success) {
        ok = stream_fail(status, "inner product", err);
    } else {
        const struct argument args[] = {
            {DNNL_ARG_SRC, &p.x}, {DNNL_ARG_WEIGHTS, &p.weight}, {DNNL_ARG_DST, &p.y}, {DNNL_ARG_BIAS, &p.bias}};

        ok = make(stream, graph, op, &desc, NULL, post_ops, args, bias ? 4 : 3, err);
    }
    if (post_ops)
        dnnl_post_ops_destroy(post_ops);
    return ok;
}

bool cpu_linear(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    struct linear_state *state = op->state;
    const struct tensor *bias = op_input(graph, op, LINEAR_BIAS);
    const struct tensor *residual = op_input(graph, op, LINEAR_RESIDUAL), *y = op_output(graph, op, 0);
    void *args[PRIMITIVE_MAX_ARGS] = {0};
    int n = 0;

    if (residual && residual->data != y->data)
        parallel_copy(stream->threads, residual->data, y->data, tensor_elements(y));
    args[n++] = op_input(graph, op, 0)->data;
    args[n++] = op_input(graph, op, 1)->data;
    args[n++] = y->data;
    if (bias)
        args[n++] = bias->data;
    args[n] = scratch_at(op, state->scratchpad);
    return primitive_run(stream, &state->product, args, err);
}

bool cpu_linear_backward_data_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    struct linear_problem p;
    dnnl_inner_product_desc_t forward, desc;
    dnnl_status_t status;

    describe(op_output(graph, op, 0), op_input(graph, op, 1), op_input(graph, op, 0), &p);
    status = dnnl_inner_product_forward_desc_init(&forward, dnnl_forward_training, &p.x, &p.weight, NULL, &p.y);
    if (status == dnnl_success)
        status = dnnl_inner_product_backward_data_desc_init(&desc, &p.x, &p.weight, &p.y);
    if (status != dnnl_success)
        return stream_fail(status, "inner product", err);

    const struct argument args[] = {
        {DNNL_ARG_DIFF_DST, &p.y}, {DNNL_ARG_WEIGHTS, &p.weight}, {DNNL_ARG_DIFF_SRC, &p.x}};

    return make(stream, graph, op, &desc, &forward, NULL, args, 3, err);
}

bool cpu_linear_backward_data(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    struct linear_state *state = op->state;
    void *const args[PRIMITIVE_MAX_ARGS] = {op_input(graph, op, 0)->data, op_input(graph, op, 1)->data,
                                            op_output(graph, op, 0)->data, scratch_at(op, state->scratchpad)};

    return primitive_run(stream, &state->product, args, err);
}

bool cpu_linear_backward_weight_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    struct linear_problem p;
    dnnl_inner_product_desc_t forward, desc;
    bool bias = op_output(graph, op, 1);
    dnnl_status_t status;

    describe(op_input(graph, op, 1), op_output(graph, op, 0), op_input(graph, op, 0), &p);
    status = dnnl_inner_product_forward_desc_init(&forward, dnnl_forward_training, &p.x, &p.weight, NULL, &p.y);
    if (status == dnnl_success)
        status = dnnl_inner_product_backward_weights_desc_init(&desc, &p.x, &p.weight, bias ? &p.bias : NULL, &p.y);
    if (status != dnnl_success)
        return stream_fail(status, "inner product", err);

    const struct argument args[] = {{DNNL_ARG_DIFF_DST, &p.y},
                                    {DNNL_ARG_SRC, &p.x},
                                    {DNNL_ARG_DIFF_WEIGHTS, &p.weight},
                                    {DNNL_ARG_DIFF_BIAS, &p.bias}};

    return make(stream, graph, op, &desc, &forward, NULL, args, bias ? 4 : 3, err);
}

bool cpu_linear_backward_weight(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    struct linear_state *state = op->state;
    const struct tensor *dbias = op_output(graph, op, 1);
    void *args[PRIMITIVE_MAX_ARGS] = {0};
    int n = 0;

    args[n++] = op_input(graph, op, 0)->data;
    args[n++] = op_input(graph, op, 1)->data;
    args[n++] = op_output(graph, op, 0)->data;
    if (dbias)
        args[n++] = dbias->data;
    args[n] = scratch_at(op, state->scratchpad);
    return primitive_run(stream, &state->product, args, err);
}
