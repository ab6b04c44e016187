/* simd_loops.h - the bodies of struct simd's loops, included by one file for each instruction set, which defines
 * SIMD_NAME (for simd.name), SIMD_BLOCK (floats in a vector, 16 or 8) and SIMD_TABLE (the name of its struct simd).
 * Vectors are GCC's and clang's vector extensions, which become whatever the instruction set has; only masks and square
 * roots need its intrinsics. */
#include <math.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "engine/activation.h"
#include "engine/cpu/simd.h"

#pragma GCC diagnostic ignored "-Wpsabi" /* all functions are static, so how vectors are passed is nobody's business   \
                                          */

typedef float vec __attribute__((vector_size(SIMD_BLOCK * 4), aligned(4), may_alias));
typedef int32_t vec_int __attribute__((vector_size(SIMD_BLOCK * 4), aligned(4), may_alias, unused));
#if SIMD_BLOCK == 16
typedef uint16_t mask_bits;
#else
typedef uint8_t mask_bits;
#endif

/* mask_of: bits of v > 0, and of NaN, which must not vanish in a ReLU. keep: v where the bit is set, else 0.
 * clamp01: into [0, 1], NaN stays. store_past: to memory, past the caches, at a multiple of the vector's size;
 * store_fence() after the last. */
#if defined(__AVX512F__) && SIMD_BLOCK == 16
static inline mask_bits mask_of(vec v)
{
    return _mm512_cmp_ps_mask((__m512)v, _mm512_setzero_ps(), _CMP_NLE_UQ);
}

static inline vec keep(mask_bits bits, vec v)
{
    return (vec)_mm512_maskz_mov_ps(bits, (__m512)v);
}

static inline vec vec_sqrt(vec v)
{
    return (vec)_mm512_sqrt_ps((__m512)v);
}

static inline vec clamp01(vec v)
{
    return (vec)_mm512_min_ps(_mm512_set1_ps(1), _mm512_max_ps(_mm512_setzero_ps(), (__m512)v));
}

static inline void store_past(float *p, vec v)
{
    _mm512_stream_ps(p, (__m512)v);
}

static inline void store_fence(void)
{
    _mm_sfence();
}
#elif defined(__AVX2__) && SIMD_BLOCK == 8
static inline mask_bits mask_of(vec v)
{
    return (mask_bits)_mm256_movemask_ps(_mm256_cmp_ps((__m256)v, _mm256_setzero_ps(), _CMP_NLE_UQ));
}

static inline vec keep(mask_bits bits, vec v)
{
    const vec_int each = {1, 2, 4, 8, 16, 32, 64, 128};
    vec_int set = ((each & (int32_t)bits) == each);

    return (vec)((vec_int)v & set);
}

static inline vec vec_sqrt(vec v)
{
    return (vec)_mm256_sqrt_ps((__m256)v);
}

static inline vec clamp01(vec v)
{
    return (vec)_mm256_min_ps(_mm256_set1_ps(1), _mm256_max_ps(_mm256_setzero_ps(), (__m256)v));
}

static inline void store_past(float *p, vec v)
{
    _mm256_stream_ps(p, (__m256)v);
}

static inline void store_fence(void)
{
    _mm_sfence();
}
#else
static inline mask_bits mask_of(vec v)
{
    mask_bits bits = 0;

    for (int c = 0; c < SIMD_BLOCK; c++)
        bits |= (mask_bits)(!(v[c] <= 0) << c);
    return bits;
}

static inline vec keep(mask_bits bits, vec v)
{
    for (int c = 0; c < SIMD_BLOCK; c++)
        v[c] = bits >> c & 1 ? v[c] : 0;
    return v;
}

static inline vec vec_sqrt(vec v)
{
    for (int c = 0; c < SIMD_BLOCK; c++)
        v[c] = sqrtf(v[c]);
    return v;
}

static inline vec clamp01(vec v)
{
    for (int c = 0; c < SIMD_BLOCK; c++)
        v[c] = v[c] < 0 ? 0 : v[c] > 1 ? 1 : v[c];
    return v;
}

static inline void store_past(float *p, vec v)
{
    *(vec *)p = v;
}

static inline void store_fence(void)
{
}
#endif

static inline vec load(const float *p)
{
    return *(const vec *)p;
}

