/* simd_gelu.h - the exponential function, and GELU with its slope, of vectors. Included by simd_loops.h, whose vectors
 * it uses. */

/* exp(x), to 2 units in the last place; below -87 about 1e-38. 2^n e^r with n the nearest integer of x / ln 2, e^r by
 * its Taylor polynomial, |r| < 0.35. */
static inline vec vec_exp(vec x)
{
    const vec magic = splat(12582912), low = splat(-87), high = splat(88);
    vec t, n, r, p;
    vec_int bits;

    bits = x < low;
    x = (vec)(((vec_int)low & bits) | ((vec_int)x & ~bits));
    bits = x > high;
    x = (vec)(((vec_int)high & bits) | ((vec_int)x & ~bits));
    t = x * splat(1.44269504f) + magic;
    n = t - magic;
    r = x - n * splat(0.693359375f) + n * splat(2.12194440e-4f);
    p = splat(1.0f / 5040);
    p = p * r + splat(1.0f / 720);
    p = p * r + splat(1.0f / 120);
    p = p * r + splat(1.0f / 24);
    p = p * r + splat(1.0f / 6);
    p = p * r + splat(0.5f);
    p = p * r + splat(1);
    p = p * r + splat(1);
    return (vec)((vec_int)p + (((vec_int)t - (vec_int)magic) << 23));
}

/* Φ(x) = P(N < x) and, at *density, e^(-x²/2): 1 - Φ(|x|) by formula 7.1.26 of Abramowitz and Stegun (1964) for erf,
 * within 1e-7. */
static inline vec vec_normal(vec x, vec *density)
{
    const vec a = (vec)((vec_int)x & 0x7FFFFFFF) * splat(0.707106781f),
              t = splat(1) / (splat(1) + splat(0.3275911f) * a);
    vec_int below = x < splat(0);
    vec tail = splat(1.061405429f);

    *density = vec_exp(-(a * a));
    tail = tail * t + splat(-1.453152027f);
    tail = tail * t + splat(1.421413741f);
    tail = tail * t + splat(-0.284496736f);
    tail = tail * t + splat(0.254829592f);
    tail = splat(0.5f) * tail * t * *density;
    return (vec)(((vec_int)tail & below) | ((vec_int)(splat(1) - tail) & ~below));
}

static inline vec vec_gelu(vec x)
{
    vec density;

    return x * vec_normal(x, &density);
}

static inline vec vec_gelu_slope(vec x)
{
    vec density, phi = vec_normal(x, &density);

    return phi + x * density * splat(0.398942280f);
}
