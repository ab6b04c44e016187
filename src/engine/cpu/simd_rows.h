/* simd_rows.h - loops over rows of a transformer's matrices: layer norm and softmax. Included by simd_loops.h, whose
 * vectors it uses; `count` need not be a multiple of the vector. */

/* The numbers of a row from i on, at most a vector of them, `fill` behind its end. */
static inline vec load_part(const float *p, int64_t i, int64_t count, float fill)
{
    vec v = splat(fill);

    if (i + SIMD_BLOCK <= count)
        return load(p + i);
    for (int k = 0; i + k < count; k++)
        v[k] = p[i + k];
    return v;
}

static inline void store_part(float *p, int64_t i, int64_t count, vec v)
{
    if (i + SIMD_BLOCK <= count) {
        store(p + i, v);
        return;
    }
    for (int k = 0; i + k < count; k++)
        p[i + k] = v[k];
}

static inline float vec_sum(vec v)
{
    float sum = 0;

    for (int c = 0; c < SIMD_BLOCK; c++)
        sum += v[c];
    return sum;
}

static void layer_norm_row(const float *x, const float *weight, const float *bias, const float *residual, float eps,
                           int64_t count, float *y, float *ret_mean, float *ret_invstd)
{
    vec parts = {0};
    float mean, invstd;

    for (int64_t i = 0; i < count; i += SIMD_BLOCK)
        parts += load_part(x, i, count, 0);
    mean = vec_sum(parts) / (float)count;
    parts = splat(0);
    for (int64_t i = 0; i < count; i += SIMD_BLOCK) {
        vec d = load_part(x, i, count, mean) - splat(mean);

        parts += d * d;
    }
    invstd = 1 / sqrtf(vec_sum(parts) / (float)count + eps);
    for (int64_t i = 0; i < count; i += SIMD_BLOCK) {
        vec v = (load_part(x, i, count, 0) - splat(mean)) * splat(invstd) * load_part(weight, i, count, 0) +
                load_part(bias, i, count, 0);

        if (residual)
            v += load_part(residual, i, count, 0);
        store_part(y, i, count, v);
    }
    *ret_mean = mean;
    *ret_invstd = invstd;
}

static void layer_norm_row_backward(const struct layer_norm_gradient *args, int64_t count)
{
    const vec mean = splat(args->mean), invstd = splat(args->invstd);
    vec sum = {0}, sum_xhat = {0};

    for (int64_t i = 0; i < count; i += SIMD_BLOCK) {
        vec dy = load_part(args->dy, i, count, 0), g = dy * load_part(args->weight, i, count, 0);
        vec xhat = (load_part(args->x, i, count, 0) - mean) * invstd;

        sum += g;
        sum_xhat += g * xhat;
        store_part(args->dweight, i, count, load_part(args->dweight, i, count, 0) + dy * xhat);
        store_part(args->dbias, i, count, load_part(args->dbias, i, count, 0) + dy);
    }
    sum = splat(vec_sum(sum) / (float)count);
    sum_xhat = splat(vec_sum(sum_xhat) / (float)count);
    for (int64_t i = 0; i < count; i += SIMD_BLOCK) {
        vec g = load_part(args->dy, i, count, 0) * load_part(args->weight, i, count, 0);
        vec xhat = (load_part(args->x, i, count, 0) - mean) * invstd;
        vec dx = invstd * (g - sum - xhat * sum_xhat);

        if (args->add)
            dx += load_part(args->add, i, count, 0);
        store_part(args->dx, i, count, dx);
    }
}

static float softmax_row(float *x, float scale, int64_t count)
{
    vec most = splat(-INFINITY), parts = {0};
    float top, sum;

    for (int64_t i = 0; i < count; i += SIMD_BLOCK) {
        vec v = load_part(x, i, count, -INFINITY) * splat(scale);
        vec_int more = v > most;

        most = (vec)(((vec_int)v & more) | ((vec_int)most & ~more));
        store_part(x, i, count, v);
    }
    top = most[0];
    for (int c = 1; c < SIMD_BLOCK; c++)
        top = most[c] > top ? most[c] : top;
    for (int64_t i = 0; i < count; i += SIMD_BLOCK) {
        vec v = vec_exp(load_part(x, i, count, -INFINITY) - splat(top));

        store_part(x, i, count, v);
        parts += v;
    }
    sum = vec_sum(parts);
    for (int64_t i = 0; i < count; i += SIMD_BLOCK)
        store_part(x, i, count, load_part(x, i, count, 0) * splat(1 / sum));
    return top + logf(sum);
}

static void softmax_row_again(float *x, float scale, float log_sum, int64_t count)
{
    for (int64_t i = 0; i < count; i += SIMD_BLOCK)
        store_part(x, i, count, vec_exp(load_part(x, i, count, 0) * splat(scale) - splat(log_sum)));
}

static void softmax_row_backward(const float *p, float product, float scale, float *dp, int64_t count)
{
    for (int64_t i = 0; i < count; i += SIMD_BLOCK)
        store_part(dp, i, count,
                   load_part(p, i, count, 0) * (load_part(dp, i, count, 0) - splat(product)) * splat(scale));
}

static float dot(const float *a, const float *b, int64_t count)
{
    vec parts = {0};

    for (int64_t i = 0; i < count; i += SIMD_BLOCK)
        parts += load_part(a, i, count, 0) * load_part(b, i, count, 0);
    return vec_sum(parts);
}