static inline void store(float *p, vec v)
{
    *(vec *)p = v;
}

static inline mask_bits load_mask(const uint8_t *mask, int64_t pixel)
{
    mask_bits bits;

    memcpy(&bits, mask + pixel * (int64_t)sizeof bits, sizeof bits);
    return bits;
}

static inline vec splat(float x)
{
    return x - (vec){0};
}

#include "engine/cpu/simd_gelu.h"

/* What has no vector form: by the definition, number by number. */
static vec each(float (*f)(float), vec v)
{
    for (int c = 0; c < SIMD_BLOCK; c++)
        v[c] = f(v[c]);
    return v;
}

/* act(v). Loops call it with a constant, so that the choice is made outside of them. */
static inline __attribute__((always_inline)) vec activate(enum activation activation, vec v)
{
    switch (activation) {
    case ACTIVATION_NONE:
        return v;
    case ACTIVATION_RELU:
        return keep(mask_of(v), v);
    case ACTIVATION_HARDSIGMOID:
        return clamp01(v * splat(1.0f / 6) + splat(0.5f));
    case ACTIVATION_HARDSWISH:
        return v * clamp01(v * splat(1.0f / 6) + splat(0.5f));
    case ACTIVATION_GELU:
        return vec_gelu(v);
    default:
        return each(activation_info(activation)->value, v);
    }
}

/* The slope of act at y or x, whichever the activation needs. */
static inline __attribute__((always_inline)) vec slope(enum activation activation, vec at)
{
    switch (activation) {
    case ACTIVATION_NONE:
        return splat(1);
    case ACTIVATION_RELU:
        return keep(mask_of(at), splat(1));
    case ACTIVATION_HARDSIGMOID:
        return keep((mask_bits)(mask_of(at) & mask_of(splat(1) - at)), splat(1.0f / 6));
    case ACTIVATION_HARDSWISH: {
        mask_bits below = mask_of(splat(3) - at); /* above 3 it is 1, below -3 it is 0 */

        return keep((mask_bits)(mask_of(at + splat(3)) & below), at * splat(1.0f / 3) + splat(0.5f)) +
               keep((mask_bits)~below, splat(1));
    }
    case ACTIVATION_GELU:
        return vec_gelu_slope(at);
    default:
        return each(activation_info(activation)->slope, at);
    }
}

/* Calls with_activation(activation, ...) with a constant for each activation. */
#define BY_ACTIVATION(with_activation, activation, ...)                                                                \
    switch (activation) {                                                                                              \
    case ACTIVATION_NONE:                                                                                              \
        with_activation(ACTIVATION_NONE, __VA_ARGS__);                                                                 \
        break;                                                                                                         \
    case ACTIVATION_RELU:                                                                                              \
        with_activation(ACTIVATION_RELU, __VA_ARGS__);                                                                 \
        break;                                                                                                         \
    case ACTIVATION_HARDSIGMOID:                                                                                       \
        with_activation(ACTIVATION_HARDSIGMOID, __VA_ARGS__);                                                          \
        break;                                                                                                         \
    case ACTIVATION_HARDSWISH:                                                                                         \
        with_activation(ACTIVATION_HARDSWISH, __VA_ARGS__);                                                            \
        break;                                                                                                         \
    case ACTIVATION_GELU:                                                                                              \
        with_activation(ACTIVATION_GELU, __VA_ARGS__);                                                                 \
        break;                                                                                                         \
    default:                                                                                                           \
        with_activation(activation, __VA_ARGS__);                                                                      \
        break;                                                                                                         \
    }
#define WITH_ACTIVATION static inline __attribute__((always_inline)) void

/* Adds four partial sums to doubles; float sums run over a plane only, a quarter of it each. */
static void flush(const vec *parts, double *sum)
{
    vec total = (parts[0] + parts[1]) + (parts[2] + parts[3]);

    for (int c = 0; c < SIMD_BLOCK; c++)
        sum[c] += (double)total[c];
}

