/* activation.cuh - activations and their slopes in kernels; the definitions are activation.c's. */
#ifndef RFUAV_ENGINE_CUDA_ACTIVATION_CUH
#define RFUAV_ENGINE_CUDA_ACTIVATION_CUH

#include "engine/cuda/numbers.cuh"

/* No inlining: the others' kernels shall not take registers for it. */
static __device__ __noinline__ float gelu_value(float x)
{
    return 0.5f * x * (1 + erff(x * 0.70710678f));
}

static __device__ __noinline__ float gelu_slope(float x)
{
    return 0.5f * (1 + erff(x * 0.70710678f)) + x * __expf(-0.5f * x * x) * 0.39894228f;
}

/* From a value that is the same in all threads, so that the choice costs a jump. */
__device__ inline float activate(enum activation activation, float x)
{
    switch (activation) {
    case ACTIVATION_RELU:
        return x < 0 ? 0 : x;
    case ACTIVATION_HARDSIGMOID:
        return fminf(fmaxf(x * (1.0f / 6) + 0.5f, 0.0f), 1.0f);
    case ACTIVATION_HARDSWISH:
        return x * fminf(fmaxf(x * (1.0f / 6) + 0.5f, 0.0f), 1.0f);
    case ACTIVATION_GELU:
        return gelu_value(x);
    default:
        return x;
    }
}

/* At y or x, whichever the activation needs. */
__device__ inline float slope(enum activation activation, float at)
{
    switch (activation) {
    case ACTIVATION_RELU:
        return at > 0;
    case ACTIVATION_HARDSIGMOID:
        return at > 0 && at < 1 ? 1.0f / 6 : 0;
    case ACTIVATION_HARDSWISH:
        return at < -3 ? 0 : at > 3 ? 1 : at * (1.0f / 3) + 0.5f;
    case ACTIVATION_GELU:
        return gelu_slope(at);
    default:
        return 1;
    }
}

template <int V> __device__ inline void activate(enum activation activation, vec<V> &x)
{
#pragma unroll
    for (int i = 0; i < V; i++)
        x.v[i] = activate(activation, x.v[i]);
}

#endif
