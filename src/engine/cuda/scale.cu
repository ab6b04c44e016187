/* scale.cu - every channel of every image times a factor, and the gradients of both. See launch.h */
#include "engine/cuda/numbers.cuh"

namespace
{

enum { THREADS = 256, LANES = 8, ROWS = THREADS / LANES };

template <typename T, int V>
__global__ void scale_kernel(const T *x, const T *__restrict__ s, int64_t count, int64_t image, int channels, T *y)
{
    for (int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x; item < count / V;
         item += (int64_t)gridDim.x * THREADS) {
        int64_t at = item * V;
        vec<V> value = load<V>(x + at), factor = load<V>(s + at / image * channels + at % channels);

#pragma unroll
        for (int i = 0; i < V; i++)
            value.v[i] *= factor.v[i];
        store<V>(y + at, value);
    }
}

/* A block: LANES vectors of channels of one image, the pixels shared among its rows of threads. */
template <typename T, int V>
__global__ void __launch_bounds__(THREADS)
    backward_kernel(const T *dy, const T *__restrict__ x, const T *__restrict__ s, int plane, int channels, T *dx,
                    T *ds)
{
    __shared__ float shared[ROWS][LANES * V];
    int lane = threadIdx.x % LANES, row = threadIdx.x / LANES, c = (blockIdx.x * LANES + lane) * V;
    int64_t image = (int64_t)blockIdx.y * plane * channels;
    vec<V> sum = {}, factor = {};

    if (c < channels) {
        factor = load<V>(s + (int64_t)blockIdx.y * channels + c);
#pragma unroll 4
        for (int i = row; i < plane; i += ROWS) {
            int64_t at = image + (int64_t)i * channels + c;
            vec<V> g = load<V>(dy + at), value = load<V>(x + at);

#pragma unroll
            for (int k = 0; k < V; k++) {
                sum.v[k] += g.v[k] * value.v[k];
                g.v[k] *= factor.v[k];
            }
            store<V>(dx + at, g);
        }
    }
#pragma unroll
    for (int k = 0; k < V; k++)
        shared[row][lane * V + k] = sum.v[k];
    __syncthreads();
    for (int k = threadIdx.x; k < LANES * V; k += THREADS) {
        int channel = blockIdx.x * LANES * V + k;
        float total = 0;

        for (int r = 0; r < ROWS; r++)
            total += shared[r][k];
        if (channel < channels)
            ds[(int64_t)blockIdx.y * channels + channel] = from_float<T>(total);
    }
}

template <typename T, int V>
cudaError_t forward(cudaStream_t stream, const void *x, const void *s, int n, int plane, int channels, void *y)
{
    int64_t image = (int64_t)plane * channels, count = n * image, blocks = (count / V + THREADS - 1) / THREADS;

    scale_kernel<T, V><<<(unsigned)(blocks < 1 << 16 ? blocks : 1 << 16), THREADS, 0, stream>>>(
        (const T *)x, (const T *)s, count, image, channels, (T *)y);
    return cudaGetLastError();
}

template <typename T, int V>
cudaError_t backward(cudaStream_t stream, const void *dy, const void *x, const void *s, int n, int plane, int channels,
                     void *dx, void *ds)
{
    dim3 grid((unsigned)((channels / V + LANES - 1) / LANES), (unsigned)n);

    backward_kernel<T, V>
        <<<grid, THREADS, 0, stream>>>((const T *)dy, (const T *)x, (const T *)s, plane, channels, (T *)dx, (T *)ds);
    return cudaGetLastError();
}

} // namespace

cudaError_t scale(cudaStream_t stream, enum number number, const void *x, const void *s, int n, int plane, int channels,
                  void *y)
{
#define CALL(T, V) forward<T, V>(stream, x, s, n, plane, channels, y)
    return DISPATCH(number, channels, CALL);
#undef CALL
}

cudaError_t scale_backward(cudaStream_t stream, enum number number, const void *dy, const void *x, const void *s, int n,
                           int plane, int channels, void *dx, void *ds)
{
#define CALL(T, V) backward<T, V>(stream, dy, x, s, n, plane, channels, dx, ds)
    return DISPATCH(number, channels, CALL);
#undef CALL
}
