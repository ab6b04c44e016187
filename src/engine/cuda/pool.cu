/* pool.cu - max pooling and global average pooling. See launch.h */
#include <math_constants.h>

#include "engine/cuda/numbers.cuh"

namespace
{

enum { THREADS = 256 };

template <typename T, int V>
__global__ void max_pool_kernel(pool_launch p, const T *__restrict__ x, T *y, uint8_t *where)
{
    int vectors = p.channels / V;
    int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x, count = (int64_t)p.n * p.oh * p.ow * vectors;

    if (item >= count)
        return;
    int c = (int)(item % vectors) * V;
    int64_t row = item / vectors;
    int ow = (int)(row % p.ow), oh = (int)(row / p.ow % p.oh);
    int64_t n = row / p.ow / p.oh;
    vec<V> best;
    uint8_t at[V];
    bool any = false;

    for (int kh = 0; kh < p.kernel[0]; kh++)
        for (int kw = 0; kw < p.kernel[1]; kw++) {
            int ih = oh * p.stride[0] - p.padding[0] + kh, iw = ow * p.stride[1] - p.padding[1] + kw;

            if (ih < 0 || ih >= p.h || iw < 0 || iw >= p.w)
                continue;
            vec<V> value = load<V>(x + ((n * p.h + ih) * p.w + iw) * p.channels + c);

#pragma unroll
            for (int i = 0; i < V; i++)
                if (!any || value.v[i] > best.v[i] || isnan(value.v[i])) {
                    best.v[i] = value.v[i];
                    at[i] = (uint8_t)(kh * p.kernel[1] + kw);
                }
            any = true;
        }
    store<V>(y + row * p.channels + c, best);
    if (!where)
        return;
    if constexpr (V == 8)
        *reinterpret_cast<uint2 *>(where + row * p.channels + c) = *reinterpret_cast<uint2 *>(at);
    else
        where[row * p.channels + c] = at[0];
}

/* Each input pixel collects from the windows that hold it. */
template <typename T, int V>
__global__ void max_pool_backward_kernel(pool_launch p, const T *__restrict__ dy, const uint8_t *__restrict__ where,
                                         T *dx)
{
    int vectors = p.channels / V;
    int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x, count = (int64_t)p.n * p.h * p.w * vectors;

    if (item >= count)
        return;
    int c = (int)(item % vectors) * V;
    int64_t row = item / vectors;
    int iw = (int)(row % p.w) + p.padding[1], ih = (int)(row / p.w % p.h) + p.padding[0];
    int64_t n = row / p.w / p.h;
    vec<V> sum = {};
    int first_h = ih < p.kernel[0] ? 0 : (ih - p.kernel[0]) / p.stride[0] + 1;
    int first_w = iw < p.kernel[1] ? 0 : (iw - p.kernel[1]) / p.stride[1] + 1;

    for (int oh = first_h; oh < p.oh && oh * p.stride[0] <= ih; oh++)
        for (int ow = first_w; ow < p.ow && ow * p.stride[1] <= iw; ow++) {
            int k = (ih - oh * p.stride[0]) * p.kernel[1] + iw - ow * p.stride[1];
            int64_t at = ((n * p.oh + oh) * p.ow + ow) * p.channels + c;
            vec<V> d = load<V>(dy + at);
            uint8_t from[V];

            if constexpr (V == 8)
                *reinterpret_cast<uint2 *>(from) = *reinterpret_cast<const uint2 *>(where + at);
            else
                from[0] = where[at];
#pragma unroll
            for (int i = 0; i < V; i++)
                if (from[i] == k)
                    sum.v[i] += d.v[i];
        }
    store<V>(dx + row * p.channels + c, sum);
}

enum { POOL_LANES = 8, POOL_ROWS = THREADS / POOL_LANES };

/* A block: POOL_LANES vectors of channels of one image, its pixels shared among the rows of threads. */
template <typename T, int V>
__global__ void __launch_bounds__(THREADS) avg_pool_kernel(const T *__restrict__ x, int plane, int channels, T *y)
{
    __shared__ float shared[POOL_ROWS][POOL_LANES * V];
    int lane = threadIdx.x % POOL_LANES, row = threadIdx.x / POOL_LANES, c = (blockIdx.x * POOL_LANES + lane) * V;
    const T *image = x + (int64_t)blockIdx.y * plane * channels;
    vec<V> sum = {};

    if (c < channels)
#pragma unroll 4
        for (int i = row; i < plane; i += POOL_ROWS) {
            vec<V> value = load<V>(image + (int64_t)i * channels + c);

#pragma unroll
            for (int k = 0; k < V; k++)
                sum.v[k] += value.v[k];
        }
#pragma unroll
    for (int k = 0; k < V; k++)
        shared[row][lane * V + k] = sum.v[k];
    __syncthreads();
    for (int k = threadIdx.x; k < POOL_LANES * V; k += THREADS) {
        int channel = blockIdx.x * POOL_LANES * V + k;
        float total = 0;

        for (int r = 0; r < POOL_ROWS; r++)
            total += shared[r][k];
        if (channel < channels)
            y[(int64_t)blockIdx.y * channels + channel] = from_float<T>(total / (float)plane);
    }
}

template <typename T, int V>
__global__ void avg_pool_backward_kernel(const T *__restrict__ dy, int64_t rows, int plane, int channels, T *dx)
{
    int vectors = channels / V;
    int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x;

    if (item >= rows * vectors)
        return;
    int c = (int)(item % vectors) * V;
    int64_t row = item / vectors;
    vec<V> d = load<V>(dy + row / plane * channels + c);

#pragma unroll
    for (int k = 0; k < V; k++)
        d.v[k] /= (float)plane;
    store<V>(dx + row * channels + c, d);
}

unsigned blocks_for(int64_t items)
{
    return (unsigned)((items + THREADS - 1) / THREADS);
}

template <typename T, int V>
cudaError_t forward(cudaStream_t stream, const pool_launch *p, const void *x, void *y, uint8_t *where)
{
    max_pool_kernel<T, V><<<blocks_for((int64_t)p->n * p->oh * p->ow * p->channels / V), THREADS, 0, stream>>>(
        *p, (const T *)x, (T *)y, where);
    return cudaGetLastError();
}

template <typename T, int V>
cudaError_t backward(cudaStream_t stream, const pool_launch *p, const void *dy, const uint8_t *where, void *dx)
{
    max_pool_backward_kernel<T, V><<<blocks_for((int64_t)p->n * p->h * p->w * p->channels / V), THREADS, 0, stream>>>(
        *p, (const T *)dy, where, (T *)dx);
    return cudaGetLastError();
}

template <typename T, int V>
cudaError_t average(cudaStream_t stream, const void *x, int n, int plane, int channels, void *y)
{
    int vectors = channels / V;
    dim3 grid((unsigned)((vectors + POOL_LANES - 1) / POOL_LANES), (unsigned)n);

    avg_pool_kernel<T, V><<<grid, THREADS, 0, stream>>>((const T *)x, plane, channels, (T *)y);
    return cudaGetLastError();
}

template <typename T, int V>
cudaError_t average_backward(cudaStream_t stream, const void *dy, int n, int plane, int channels, void *dx)
{
    int64_t rows = (int64_t)n * plane;

    avg_pool_backward_kernel<T, V>
        <<<blocks_for(rows * channels / V), THREADS, 0, stream>>>((const T *)dy, rows, plane, channels, (T *)dx);
    return cudaGetLastError();
}

} // namespace

cudaError_t max_pool(cudaStream_t stream, const struct pool_launch *p, const void *x, void *y, uint8_t *where)
{
#define CALL(T, V) forward<T, V>(stream, p, x, y, where)
    return DISPATCH(p->number, p->channels, CALL);
#undef CALL
}

cudaError_t max_pool_backward(cudaStream_t stream, const struct pool_launch *p, const void *dy, const uint8_t *where,
                              void *dx)
{
#define CALL(T, V) backward<T, V>(stream, p, dy, where, dx)
    return DISPATCH(p->number, p->channels, CALL);
#undef CALL
}

cudaError_t global_avg_pool(cudaStream_t stream, enum number number, const void *x, int n, int plane, int channels,
                            void *y)
{
#define CALL(T, V) average<T, V>(stream, x, n, plane, channels, y)
    return DISPATCH(number, channels, CALL);
#undef CALL
}

cudaError_t global_avg_pool_backward(cudaStream_t stream, enum number number, const void *dy, int n, int plane,
                                     int channels, void *dx)
{
#define CALL(T, V) average_backward<T, V>(stream, dy, n, plane, channels, dx)
    return DISPATCH(number, channels, CALL);
#undef CALL
}
