/* depthwise.c - the gradient of a depthwise convolution's weight, plane by plane, where oneDNN 2.6 has no code of its
 * own: for kernels larger than 3x3 it multiplies matrices of one row each (46 ms where this takes 1). */
#include "engine/cpu/depthwise.h"

#include <string.h>

#include "engine/cpu/parallel.h"

enum { ONEDNN_AREA = 9, MOST_AREA = 49 };

bool depthwise_weight_wanted(const struct simd *simd, const struct op_attrs *a, const struct tensor *x,
                             const struct tensor *dy)
{
    int area = a->kernel[0] * a->kernel[1];

    return a->groups == x->shape[3] && a->groups == dy->shape[3] && area > ONEDNN_AREA && area <= MOST_AREA &&
           activation_planes(simd, x);
}

bool depthwise_weight_fits(const struct stream *stream, const struct op_attrs *a, const struct tensor *x,
                           const struct tensor *dy, const struct tensor *dweight)
{
    const dnnl_dims_t dims = {dweight->shape[0], 1, 1, dweight->shape[2], dweight->shape[3]};
    dnnl_memory_desc_t lies, planes;

    if (!depthwise_weight_wanted(stream->simd, a, x, dy) || !activation_is_blocked(stream, x) ||
        !activation_is_blocked(stream, dy))
        return false;
    weight_md(dweight, a->groups, &lies);
    return dnnl_memory_desc_init_by_tag(&planes, 5, dims, dnnl_f32,
                                        stream->simd->block == 16 ? dnnl_Goihw16g : dnnl_Goihw8g) == dnnl_success &&
           dnnl_memory_desc_equal(&lies, &planes);
}

void depthwise_weight_run(const struct stream *stream, const struct op_attrs *a, const struct tensor *x,
                          const struct tensor *dy, float *dweight)
{
    const struct simd *simd = stream->simd;
    int64_t planes = activation_planes(simd, x), area = a->kernel[0] * a->kernel[1];
    const struct depthwise_plane shape = {
        .h = (int)x->shape[1],
        .w = (int)x->shape[2],
        .oh = (int)dy->shape[1],
        .ow = (int)dy->shape[2],
        .kernel = {a->kernel[0], a->kernel[1]},
        .stride = {a->stride[0], a->stride[1]},
        .padding = {a->padding[0], a->padding[1]},
    };
    int64_t in = (int64_t)shape.h * shape.w * simd->block, out = (int64_t)shape.oh * shape.ow * simd->block;

    PARALLEL(stream->threads)
    {
        int64_t first, last;

        parallel_share(planes, 1, &first, &last);
        for (int64_t plane = first; plane < last; plane++) {
            float *sums = dweight + plane * area * simd->block;

            memset(sums, 0, (size_t)(area * simd->block) * sizeof *sums);
            for (int64_t image = 0; image < x->shape[0]; image++)
                simd->depthwise_weight(&shape, (const float *)dy->data + (image * planes + plane) * out,
                                       (const float *)x->data + (image * planes + plane) * in, sums);
        }
    }
}
