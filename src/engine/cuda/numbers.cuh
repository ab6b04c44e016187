/* numbers.cuh - reading and writing V neighbouring numbers, computing in floats. V is 8 (16-byte accesses, addresses
 * must be aligned so) or 1. */
#ifndef RFUAV_ENGINE_CUDA_NUMBERS_CUH
#define RFUAV_ENGINE_CUDA_NUMBERS_CUH

#include <cuda_bf16.h>

#include "engine/cuda/launch.h"

typedef __nv_bfloat16 bf16;

template <typename T> __device__ inline float to_float(T value);
template <> __device__ inline float to_float<float>(float value)
{
    return value;
}
template <> __device__ inline float to_float<bf16>(bf16 value)
{
    return __bfloat162float(value);
}

template <typename T> __device__ inline T from_float(float value);
template <> __device__ inline float from_float<float>(float value)
{
    return value;
}
template <> __device__ inline bf16 from_float<bf16>(float value)
{
    return __float2bfloat16(value);
}

template <int V> struct vec {
    float v[V];
};

template <int V> __device__ inline vec<V> load(const float *p)
{
    vec<V> r;

    if constexpr (V == 8) {
        float4 a = reinterpret_cast<const float4 *>(p)[0], b = reinterpret_cast<const float4 *>(p)[1];

        r.v[0] = a.x, r.v[1] = a.y, r.v[2] = a.z, r.v[3] = a.w;
        r.v[4] = b.x, r.v[5] = b.y, r.v[6] = b.z, r.v[7] = b.w;
    } else {
        r.v[0] = *p;
    }
    return r;
}

template <int V> __device__ inline vec<V> load(const bf16 *p)
{
    vec<V> r;

    if constexpr (V == 8) {
        uint4 raw = *reinterpret_cast<const uint4 *>(p);
        const __nv_bfloat162 *pairs = reinterpret_cast<const __nv_bfloat162 *>(&raw);

#pragma unroll
        for (int i = 0; i < 4; i++) {
            float2 f = __bfloat1622float2(pairs[i]);

            r.v[2 * i] = f.x;
            r.v[2 * i + 1] = f.y;
        }
    } else {
        r.v[0] = __bfloat162float(*p);
    }
    return r;
}

template <int V> __device__ inline void store(float *p, const vec<V> &x)
{
    if constexpr (V == 8) {
        reinterpret_cast<float4 *>(p)[0] = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
        reinterpret_cast<float4 *>(p)[1] = make_float4(x.v[4], x.v[5], x.v[6], x.v[7]);
    } else {
        *p = x.v[0];
    }
}

template <int V> __device__ inline void store(bf16 *p, const vec<V> &x)
{
    if constexpr (V == 8) {
        uint4 raw;
        __nv_bfloat162 *pairs = reinterpret_cast<__nv_bfloat162 *>(&raw);

#pragma unroll
        for (int i = 0; i < 4; i++)
            pairs[i] = __floats2bfloat162_rn(x.v[2 * i], x.v[2 * i + 1]);
        *reinterpret_cast<uint4 *>(p) = raw;
    } else {
        *p = __float2bfloat16(x.v[0]);
    }
}

/* What a store of T would leave of a value. */
template <typename T, int V> __device__ inline void round_to(vec<V> &x)
{
    if constexpr (sizeof(T) == 2)
#pragma unroll
        for (int i = 0; i < V; i++)
            x.v[i] = __bfloat162float(__float2bfloat16(x.v[i]));
}

/* Calls f<T, V>() for the numbers and channels at hand. */
#define DISPATCH(number, channels, call)                                                                               \
    ((number) == NUMBER_BF16 ? ((channels) % 8 ? call(bf16, 1) : call(bf16, 8))                                        \
                             : ((channels) % 8 ? call(float, 1) : call(float, 8)))

#endif
