/* pool.c - max pooling with oneDNN, global average pooling over planes. */
#include "engine/cpu/kernels.h"
#include "engine/cpu/parallel.h"
#include "engine/cpu/primitive.h"
#include "engine/ref/ref.h"

struct pool_state {
    struct primitive pool;
    struct operand input; /* x, or dy in the backward */
};

void cpu_pool_release(struct op *op)
{
    struct pool_state *state = op->state;

    if (!state)
        return;
    primitive_release(&state->pool);
    operand_release(&state->input);
}

static struct pool_state *new_state(struct graph *graph, struct op *op, struct err *err)
{
    op->state = graph_alloc(graph, sizeof(struct pool_state));
    if (!op->state)
        err_set(err, ERR_MEMORY, "no memory for a pooling");
    return op->state;
}

/* The forward of max pooling over preferred layouts; backward: its gradient. */
static bool max_pool_describe(struct stream *stream, const struct op *op, const dnnl_memory_desc_t *x,
                              const dnnl_memory_desc_t *y, bool training, bool backward, dnnl_primitive_desc_t *ret,
                              struct err *err)
{
    const struct op_attrs *a = &op->attrs;
    const dnnl_dims_t strides = {a->stride[0], a->stride[1]}, kernel = {a->kernel[0], a->kernel[1]};
    const dnnl_dims_t padding = {a->padding[0], a->padding[1]};
    dnnl_primitive_desc_t forward = NULL;
    dnnl_pooling_desc_t desc;
    bool is_reference;

    if (dnnl_pooling_forward_desc_init(&desc, training ? dnnl_forward_training : dnnl_forward_inference,
                                       dnnl_pooling_max, x, y, strides, kernel, padding, padding) == dnnl_success)
        forward = primitive_choose(stream, &desc, NULL, NULL, &is_reference);
    *ret = forward;
    if (forward && backward) {
        *ret = NULL;
        if (dnnl_pooling_backward_desc_init(&desc, dnnl_pooling_max, x, y, strides, kernel, padding, padding) ==
            dnnl_success)
            *ret = primitive_choose(stream, &desc, NULL, forward, &is_reference);
        dnnl_primitive_desc_destroy(forward);
    }
    return *ret || err_set(err, ERR_DEVICE, "oneDNN has no max pooling of %d x %d", a->kernel[0], a->kernel[1]);
}

bool cpu_max_pool_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    struct pool_state *state = new_state(graph, op, err);
    const struct tensor *x = op_input(graph, op, 0);
    struct tensor *where = op_output(graph, op, 1);
    dnnl_memory_desc_t found, x_md, y_md;
    dnnl_primitive_desc_t desc;
    bool ok;

    if (!state)
        return false;
    activation_md(x, &found);
    activation_wanted_md(stream, x, &x_md);
    if (!activation_output_md(stream, op_output(graph, op, 0), &y_md, err) ||
        !operand_make(stream, op, true, &found, &x_md, &state->input, err) ||
        !max_pool_describe(stream, op, &x_md, &y_md, where, false, &desc, err))
        return false;

    const dnnl_memory_desc_t *workspace = dnnl_primitive_desc_query_md(desc, dnnl_query_workspace_md, 0);
    const struct argument args[] = {{DNNL_ARG_SRC, &x_md}, {DNNL_ARG_DST, &y_md}, {DNNL_ARG_WORKSPACE, workspace}};

    if (where)
        where->bytes = dnnl_memory_desc_get_size(workspace);
    ok = primitive_create(stream, desc, args, where ? 3 : 2, &state->pool, err);
    dnnl_primitive_desc_destroy(desc);
    return ok;
}

bool cpu_max_pool(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    struct pool_state *state = op->state;
    const struct tensor *where = op_output(graph, op, 1);
    void *const args[PRIMITIVE_MAX_ARGS] = {operand_load(stream, op, &state->input, op_input(graph, op, 0)->data, err),
                                            op_output(graph, op, 0)->data, where ? where->data : NULL};

    return args[0] && primitive_run(stream, &state->pool, args, err);
}