static void plane_moments(const float *x, int64_t count, struct moments *sum)
{
    vec parts[4] = {{0}}, mean = {0};
    double plane[SIMD_BLOCK] = {0}, m2[SIMD_BLOCK] = {0}, total = sum->count + (double)count;
    int64_t i = 0;

    for (; i + 4 <= count; i += 4)
        for (int k = 0; k < 4; k++)
            parts[k] += load(x + (i + k) * SIMD_BLOCK);
    for (; i < count; i++)
        parts[0] += load(x + i * SIMD_BLOCK);
    flush(parts, plane);
    for (int c = 0; c < SIMD_BLOCK; c++) {
        plane[c] /= (double)count;
        mean[c] = (float)plane[c];
    }
    memset(parts, 0, sizeof parts);
    for (i = 0; i + 4 <= count; i += 4)
        for (int k = 0; k < 4; k++) {
            vec d = load(x + (i + k) * SIMD_BLOCK) - mean;

            parts[k] += d * d;
        }
    for (; i < count; i++) {
        vec d = load(x + i * SIMD_BLOCK) - mean;

        parts[0] += d * d;
    }
    flush(parts, m2);
    for (int c = 0; c < SIMD_BLOCK; c++) {
        double rounding = (double)mean[c] - plane[c], delta = plane[c] - sum->mean[c];

        sum->mean[c] += delta * (double)count / total;
        sum->m2[c] += m2[c] - (double)count * rounding * rounding + delta * delta * sum->count * (double)count / total;
    }
    sum->count = total;
}

WITH_ACTIVATION plane_apply_with(enum activation activation, const struct plane_apply *args, int64_t count)
{
    const vec scale = load(args->scale), shift = load(args->shift);

    for (int64_t i = 0; i < count; i++) {
        int64_t at = i * SIMD_BLOCK;
        vec y = load(args->x + at) * scale + shift;

        if (args->residual)
            y += load(args->residual + at);
        if (activation == ACTIVATION_RELU && args->mask) {
            mask_bits bits = mask_of(y);

            memcpy(args->mask + i * (int64_t)sizeof bits, &bits, sizeof bits);
        }
        y = activate(activation, y);
        if (args->past)
            store_past(args->y + at, y);
        else
            store(args->y + at, y);
    }
    if (args->past)
        store_fence();
}

static void plane_apply(const struct plane_apply *args, int64_t count)
{
    BY_ACTIVATION(plane_apply_with, args->activation, args, count)
}

static inline __attribute__((always_inline)) vec gradient_at(enum activation activation,
                                                             const struct plane_gradient *args, int64_t i)
{
    int64_t at = i * SIMD_BLOCK;
    vec g = load(args->dy + at);

    if (args->dy2)
        g += load(args->dy2 + at);
    if (args->mask)
        g = keep(load_mask(args->mask, i), g);
    else if (args->y)
        g = keep(mask_of(load(args->y + at)), g);
    if (activation != ACTIVATION_NONE)
        g *= slope(activation, load(args->x + at) * load(args->scale) + load(args->shift));
    return g;
}

WITH_ACTIVATION plane_gradient_sums_with(enum activation activation, const struct plane_gradient *args, const float *x,
                                         const float *mean, float *g, int64_t count, double *sum, double *sum_x)
{
    const vec m = load(mean);
    vec parts[4] = {{0}}, parts_x[4] = {{0}};

    for (int64_t i = 0; i < count; i += 4)
        for (int k = 0; k < 4 && i + k < count; k++) {
            int64_t at = (i + k) * SIMD_BLOCK;
            vec v = gradient_at(activation, args, i + k);

            parts[k] += v;
            parts_x[k] += v * (load(x + at) - m);
            if (g)
                store(g + at, v);
        }
    flush(parts, sum);
    flush(parts_x, sum_x);
}

static void plane_gradient_sums(const struct plane_gradient *args, const float *x, const float *mean, float *g,
                                int64_t count, double *sum, double *sum_x){
    BY_ACTIVATION(plane_gradient_sums_with, args->activation, args, x, mean, g, count, sum, sum_x)}

WITH_ACTIVATION plane_gradient_apply_with(enum activation activation, const struct plane_gradient *args, const float *x,
                                          const float *mean, const float *g_scale, const float *x_scale,
                                          const float *shift, float *dx, int64_t count)
{
    const vec m = load(mean), gs = load(g_scale), xs = load(x_scale), sh = load(shift);

    for (int64_t i = 0; i < count; i++) {
        int64_t at = i * SIMD_BLOCK;

        store(dx + at, gradient_at(activation, args, i) * gs + ((load(x + at) - m) * xs + sh));
    }
}

