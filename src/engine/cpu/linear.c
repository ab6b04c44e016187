/* linear.c - the three passes of a linear layer as oneDNN inner products over plain matrices.
 *
 * The forward is up to twice as fast over a weight in blocks. In inference a weight lies so for good; in training,
 * where the gradients are as fast over a plain one, it is brought into blocks each time, if there are rows enough. */
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
    struct operand weight; /* of the forward */
    size_t scratchpad;     /* offset in scratch */
};

void cpu_linear_release(struct op *op)
{
    struct linear_state *state = op->state;

    if (!state)
        return;
    primitive_release(&state->product);
    operand_release(&state->weight);
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

/* The forward's primitive over the weight as it lies, or over the blocks that oneDNN asks for, which come back in
 * p->weight. NULL: none that is fast; with `any`, none at all. */
static dnnl_primitive_desc_t choose_forward(struct stream *stream, struct linear_problem *p, bool bias, bool any,
                                            const_dnnl_primitive_attr_t attr)
{
    const dnnl_dims_t dims = {p->weight.dims[0], p->weight.dims[1]};
    dnnl_primitive_desc_t chosen = NULL;
    dnnl_inner_product_desc_t desc;
    bool is_reference = false;

    if (any)
        dnnl_memory_desc_init_by_tag(&p->weight, 2, dims, dnnl_f32, dnnl_format_tag_any);
    if (dnnl_inner_product_forward_desc_init(&desc, dnnl_forward_training, &p->x, &p->weight, bias ? &p->bias : NULL,
                                             &p->y) == dnnl_success)
        chosen = primitive_choose(stream, &desc, attr, NULL, &is_reference);
    if (chosen && is_reference && !any) {
        dnnl_primitive_desc_destroy(chosen);
        chosen = NULL;
    }
    if (chosen)
        p->weight = *dnnl_primitive_desc_query_md(chosen, dnnl_query_weights_md, 0);
    return chosen;
}

/* op->state from the choice. The weight takes its layout where nobody has decided yet and no gradient will read it. */
static bool make_forward(struct stream *stream, struct graph *graph, struct op *op, dnnl_primitive_desc_t chosen,
                         const struct linear_problem *p, const dnnl_memory_desc_t *plain, struct err *err)
{
    struct linear_state *state = op->state;
    struct tensor *weight = op_input(graph, op, LINEAR_WEIGHT);
    const struct argument args[] = {
        {DNNL_ARG_SRC, &p->x}, {DNNL_ARG_WEIGHTS, &p->weight}, {DNNL_ARG_DST, &p->y}, {DNNL_ARG_BIAS, &p->bias}};
    const struct layout *layout;

    if (!weight->fixed && !graph->training && !stream_set_layout(stream, weight, &p->weight, plain, NULL, err))
        return false;
    layout = weight->layout;
    if (!operand_make(stream, op, true, layout ? &layout->md : plain, &p->weight, &state->weight, err) ||
        !primitive_create(stream, chosen, args, op_input(graph, op, LINEAR_BIAS) ? 4 : 3, &state->product, err))
        return false;
    state->scratchpad = scratch_book(op, primitive_scratchpad(chosen));
    return true;
}

bool cpu_linear_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, LINEAR_X), *weight = op_input(graph, op, LINEAR_WEIGHT);
    const struct layout *layout = weight->layout;
    bool bias = op_input(graph, op, LINEAR_BIAS), ok = false;
    bool blocks = tensor_rows(x) >= LINEAR_ENOUGH_ROWS || (!weight->fixed && !graph->training);
    struct linear_problem p;
    dnnl_memory_desc_t plain;
    dnnl_post_ops_t post_ops = NULL;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t chosen = NULL;
    dnnl_status_t status = make_post_ops(op_input(graph, op, LINEAR_RESIDUAL), op->attrs.activation, &post_ops);

    op->state = graph_alloc(graph, sizeof(struct linear_state));
    describe(x, weight, op_output(graph, op, 0), &p);
    plain = p.weight;
    if (layout)
        p.weight = layout->md;
    if (status != dnnl_success) {
        stream_fail(status, "inner product", err);
    } else if (!op->state) {
        err_set(err, ERR_MEMORY, "no memory for a linear layer");
    } else if (attributes_create(post_ops, &attr, err)) {
        if (layout || !blocks)
            chosen = choose_forward(stream, &p, bias, false, attr);
        if (!chosen)
            chosen = choose_forward(stream, &p, bias, true, attr);
        ok = chosen ? make_forward(stream, graph, op, chosen, &p, &plain, err)
                    : err_set(err, ERR_DEVICE, "oneDNN has no inner product for this layer");
    }
    if (chosen)
        dnnl_primitive_desc_destroy(chosen);
    if (attr)
        dnnl_primitive_attr_destroy(attr);
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
    args[n++] = op_input(graph, op, LINEAR_X)->data;
    args[n++] = operand_load(stream, op, &state->weight, op_input(graph, op, LINEAR_WEIGHT)->data, err);
    args[n++] = y->data;
    if (!args[1])
        return false;
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
