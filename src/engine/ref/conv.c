/* conv.c - two-dimensional convolution (cross-correlation) and its gradients. See ref.h, op.h
 * Input channel c of group g meets output channels [g O/groups, (g+1) O/groups). */
#include "engine/ref/ref.h"

#include <string.h>

struct conv {
    int n, h, w, c;     /* input */
    int oh, ow, o;      /* output */
    int kh, kw;         /* kernel */
    int sh, sw, ph, pw; /* stride, padding */
    int groups, ci, co; /* groups; input and output channels of one */
};

static struct conv conv_of(const struct op *op, const struct tensor *x, const struct tensor *y)
{
    const struct op_attrs *a = &op->attrs;

    return (struct conv){
        .n = (int)x->shape[0],
        .h = (int)x->shape[1],
        .w = (int)x->shape[2],
        .c = (int)x->shape[3],
        .oh = (int)y->shape[1],
        .ow = (int)y->shape[2],
        .o = (int)y->shape[3],
        .kh = a->kernel[0],
        .kw = a->kernel[1],
        .sh = a->stride[0],
        .sw = a->stride[1],
        .ph = a->padding[0],
        .pw = a->padding[1],
        .groups = a->groups,
        .ci = (int)x->shape[3] / a->groups,
        .co = (int)y->shape[3] / a->groups,
    };
}

/* The input pixel under kernel position (kh, kw) of output pixel (oh, ow); NULL in the padding. */
static inline float *pixel(const struct conv *v, float *x, int n, int oh, int ow, int kh, int kw)
{
    int ih = oh * v->sh - v->ph + kh, iw = ow * v->sw - v->pw + kw;

    if (ih < 0 || ih >= v->h || iw < 0 || iw >= v->w)
        return NULL;
    return x + (((size_t)n * (size_t)v->h + (size_t)ih) * (size_t)v->w + (size_t)iw) * (size_t)v->c;
}

/* weight (KH, KW, I/groups, O): the row of O numbers for one kernel position and input channel of a group. */
static inline float *weight_row(const struct conv *v, float *weight, int kh, int kw, int i)
{
    return weight + ((size_t)(kh * v->kw + kw) * (size_t)v->ci + (size_t)i) * (size_t)v->o;
}

bool ref_conv2d_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    struct tensor *weight = op_input(graph, op, CONV2D_WEIGHT);

    (void)stream, (void)err;
    if (!weight->fixed)
        weight->layout = ref_layout_hwio;
    return true;
}

/* y[o] += sum over c of x[c] weight[c][o], for one pixel and kernel position. */
static inline void multiply_add(const struct conv *v, const float *x, float *weight, int kh, int kw, float *y)
{
    for (int g = 0; g < v->groups; g++)
        for (int i = 0; i < v->ci; i++) {
            const float *row = weight_row(v, weight, kh, kw, i) + g * v->co;
            float *out = y + g * v->co, value = x[g * v->ci + i];

#pragma omp simd
            for (int o = 0; o < v->co; o++)
                out[o] += value * row[o];
        }
}

bool ref_conv2d(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, CONV2D_X), *y = op_output(graph, op, 0);
    float *weight = ref_f32(op_input(graph, op, CONV2D_WEIGHT));
    const float *bias = ref_f32(op_input(graph, op, CONV2D_BIAS));
    const float *residual = ref_f32(op_input(graph, op, CONV2D_RESIDUAL));
    const struct conv v = conv_of(op, x, y);

    (void)stream, (void)err;
#pragma omp parallel for
    for (int row = 0; row < v.n * v.oh; row++) {
        int n = row / v.oh, oh = row % v.oh;

        for (int ow = 0; ow < v.ow; ow++) {
            size_t at = ((size_t)row * (size_t)v.ow + (size_t)ow) * (size_t)v.o;
            float *out = ref_f32(y) + at;

            for (int o = 0; o < v.o; o++) /* residual may be y itself */
                out[o] = (bias ? bias[o] : 0) + (residual ? residual[at + (size_t)o] : 0);
            for (int kh = 0; kh < v.kh; kh++)
                for (int kw = 0; kw < v.kw; kw++) {
                    const float *in = pixel(&v, ref_f32(x), n, oh, ow, kh, kw);

                    if (in)
                        multiply_add(&v, in, weight, kh, kw, out);
                }
            for (int o = 0; o < v.o; o++)
                out[o] = ref_activate(op->attrs.activation, out[o]);
        }
    }
    return true;
}

bool ref_conv2d_backward_data(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *dy = op_input(graph, op, 0), *dx = op_output(graph, op, 0);
    float *weight = ref_f32(op_input(graph, op, 1));
    const struct conv v = conv_of(op, dx, dy);

    (void)stream, (void)err;
    memset(dx->data, 0, dx->bytes);
#pragma omp parallel for
    for (int n = 0; n < v.n; n++)
        for (int oh = 0; oh < v.oh; oh++)
            for (int ow = 0; ow < v.ow; ow++)
                for (int k = 0; k < v.kh * v.kw; k++) {
                    const float *from =
                        ref_f32(dy) +
                        (((size_t)n * (size_t)v.oh + (size_t)oh) * (size_t)v.ow + (size_t)ow) * (size_t)v.o;
                    float *to = pixel(&v, ref_f32(dx), n, oh, ow, k / v.kw, k % v.kw);

                    for (int c = 0; to && c < v.c; c++) {
                        const float *row = weight_row(&v, weight, k / v.kw, k % v.kw, c % v.ci) + c / v.ci * v.co;
                        float sum = 0;

#pragma omp simd reduction(+ : sum)
                        for (int o = 0; o < v.co; o++)
                            sum += from[c / v.ci * v.co + o] * row[o];
                        to[c] += sum;
                    }
                }
    return true;
}

/* dweight[kh][kw][i][…] of one kernel position and input channel of each group: a sum over all output pixels. */
static void weight_gradient_row(const struct conv *v, float *x, const float *dy, float *dweight, int kh, int kw, int i)
{
    float *row = weight_row(v, dweight, kh, kw, i);

    for (int n = 0; n < v->n; n++)
        for (int oh = 0; oh < v->oh; oh++)
            for (int ow = 0; ow < v->ow; ow++) {
                const float *in = pixel(v, x, n, oh, ow, kh, kw);
                const float *d =
                    dy + (((size_t)n * (size_t)v->oh + (size_t)oh) * (size_t)v->ow + (size_t)ow) * (size_t)v->o;

                for (int g = 0; in && g < v->groups; g++) {
                    float value = in[g * v->ci + i];

#pragma omp simd
                    for (int o = g * v->co; o < (g + 1) * v->co; o++)
                        row[o] += value * d[o];
                }
            }
}

bool ref_conv2d_backward_weight(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *dy = op_input(graph, op, 0), *x = op_input(graph, op, 1);
    const struct tensor *dweight = op_output(graph, op, 0);
    const struct conv v = conv_of(op, x, dy);
    float *dbias = ref_f32(op_output(graph, op, 1));

    (void)stream, (void)err;
    memset(dweight->data, 0, dweight->bytes);
#pragma omp parallel for
    for (int row = 0; row < v.kh * v.kw * v.ci; row++)
        weight_gradient_row(&v, ref_f32(x), ref_f32(dy), ref_f32(dweight), row / v.ci / v.kw, row / v.ci % v.kw,
                            row % v.ci);
    for (int o = 0; dbias && o < v.o; o++) {
        double sum = 0;

        for (int64_t i = 0; i < tensor_rows(dy); i++)
            sum += ref_f32(dy)[i * v.o + o];
        dbias[o] = (float)sum;
    }
    return true;
}