static void plane_gradient_apply(const struct plane_gradient *args, const float *x, const float *mean,
                                 const float *g_scale, const float *x_scale, const float *shift, float *dx,
                                 int64_t count)
{
    BY_ACTIVATION(plane_gradient_apply_with, args->activation, args, x, mean, g_scale, x_scale, shift, dx, count)
}

static void plane_sum(const float *x, int64_t count, float *sum)
{
    vec parts[4] = {{0}};
    double total[SIMD_BLOCK] = {0};

    for (int64_t i = 0; i < count; i += 4)
        for (int k = 0; k < 4 && i + k < count; k++)
            parts[k] += load(x + (i + k) * SIMD_BLOCK);
    flush(parts, total);
    for (int c = 0; c < SIMD_BLOCK; c++)
        sum[c] = (float)total[c];
}

static void plane_fill(float *y, int64_t count, const float *value)
{
    const vec v = load(value);

    for (int64_t i = 0; i < count; i++)
        store(y + i * SIMD_BLOCK, v);
}

static void plane_scale(const float *x, const float *factor, float *y, int64_t count)
{
    const vec f = load(factor);

    for (int64_t i = 0; i < count; i++)
        store(y + i * SIMD_BLOCK, load(x + i * SIMD_BLOCK) * f);
}

static void plane_scale_backward(const float *dy, const float *x, const float *factor, float *dx, int64_t count,
                                 float *sum)
{
    const vec f = load(factor);
    vec parts[4] = {{0}};
    double total[SIMD_BLOCK] = {0};

    for (int64_t i = 0; i < count; i += 4)
        for (int k = 0; k < 4 && i + k < count; k++) {
            int64_t at = (i + k) * SIMD_BLOCK;
            vec g = load(dy + at);

            parts[k] += g * load(x + at);
            store(dx + at, g * f);
        }
    flush(parts, total);
    for (int c = 0; c < SIMD_BLOCK; c++)
        sum[c] = (float)total[c];
}

/* One position of the kernel along a row: dy[i] x[i stride], i < count. */
static inline vec row_product(const float *dy, const float *x, int stride, int count)
{
    vec parts[2] = {{0}};
    int i = 0;

    for (; i + 2 <= count; i += 2)
        for (int k = 0; k < 2; k++)
            parts[k] += load(dy + (i + k) * SIMD_BLOCK) * load(x + (i + k) * stride * SIMD_BLOCK);
    if (i < count)
        parts[0] += load(dy + i * SIMD_BLOCK) * load(x + i * stride * SIMD_BLOCK);
    return parts[0] + parts[1];
}

static void depthwise_weight(const struct depthwise_plane *s, const float *dy, const float *x, float *dweight)
{
    for (int oh = 0; oh < s->oh; oh++)
        for (int kh = 0; kh < s->kernel[0]; kh++) {
            int ih = oh * s->stride[0] - s->padding[0] + kh;

            if (ih < 0 || ih >= s->h)
                continue;
            for (int kw = 0; kw < s->kernel[1]; kw++) {
                int offset = kw - s->padding[1]; /* outputs [first, last) meet pixels ow stride + offset in the row */
                int first = offset < 0 ? (-offset + s->stride[1] - 1) / s->stride[1] : 0;
                int last = offset >= s->w ? 0 : (s->w - 1 - offset) / s->stride[1] + 1;
                float *sum = dweight + (kh * s->kernel[1] + kw) * SIMD_BLOCK;

                last = last < s->ow ? last : s->ow;
                if (first < last)
                    store(sum, load(sum) + row_product(dy + (oh * s->ow + first) * SIMD_BLOCK,
                                                       x + (ih * s->w + first * s->stride[1] + offset) * SIMD_BLOCK,
                                                       s->stride[1], last - first));
            }
        }
}

static void rgb_plane(const uint8_t *x, float *y, int64_t count)
{
    int64_t i = 0;

    for (; i + SIMD_BLOCK <= count; i += SIMD_BLOCK) {
        vec v = {0};

        for (int k = 0; k < SIMD_BLOCK; k++)
            v[k] = (float)x[3 * (i + k)];
        store(y + i, v / splat(255));
    }
    for (; i < count; i++)
        y[i] = (float)x[3 * i] / 255;
}

