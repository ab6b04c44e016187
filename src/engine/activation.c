/* activation.c - the definitions, after torch.nn, and their slopes where PyTorch has them on kinks. See activation.h */
#include "engine/activation.h"

#include <math.h>

static float none(float x)
{
    return x;
}

static float one(float x)
{
    (void)x;
    return 1;
}

static float relu(float x)
{
    return x < 0 ? 0 : x;
}

static float relu_slope(float y)
{
    return y <= 0 ? 0 : 1;
}

static float hardsigmoid(float x)
{
    return x <= -3 ? 0 : x >= 3 ? 1 : (x + 3) / 6;
}

static float hardsigmoid_slope(float y)
{
    return y <= 0 || y >= 1 ? 0 : 1.0f / 6;
}

static float hardswish(float x)
{
    return x * hardsigmoid(x);
}

static float hardswish_slope(float x)
{
    return x < -3 ? 0 : x > 3 ? 1 : x / 3 + 0.5f;
}

static float gelu(float x)
{
    return 0.5f * x * (1 + erff(x * (float)M_SQRT1_2));
}

static float gelu_slope(float x)
{
    float density = expf(-0.5f * x * x) * (float)(M_SQRT1_2 * 0.5 * M_2_SQRTPI); /* 1 / sqrt(2 π) */

    return 0.5f * (1 + erff(x * (float)M_SQRT1_2)) + x * density;
}

const struct activation_info *activation_info(enum activation activation)
{
    static const struct activation_info infos[ACTIVATION_COUNT] = {
        [ACTIVATION_NONE] = {"none", true, none, one},
        [ACTIVATION_RELU] = {"relu", true, relu, relu_slope},
        [ACTIVATION_HARDSWISH] = {"hardswish", false, hardswish, hardswish_slope},
        [ACTIVATION_HARDSIGMOID] = {"hardsigmoid", true, hardsigmoid, hardsigmoid_slope},
        [ACTIVATION_GELU] = {"gelu", false, gelu, gelu_slope},
    };

    return &infos[activation];
}
