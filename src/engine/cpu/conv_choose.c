/* conv_choose.c - the choice of a convolution's algorithm, by rule so that a run's bits do not depend on timings.
 *
 * Measured with oneDNN 2.6.3 on two cores with AVX-512 (fp32 peak 458 GFLOP/s): direct convolutions in blocked layouts
 * reach 340 to 425 GFLOP/s in all three passes, 1x1 ones too; Winograd does the work of 620 to 1000 GFLOP/s, F(4x4,3x3)
 * for batches and F(2x2,3x3) for one image, which oneDNN chooses itself.
 *
 * Transforming the weights in each call costs as much as Winograd saves when there are few tiles: (512,512,3,3) at 7x7
 * is slower than direct with 32 tiles (335 to 430 GFLOP/s), faster with 128 (580 to 370). Weights that are ready
 * transformed pay with fewer tiles, but take up to four times the memory; so only the smaller ones are made so. */
#include "engine/cpu/conv.h"

enum { WINOGRAD_TILE = 4, WINOGRAD_LEAST_TILES = 64, READY_LEAST_TILES = 16, READY_MOST_KERNELS = 128 * 128 };

/* Tiles of a convolution that Winograd can do; 0: it cannot. */
static int64_t winograd_tiles(const struct stream *stream, const struct conv_problem *p)
{
    const struct op_attrs *a = p->attrs;
    bool possible = stream->simd->block == 16 && a->groups == 1 && a->kernel[0] == 3 && a->kernel[1] == 3 &&
                    a->stride[0] == 1 && a->stride[1] == 1 && a->padding[0] == 1 && a->padding[1] == 1 &&
                    p->x->shape[3] % 16 == 0 && p->y->shape[3] % 16 == 0;

    return possible * p->y->shape[0] * ((p->y->shape[1] + WINOGRAD_TILE - 1) / WINOGRAD_TILE) *
           ((p->y->shape[2] + WINOGRAD_TILE - 1) / WINOGRAD_TILE);
}

static dnnl_status_t describe(const struct conv_problem *p, dnnl_alg_kind_t algorithm, enum conv_pass pass, bool ready,
                              dnnl_convolution_desc_t *ret)
{
    const dnnl_dims_t strides = {p->attrs->stride[0], p->attrs->stride[1]};
    const dnnl_dims_t padding = {p->attrs->padding[0], p->attrs->padding[1]};
    dnnl_memory_desc_t bias;

    vector_md(p->y->shape[3], &bias);
    if (pass == CONV_BACKWARD_DATA)
        return dnnl_convolution_backward_data_desc_init(ret, algorithm, &p->x_md, &p->weight_md, &p->y_md, strides,
                                                        padding, padding);
    if (pass == CONV_BACKWARD_WEIGHT)
        return dnnl_convolution_backward_weights_desc_init(ret, algorithm, &p->x_md, &p->weight_md,
                                                           p->bias ? &bias : NULL, &p->y_md, strides, padding, padding);
    /* Only "for inference" does Winograd ask for ready weights. */
    return dnnl_convolution_forward_desc_init(ret, ready ? dnnl_forward_inference : dnnl_forward_training, algorithm,
                                              &p->x_md, &p->weight_md, p->bias ? &bias : NULL, &p->y_md, strides,
                                              padding, padding);
}

/* y = act(conv + bias + what is in y already). */
static bool forward_attributes(const struct conv_problem *p, dnnl_primitive_attr_t *ret)
{
    dnnl_post_ops_t post_ops = NULL;
    bool ok = dnnl_post_ops_create(&post_ops) == dnnl_success;

    if (ok && p->residual)
        ok = dnnl_post_ops_append_sum(post_ops, 1) == dnnl_success;
    ok = ok && append_activation(post_ops, p->attrs->activation) == dnnl_success &&
         attributes_create(post_ops, ret, NULL);
    if (post_ops)
        dnnl_post_ops_destroy(post_ops);
    return ok;
}

static dnnl_primitive_desc_t choose_algorithm(struct stream *stream, const struct conv_problem *p,
                                              dnnl_alg_kind_t algorithm, bool ready, bool *is_reference)
{
    dnnl_primitive_desc_t hint = NULL, found = NULL;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_convolution_desc_t desc;
    bool hint_reference;

    if (p->pass == CONV_FORWARD ? !forward_attributes(p, &attr) : !attributes_create(NULL, &attr, NULL))
        return NULL;
    if (p->pass != CONV_FORWARD) {
        if (describe(p, dnnl_convolution_direct, CONV_FORWARD, false, &desc) == dnnl_success)
            hint = primitive_choose(stream, &desc, attr, NULL, &hint_reference);
    }
    if ((p->pass == CONV_FORWARD || hint) && describe(p, algorithm, p->pass, ready, &desc) == dnnl_success)
        found = primitive_choose(stream, &desc, attr, hint, is_reference);
    if (hint)
        dnnl_primitive_desc_destroy(hint);
    dnnl_primitive_attr_destroy(attr);
    return found;
}

dnnl_primitive_desc_t conv_choose(struct stream *stream, const struct conv_problem *problem, bool reference)
{
    dnnl_primitive_desc_t found = NULL;
    bool is_reference = false;

    if (winograd_tiles(stream, problem) >= WINOGRAD_LEAST_TILES)
        found = choose_algorithm(stream, problem, dnnl_convolution_winograd, false, &is_reference);
    if (!found)
        found = choose_algorithm(stream, problem, dnnl_convolution_direct, false, &is_reference);
    if (found && is_reference && !reference) {
        dnnl_primitive_desc_destroy(found);
        return NULL;
    }
    return found;
}

dnnl_primitive_desc_t conv_choose_ready(struct stream *stream, const struct conv_problem *problem)
{
    bool is_reference;

    if (winograd_tiles(stream, problem) < READY_LEAST_TILES ||
        problem->weight->shape[0] * problem->weight->shape[1] > READY_MOST_KERNELS)
        return NULL;
    return choose_algorithm(stream, problem, dnnl_convolution_winograd, true, &is_reference);
}