/* act(a + b); b: may be NULL */
WITH_ACTIVATION add_with(enum activation activation, const float *a, const float *b, float *y, int64_t count)
{
    int64_t i = 0;

    for (; i + SIMD_BLOCK <= count; i += SIMD_BLOCK) {
        vec v = load(a + i);

        if (b)
            v += load(b + i);
        store(y + i, activate(activation, v));
    }
    for (; i < count; i++)
        y[i] = activation_info(activation)->value(b ? a[i] + b[i] : a[i]);
}

static void add(enum activation activation, const float *a, const float *b, float *y, int64_t count)
{
    BY_ACTIVATION(add_with, activation, a, b, y, count)
}

static void activate_all(enum activation activation, const float *x, float *y,
                         int64_t count){BY_ACTIVATION(add_with, activation, x, NULL, y, count)}

WITH_ACTIVATION
    activation_backward_with(enum activation activation, const float *dy, const float *at, float *dx, int64_t count)
{
    int64_t i = 0;

    for (; i + SIMD_BLOCK <= count; i += SIMD_BLOCK)
        store(dx + i, load(dy + i) * slope(activation, load(at + i)));
    for (; i < count; i++)
        dx[i] = dy[i] * activation_info(activation)->slope(at[i]);
}

static void activation_backward(enum activation activation, const float *dy, const float *at, float *dx, int64_t count)
{
    BY_ACTIVATION(activation_backward_with, activation, dy, at, dx, count)
}

static void scale(const float *x, float factor, float *y, int64_t count)
{
    int64_t i = 0;

    for (; i + SIMD_BLOCK <= count; i += SIMD_BLOCK)
        store(y + i, load(x + i) * splat(factor));
    for (; i < count; i++)
        y[i] = x[i] * factor;
}

static void adam(const struct adam_step *step, float *param, const float *grad, float *exp_avg, float *exp_avg_sq,
                 int64_t count)
{
    const vec one_minus_beta1 = splat(step->one_minus_beta1), beta2 = splat(step->beta2);
    const vec one_minus_beta2 = splat(step->one_minus_beta2), step_size = splat(step->step_size);
    const vec correction = splat(step->inv_sqrt_correction2), eps = splat(step->eps);
    int64_t i = 0;

    for (; i + SIMD_BLOCK <= count; i += SIMD_BLOCK) {
        vec g = load(grad + i), m = load(exp_avg + i), v = load(exp_avg_sq + i);

        m += one_minus_beta1 * (g - m);
        v = beta2 * v + one_minus_beta2 * g * g;
        store(exp_avg + i, m);
        store(exp_avg_sq + i, v);
        store(param + i, load(param + i) - step_size * m / (vec_sqrt(v) * correction + eps));
    }
    for (; i < count; i++) {
        exp_avg[i] += step->one_minus_beta1 * (grad[i] - exp_avg[i]);
        exp_avg_sq[i] = step->beta2 * exp_avg_sq[i] + step->one_minus_beta2 * grad[i] * grad[i];
        param[i] -= step->step_size * exp_avg[i] / (sqrtf(exp_avg_sq[i]) * step->inv_sqrt_correction2 + step->eps);
    }
}

#include "engine/cpu/simd_rows.h"

#include "engine/cpu/simd_product.h"

const struct simd SIMD_TABLE = {
    .name = SIMD_NAME,
    .block = SIMD_BLOCK,
    .plane_moments = plane_moments,
    .plane_apply = plane_apply,
    .plane_gradient_sums = plane_gradient_sums,
    .plane_gradient_apply = plane_gradient_apply,
    .plane_sum = plane_sum,
    .plane_fill = plane_fill,
    .plane_scale = plane_scale,
    .plane_scale_backward = plane_scale_backward,
    .depthwise_weight = depthwise_weight,
    .rgb_plane = rgb_plane,
    .add = add,
    .activate = activate_all,
    .activation_backward = activation_backward,
    .scale = scale,
    .dot = dot,
    .layer_norm_row = layer_norm_row,
    .layer_norm_row_backward = layer_norm_row_backward,
    .softmax_row = softmax_row,
    .softmax_row_again = softmax_row_again,
    .softmax_row_backward = softmax_row_backward,
    .small_product = small_product,
    .adam = adam,
};
