/* simd.h - the inner loops that are not oneDNN's, compiled once for each instruction set and chosen at run time.
 *
 * Planes: the blocked layout stores a tensor as planes of `block` channels, pixel after pixel; the loops over planes
 * work on `count` pixels of one plane and take per-channel values as `block` numbers.
 * Arrays: element-wise loops work on `count` numbers of any layout. In all of them outputs may be inputs' memory.
 * Masks: one bit for each number, set where it is kept; count × block / 8 bytes for a plane. */
#ifndef RFUAV_ENGINE_CPU_SIMD_H
#define RFUAV_ENGINE_CPU_SIMD_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/op.h"

enum { SIMD_MAX_BLOCK = 16 };

/* Running moments of `block` channels: how many numbers, their mean, the sum of squared distances from it. */
struct moments {
    double count, mean[SIMD_MAX_BLOCK], m2[SIMD_MAX_BLOCK];
};

/* y = act(x * scale + shift + residual) */
struct plane_apply {
    const float *x, *residual; /* residual: may be NULL */
    const float *scale, *shift;
    float *y;
    uint8_t *mask; /* NULL, or where the bits of y > 0 go */
    enum activation activation;
    bool past; /* write y past the caches: not when y is also an input */
};

/* The gradient before a batch norm's activation, g = (dy + dy2) slope. Of a ReLU it is kept where the mask is set; one
 * of mask, y, or neither, says where. Of an activation whose slope follows from its input, that is x * scale + shift.
 */
struct plane_gradient {
    const float *dy, *dy2;      /* dy2: may be NULL */
    const uint8_t *mask;        /* NULL, or bits */
    const float *y;             /* NULL, or the mask is y > 0 */
    enum activation activation; /* if not NONE: its slope at x * scale + shift */
    const float *x, *scale, *shift;
};

/* Planes of a depthwise convolution: x of h by w pixels, dy of oh by ow. */
struct depthwise_plane {
    int h, w, oh, ow, kernel[2], stride[2], padding[2];
};

/* Adam's numbers of one step: exp_avg += (1-beta1) (g - exp_avg), exp_avg_sq = beta2 exp_avg_sq + (1-beta2) g²,
 * param -= step_size exp_avg / (sqrt(exp_avg_sq) inv_sqrt_correction2 + eps). */
struct adam_step {
    float one_minus_beta1, beta2, one_minus_beta2, step_size, inv_sqrt_correction2, eps;
};

/* One row of a layer norm's gradient; dweight and dbias are added to. dx may be dy, x or add. */
struct layer_norm_gradient {
    const float *dy, *x, *weight, *add; /* add: may be NULL */
    float mean, invstd;
    float *dx, *dweight, *dbias;
};

/* c = alpha a b, or more added to c: c (m, n), n a multiple of the vector; b (k, n). a's numbers may lie any way. */
struct product {
    int64_t m, n, k;
    const float *a;
    int64_t a_row, a_column; /* from one row, or column, to the next */
    const float *b;
    int64_t b_row;
    float *c;
    int64_t c_row;
    float alpha;
    bool add;
};

struct simd {
    const char *name;
    int block; /* channels of a plane */

    /* Adds the moments of a plane to *sum (Chan, Golub, LeVeque 1983). */
    void (*plane_moments)(const float *x, int64_t count, struct moments *sum);
    void (*plane_apply)(const struct plane_apply *args, int64_t count);
    /* Adds sums of g and of g (x - mean) over a plane; stores g when `g` is not NULL. */
    void (*plane_gradient_sums)(const struct plane_gradient *args, const float *x, const float *mean, float *g,
                                int64_t count, double *sum, double *sum_x);
    /* dx = g_scale g + x_scale (x - mean) + shift */
    void (*plane_gradient_apply)(const struct plane_gradient *args, const float *x, const float *mean,
                                 const float *g_scale, const float *x_scale, const float *shift, float *dx,
                                 int64_t count);
    void (*plane_sum)(const float *x, int64_t count, float *sum); /* sum[block] */
    void (*plane_fill)(float *y, int64_t count, const float *value);
    void (*plane_scale)(const float *x, const float *factor, float *y, int64_t count); /* y = x factor */
    /* dx = dy factor; sum[block] of dy x */
    void (*plane_scale_backward)(const float *dy, const float *x, const float *factor, float *dx, int64_t count,
                                 float *sum);
    /* Adds the gradient of the weight, (position in the kernel, block), over a plane. */
    void (*depthwise_weight)(const struct depthwise_plane *shape, const float *dy, const float *x, float *dweight);

    /* y = x / 255; of every third byte: one channel of RGB pixels, as a plane */
    void (*rgb_plane)(const uint8_t *x, float *y, int64_t count);
    void (*add)(enum activation activation, const float *a, const float *b, float *y, int64_t count); /* act(a + b) */
    void (*activate)(enum activation activation, const float *x, float *y, int64_t count);
    void (*activation_backward)(enum activation activation, const float *dy, const float *at, float *dx, int64_t count);
    void (*scale)(const float *x, float factor, float *y, int64_t count); /* factor x */
    float (*dot)(const float *a, const float *b, int64_t count);

    /* Rows of `count` numbers; y may be x or residual, which may be NULL. */
    void (*layer_norm_row)(const float *x, const float *weight, const float *bias, const float *residual, float eps,
                           int64_t count, float *y, float *ret_mean, float *ret_invstd);
    void (*layer_norm_row_backward)(const struct layer_norm_gradient *args, int64_t count);
    /* x = softmax(scale x); returns log(sum(exp(scale x))), with which `again` computes the same. */
    float (*softmax_row)(float *x, float scale, int64_t count);
    void (*softmax_row_again)(float *x, float scale, float log_sum, int64_t count);
    /* dp = scale p (dp - product) */
    void (*softmax_row_backward)(const float *p, float product, float scale, float *dp, int64_t count);

    void (*small_product)(const struct product *product);

    void (*adam)(const struct adam_step *step, float *param, const float *grad, float *exp_avg, float *exp_avg_sq,
                 int64_t count);
};

/* One for each instruction set. */
extern const struct simd simd_avx512, simd_avx2, simd_plain;

/* The best that this processor can run; AVX-512 only if that is wanted. */
const struct simd *simd_best(bool avx512);

#endif