bool cpu_max_pool_backward_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    struct pool_state *state = new_state(graph, op, err);
    const struct tensor *dy = op_input(graph, op, 0);
    dnnl_memory_desc_t found, dy_md, dx_md;
    dnnl_primitive_desc_t desc;
    bool ok;

    if (!state)
        return false;
    activation_md(dy, &found);
    activation_wanted_md(stream, dy, &dy_md);
    if (!activation_output_md(stream, op_output(graph, op, 0), &dx_md, err) ||
        !operand_make(stream, op, true, &found, &dy_md, &state->input, err) ||
        !max_pool_describe(stream, op, &dx_md, &dy_md, true, true, &desc, err))
        return false;

    const dnnl_memory_desc_t *workspace = dnnl_primitive_desc_query_md(desc, dnnl_query_workspace_md, 0);
    const struct argument args[] = {
        {DNNL_ARG_DIFF_DST, &dy_md}, {DNNL_ARG_DIFF_SRC, &dx_md}, {DNNL_ARG_WORKSPACE, workspace}};

    ok = primitive_create(stream, desc, args, 3, &state->pool, err);
    dnnl_primitive_desc_destroy(desc);
    return ok;
}

bool cpu_max_pool_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    struct pool_state *state = op->state;
    void *const args[PRIMITIVE_MAX_ARGS] = {operand_load(stream, op, &state->input, op_input(graph, op, 0)->data, err),
                                            op_output(graph, op, 0)->data, op_input(graph, op, 1)->data};

    return args[0] && primitive_run(stream, &state->pool, args, err);
}

bool cpu_global_avg_pool_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    struct pool_state *state = new_state(graph, op, err);
    const struct tensor *x = op_input(graph, op, 0);
    dnnl_memory_desc_t found, wanted;

    if (!state)
        return false;
    activation_md(x, &found);
    activation_wanted_md(stream, x, &wanted);
    return operand_make(stream, op, true, &found, &wanted, &state->input, err);
}

bool cpu_global_avg_pool(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    struct pool_state *state = op->state;
    const struct tensor *tensor = op_input(graph, op, 0);
    const struct simd *simd = stream->simd;
    const float *x = operand_load(stream, op, &state->input, tensor->data, err);
    float *y = op_output(graph, op, 0)->data;
    int64_t pixels = tensor->shape[1] * tensor->shape[2], planes = activation_planes(simd, tensor);
    int64_t channels = tensor_channels(tensor);

    if (!x)
        return false;
    if (!planes)
        return ref_kernels[op->type].run(stream, graph, op, err);
    PARALLEL(stream->threads)
    {
        int64_t first, last;

        parallel_share(tensor->shape[0] * planes, 1, &first, &last);
        for (int64_t plane = first; plane < last; plane++) {
            float *mean = y + plane / planes * channels + plane % planes * simd->block, sum[SIMD_MAX_BLOCK];
            int count = activation_plane_channels(simd, tensor, plane % planes);

            simd->plane_sum(x + plane * pixels * simd->block, pixels, sum);
            for (int c = 0; c < count; c++)
                mean[c] = sum[c] / (float)pixels;
        }
    }
    return true;
}

bool cpu_global_avg_pool_backward_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    dnnl_memory_desc_t md;

    return activation_output_md(stream, op_output(graph, op, 0), &md, err);
}

bool cpu_global_avg_pool_backward(struct stream *stream, const struct graph *graph, const struct op *op,
                                  struct err *err)
{
    const struct tensor *tensor = op_output(graph, op, 0);
    const struct simd *simd = stream->simd;
    const float *dy = op_input(graph, op, 0)->data;
    float *dx = tensor->data;
    int64_t pixels = tensor->shape[1] * tensor->shape[2], planes = activation_planes(simd, tensor);
    int64_t channels = tensor_channels(tensor);

    if (!planes)
        return ref_kernels[op->type].run(stream, graph, op, err);
    PARALLEL(stream->threads)
    {
        int64_t first, last;

        parallel_share(tensor->shape[0] * planes, 1, &first, &last);
        for (int64_t plane = first; plane < last; plane++) {
            const float *d = dy + plane / planes * channels + plane % planes * simd->block;
            float value[SIMD_MAX_BLOCK] = {0};
            int count = activation_plane_channels(simd, tensor, plane % planes);

            for (int c = 0; c < count; c++)
                value[c] = d[c] / (float)pixels;
            simd->plane_fill(dx + plane * pixels * simd->block, pixels, value);
        }
    }
    return true;
}
