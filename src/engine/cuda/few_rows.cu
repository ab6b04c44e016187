/* few_rows.cu - linear layers over a few rows, where a matrix product's tiles would be almost empty: bias and
 * activation in the same launch, and so both gradients of the parameters. See launch.h */
#include "engine/cuda/activation.cuh"

namespace
{

enum { V = 8, THREADS = 256, WARPS = THREADS / 32, ROWS = 8 };

/* A warp makes one feature of ROWS rows. */
template <typename T, typename Y>
__global__ void __launch_bounds__(THREADS)
    forward_kernel(int rows, int in, int out, enum activation activation, const T *__restrict__ x,
                   const T *__restrict__ weight, const float *__restrict__ bias, Y *y)
{
    int lane = threadIdx.x % 32, o = blockIdx.x * WARPS + threadIdx.x / 32, first = blockIdx.y * ROWS;
    float sum[ROWS] = {};

    if (o >= out)
        return;
#pragma unroll 2
    for (int i = lane * V; i < in; i += 32 * V) {
        vec<V> w = load<V>(weight + (int64_t)o * in + i);

#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            vec<V> value = load<V>(x + (int64_t)min(first + r, rows - 1) * in + i);

#pragma unroll
            for (int k = 0; k < V; k++)
                sum[r] += w.v[k] * value.v[k];
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int step = 16; step; step /= 2)
            sum[r] += __shfl_xor_sync(0xFFFFFFFF, sum[r], step);
        if (lane == r && first + r < rows)
            y[(int64_t)(first + r) * out + o] = from_float<Y>(activate(activation, sum[r] + (bias ? bias[o] : 0)));
    }
}

/* A thread makes V numbers of a feature's weight; the first of a feature its bias too. */
template <typename T, typename W>
__global__ void __launch_bounds__(THREADS)
    gradient_kernel(int rows, int in, int out, const T *__restrict__ dy, const T *__restrict__ x, W *dweight,
                    void *dbias, bool half_bias)
{
    int item = blockIdx.x * THREADS + threadIdx.x, o = item / (in / V), i = item % (in / V) * V;
    vec<V> sum = {};
    float total = 0;

    if (o >= out)
        return;
#pragma unroll 4
    for (int r = 0; r < rows; r++) {
        float g = to_float(dy[(int64_t)r * out + o]);
        vec<V> value = load<V>(x + (int64_t)r * in + i);

        total += g;
#pragma unroll
        for (int k = 0; k < V; k++)
            sum.v[k] += g * value.v[k];
    }
    store<V>(dweight + (int64_t)o * in + i, sum);
    if (i || !dbias)
        return;
    if (half_bias)
        ((bf16 *)dbias)[o] = from_float<bf16>(total);
    else
        ((float *)dbias)[o] = total;
}

template <typename T, typename Y>
cudaError_t forward(cudaStream_t stream, const few_rows_launch *l, const void *x, const void *weight, const float *bias,
                    void *y)
{
    dim3 grid((unsigned)((l->out + WARPS - 1) / WARPS), (unsigned)((l->rows + ROWS - 1) / ROWS));

    forward_kernel<T, Y><<<grid, THREADS, 0, stream>>>(l->rows, l->in, l->out, l->activation, (const T *)x,
                                                       (const T *)weight, bias, (Y *)y);
    return cudaGetLastError();
}

template <typename T, typename W>
cudaError_t gradient(cudaStream_t stream, const few_rows_launch *l, const void *dy, const void *x, void *dweight,
                     void *dbias, enum number bias_number)
{
    int items = l->out * (l->in / V);

    gradient_kernel<T, W><<<(items + THREADS - 1) / THREADS, THREADS, 0, stream>>>(
        l->rows, l->in, l->out, (const T *)dy, (const T *)x, (W *)dweight, dbias, bias_number == NUMBER_BF16);
    return cudaGetLastError();
}

/* T for the input's numbers, Y for the result's. */
#define BY_NUMBERS(l, call)                                                                                            \
    ((l)->number == NUMBER_F32 ? call(float, float) : (l)->result == NUMBER_F32 ? call(bf16, float) : call(bf16, bf16))

} // namespace

cudaError_t few_rows_forward(cudaStream_t stream, const struct few_rows_launch *l, const void *x, const void *weight,
                             const float *bias, void *y)
{
#define CALL(T, Y) forward<T, Y>(stream, l, x, weight, bias, y)
    return BY_NUMBERS(l, CALL);
#undef CALL
}

cudaError_t few_rows_gradient(cudaStream_t stream, const struct few_rows_launch *l, const void *dy, const void *x,
                              void *dweight, void *dbias, enum number bias_number)
{
#define CALL(T, W) gradient<T, W>(stream, l, dy, x, dweight, dbias, bias_number)
    return BY_NUMBERS(l, CALL);
#undef CALL
}
