/* gelu.cu - GELU and its gradient over whole tensors, as kernels of their own: what is general calls a function for
 * each number (activation.cuh), which costs a third of the time where nothing else is done. See launch.h */
#include "engine/cuda/gelu.cuh"
#include "engine/cuda/numbers.cuh"

namespace
{

enum { THREADS = 256, V = 8 };

/* The normal distribution's Φ(x). */
__device__ inline float normal_share(float x)
{
    return 0.5f + 0.5f * erff(x * 0.70710678f);
}

template <typename T> __global__ void __launch_bounds__(THREADS) forward(const T *x, int64_t vectors, T *y)
{
    int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x;

    if (item < vectors) {
        vec<V> value = load<V>(x + item * V);

#pragma unroll
        for (int i = 0; i < V; i++)
            value.v[i] *= normal_share(value.v[i]);
        store<V>(y + item * V, value);
    }
}

template <typename T>
__global__ void __launch_bounds__(THREADS) backward(const T *dy, const T *x, int64_t vectors, T *dx)
{
    int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x;

    if (item < vectors) {
        vec<V> d = load<V>(dy + item * V), at = load<V>(x + item * V);

#pragma unroll
        for (int i = 0; i < V; i++)
            d.v[i] *= normal_share(at.v[i]) + at.v[i] * __expf(-0.5f * at.v[i] * at.v[i]) * 0.39894228f;
        store<V>(dx + item * V, d);
    }
}

unsigned blocks_for(int64_t vectors)
{
    return (unsigned)((vectors + THREADS - 1) / THREADS);
}

} // namespace

bool gelu_fits(int64_t count)
{
    return count % V == 0 && count / V < (int64_t)THREADS << 31;
}

cudaError_t gelu_forward(cudaStream_t stream, enum number number, const void *x, int64_t count, void *y)
{
    if (number == NUMBER_BF16)
        forward<<<blocks_for(count / V), THREADS, 0, stream>>>((const bf16 *)x, count / V, (bf16 *)y);
    else
        forward<<<blocks_for(count / V), THREADS, 0, stream>>>((const float *)x, count / V, (float *)y);
    return cudaGetLastError();
}

cudaError_t gelu_backward(cudaStream_t stream, enum number number, const void *dy, const void *x, int64_t count,
                          void *dx)
{
    if (number == NUMBER_BF16)
        backward<<<blocks_for(count / V), THREADS, 0, stream>>>((const bf16 *)dy, (const bf16 *)x, count / V,
                                                                (bf16 *)dx);
    else
        backward<<<blocks_for(count / V), THREADS, 0, stream>>>((const float *)dy, (const float *)x, count / V,
                                                                (float *)dx);
    return cudaGetLastError();
}
