/* elementwise.cu - kernels that treat every number, or every row of weights, alone. See launch.h */
#include "base/philox.h"
#include "engine/cuda/activation.cuh"
#include "engine/cuda/gelu.cuh"

namespace
{

enum { THREADS = 256 };

unsigned blocks_for(int64_t items)
{
    int64_t blocks = (items + THREADS - 1) / THREADS;

    return (unsigned)(blocks < 1 ? 1 : blocks < 1 << 20 ? blocks : 1 << 20);
}

#define EACH(i, count)                                                                                                 \
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < (count); i += (int64_t)gridDim.x * THREADS)

template <typename T> __global__ void image_kernel(const uint8_t *x, int64_t rows, int channels, T *y)
{
    EACH(row, rows)
    {
        for (int c = 0; c < channels; c++)
            y[row * channels + c] = from_float<T>(c < 3 ? (float)x[row * 3 + c] / 255 : 0);
    }
}

/* Four pixels a thread, three words of bytes, to C channels each. */
template <typename T, int C> __global__ void image_kernel4(const uint32_t *x, int64_t rows, T *y)
{
    EACH(item, rows / 4)
    {
        uint32_t words[3] = {x[item * 3], x[item * 3 + 1], x[item * 3 + 2]};

#pragma unroll
        for (int pixel = 0; pixel < 4; pixel++) {
            alignas(16) T values[C];

#pragma unroll
            for (int c = 0; c < C; c++) {
                int byte = pixel * 3 + c;

                values[c] = from_float<T>(c < 3 ? (float)(words[byte / 4 % 3] >> byte % 4 * 8 & 255) / 255 : 0);
            }
            *reinterpret_cast<uint4 *>(y + (item * 4 + pixel) * C) = *reinterpret_cast<uint4 *>(values);
        }
    }
}

/* A vector of a bias that holds either kind of numbers. */
template <int V> __device__ inline vec<V> load_bias(const void *bias, bool half, int64_t at)
{
    return half ? load<V>((const bf16 *)bias + at) : load<V>((const float *)bias + at);
}

template <typename In, typename Out, int V>
__global__ void epilogue_kernel(const In *x, int64_t count, int channels, const void *bias, bool half_bias,
                                const In *residual, enum activation activation, Out *y)
{
    EACH(item, count / V)
    {
        int64_t at = item * V;
        vec<V> value = load<V>(x + at);

        if (bias) {
            vec<V> b = load_bias<V>(bias, half_bias, at % channels);

#pragma unroll
            for (int i = 0; i < V; i++)
                value.v[i] += b.v[i];
        }
        if (residual) {
            vec<V> r = load<V>(residual + at);

#pragma unroll
            for (int i = 0; i < V; i++)
                value.v[i] += r.v[i];
        }
        activate<V>(activation, value);
        store<V>(y + at, value);
    }
}

template <typename T, int V>
__global__ void activation_backward_kernel(enum activation activation, const T *dy, const T *at, int64_t count, T *dx)
{
    EACH(item, count / V)
    {
        vec<V> d = load<V>(dy + item * V), value = load<V>(at + item * V);

#pragma unroll
        for (int i = 0; i < V; i++)
            d.v[i] *= slope(activation, value.v[i]);
        store<V>(dx + item * V, d);
    }
}

/* Is this element kept? words: of its block of four, `block`, drawn when another one begins. */
struct draws {
    uint64_t block;
    uint32_t words[4];
};

__device__ inline bool is_kept(const dropout_launch &d, int64_t step, uint32_t threshold, uint64_t element,
                               draws &drawn)
{
    if (drawn.block != element / 4) {
        drawn.block = element / 4;
        philox_dropout(d.seed, d.op, step, drawn.block, drawn.words);
    }
    return drawn.words[element % 4] >= threshold;
}

template <typename T, int V> __global__ void dropout_kernel(dropout_launch d, const T *x, const T *residual, T *y)
{
    int64_t step = *d.step;
    uint32_t threshold = philox_threshold(d.p);
    float scale = 1 / (1 - d.p);
    draws drawn = {UINT64_MAX, {}};

    EACH(item, d.count / V)
    {
        int64_t at = item * V;
        vec<V> value = load<V>(x + at), add = {};

        if (residual)
            add = load<V>(residual + at);
#pragma unroll
        for (int i = 0; i < V; i++) {
            uint64_t element = (uint64_t)(d.row ? (at + i) / d.row : at + i);

            value.v[i] = (is_kept(d, step, threshold, element, drawn) ? value.v[i] * scale : 0) + add.v[i];
        }
        store<V>(y + at, value);
    }
}

template <typename T>
__global__ void pack_kernel(const float *oihw, int64_t count, int in, int area, int padded, T *packed)
{
    EACH(at, count)
    {
        int i = (int)(at % padded), k = (int)(at / padded % area);
        int64_t o = at / padded / area;

        packed[at] = from_float<T>(i < in ? oihw[(o * in + i) * area + k] : 0);
    }
}

template <typename T>
__global__ void unpack_kernel(const T *packed, int64_t count, int in, int area, int padded, float *oihw)
{
    EACH(at, count)
    {
        int k = (int)(at % area), i = (int)(at / area % in);
        int64_t o = at / area / in;

        oihw[at] = to_float<T>(packed[(o * area + k) * padded + i]);
    }
}

template <typename T> __global__ void channels_kernel(const T *x, int64_t count, int from, int to, T *y)
{
    EACH(at, count)
    {
        int c = (int)(at % to);

        y[at] = c < from ? x[at / to * from + c] : from_float<T>(0);
    }
}

template <typename From, typename To> __global__ void copy_kernel(const From *x, To *y, int64_t count)
{
    EACH(i, count) y[i] = from_float<To>(to_float<From>(x[i]));
}

template <typename T> __global__ void fold_kernel(fold_launch f)
{
    EACH(i, f.out * f.row)
    {
        int64_t o = i / f.row;
        float scale = f.bn_weight[o] / sqrtf(f.running_var[o] + f.eps);

        ((T *)f.weight2)[i] = from_float<T>(scale * f.weight[i]);
        if (i % f.row == 0)
            ((T *)f.bias2)[o] = from_float<T>(f.bn_bias[o] + scale * ((f.bias ? f.bias[o] : 0) - f.running_mean[o]));
    }
}

template <typename T> __global__ void fill_kernel(T *x, int64_t count)
{
    EACH(i, count)
    {
        uint32_t h = (uint32_t)i * 2654435761u;

        h ^= h >> 15;
        h *= 2246822519u;
        h ^= h >> 13;
        x[i] = from_float<T>(((float)(h & 0xFFFF) - 32768) * (1.0f / 32768));
    }
}

__global__ void pause_kernel(long long ns)
{
    long long begin, now;

    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
    do
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    while (now - begin < ns);
}

} // namespace

cudaError_t image_convert(cudaStream_t stream, enum number number, const uint8_t *x, int64_t rows, int channels,
                          void *y)
{
    if (channels == 8 && number == NUMBER_BF16 && rows % 4 == 0)
        image_kernel4<bf16, 8><<<blocks_for(rows / 4), THREADS, 0, stream>>>((const uint32_t *)x, rows, (bf16 *)y);
    else if (channels == 4 && number == NUMBER_F32 && rows % 4 == 0)
        image_kernel4<float, 4><<<blocks_for(rows / 4), THREADS, 0, stream>>>((const uint32_t *)x, rows, (float *)y);
    else if (number == NUMBER_BF16)
        image_kernel<<<blocks_for(rows), THREADS, 0, stream>>>(x, rows, channels, (bf16 *)y);
    else
        image_kernel<<<blocks_for(rows), THREADS, 0, stream>>>(x, rows, channels, (float *)y);
    return cudaGetLastError();
}

template <typename In, typename Out>
static void launch_epilogue(cudaStream_t stream, const void *x, int64_t count, int channels, const void *bias,
                            bool half_bias, const void *residual, enum activation activation, void *y)
{
    if (channels % 8)
        epilogue_kernel<In, Out, 1><<<blocks_for(count), THREADS, 0, stream>>>(
            (const In *)x, count, channels, bias, half_bias, (const In *)residual, activation, (Out *)y);
    else
        epilogue_kernel<In, Out, 8><<<blocks_for(count / 8), THREADS, 0, stream>>>(
            (const In *)x, count, channels, bias, half_bias, (const In *)residual, activation, (Out *)y);
}

cudaError_t epilogue(cudaStream_t stream, enum number in, enum number out, const void *x, int64_t rows, int channels,
                     const void *bias, enum number bias_number, const void *residual, enum activation activation,
                     void *y)
{
    int64_t count = rows * channels;
    bool half = bias_number == NUMBER_BF16;

    if (activation == ACTIVATION_GELU && !bias && !residual && in == out && gelu_fits(count))
        return gelu_forward(stream, in, x, count, y);
    if (in == NUMBER_BF16 && out == NUMBER_BF16)
        launch_epilogue<bf16, bf16>(stream, x, count, channels, bias, half, residual, activation, y);
    else if (in == NUMBER_BF16)
        launch_epilogue<bf16, float>(stream, x, count, channels, bias, half, residual, activation, y);
    else if (out == NUMBER_BF16)
        launch_epilogue<float, bf16>(stream, x, count, channels, bias, half, residual, activation, y);
    else
        launch_epilogue<float, float>(stream, x, count, channels, bias, half, residual, activation, y);
    return cudaGetLastError();
}

cudaError_t activation_backward(cudaStream_t stream, enum number number, enum activation activation, const void *dy,
                                const void *at, int64_t count, void *dx)
{
    if (activation == ACTIVATION_GELU && gelu_fits(count))
        return gelu_backward(stream, number, dy, at, count, dx);
#define CALL(T, V)                                                                                                     \
    (activation_backward_kernel<T, V>                                                                                  \
     <<<blocks_for(count / V), THREADS, 0, stream>>>(activation, (const T *)dy, (const T *)at, count, (T *)dx),        \
     cudaGetLastError())
    return DISPATCH(number, count, CALL);
#undef CALL
}

cudaError_t dropout(cudaStream_t stream, const struct dropout_launch *d, const void *x, const void *residual, void *y)
{
#define CALL(T, V)                                                                                                     \
    (dropout_kernel<T, V>                                                                                              \
     <<<blocks_for(d->count / V), THREADS, 0, stream>>>(*d, (const T *)x, (const T *)residual, (T *)y),                \
     cudaGetLastError())
    return DISPATCH(d->number, d->count, CALL);
#undef CALL
}

/* f<float> or f<bf16> as `number` says. */
#define BY_NUMBER(number, call) ((number) == NUMBER_BF16 ? call(bf16) : call(float))

cudaError_t weight_pack(cudaStream_t stream, const float *oihw, int64_t out, int in, int area, int padded,
                        enum number number, void *packed)
{
    int64_t count = out * area * padded;

#define CALL(T)                                                                                                        \
    (pack_kernel<T><<<blocks_for(count), THREADS, 0, stream>>>(oihw, count, in, area, padded, (T *)packed),            \
     cudaGetLastError())
    return BY_NUMBER(number, CALL);
#undef CALL
}

cudaError_t weight_unpack(cudaStream_t stream, enum number number, const void *packed, int64_t out, int in, int area,
                          int padded, float *oihw)
{
    int64_t count = out * in * area;

#define CALL(T)                                                                                                        \
    (unpack_kernel<T><<<blocks_for(count), THREADS, 0, stream>>>((const T *)packed, count, in, area, padded, oihw),    \
     cudaGetLastError())
    return BY_NUMBER(number, CALL);
#undef CALL
}

cudaError_t channels_copy(cudaStream_t stream, enum number number, const void *x, int64_t rows, int from, int to,
                          void *y)
{
    int64_t count = rows * to;

#define CALL(T)                                                                                                        \
    (channels_kernel<T><<<blocks_for(count), THREADS, 0, stream>>>((const T *)x, count, from, to, (T *)y),             \
     cudaGetLastError())
    return BY_NUMBER(number, CALL);
#undef CALL
}

cudaError_t numbers_copy(cudaStream_t stream, enum number from, const void *x, enum number to, void *y, int64_t count)
{
    unsigned blocks = blocks_for(count);

    if (from == NUMBER_BF16 && to == NUMBER_F32)
        copy_kernel<<<blocks, THREADS, 0, stream>>>((const bf16 *)x, (float *)y, count);
    else if (from == NUMBER_F32 && to == NUMBER_BF16)
        copy_kernel<<<blocks, THREADS, 0, stream>>>((const float *)x, (bf16 *)y, count);
    else
        return cudaMemcpyAsync(y, x, (size_t)count * (to == NUMBER_BF16 ? 2 : 4), cudaMemcpyDeviceToDevice, stream);
    return cudaGetLastError();
}

cudaError_t fold_batch_norm(cudaStream_t stream, const struct fold_launch *f)
{
    if (f->number == NUMBER_BF16)
        fold_kernel<bf16><<<blocks_for(f->out * f->row), THREADS, 0, stream>>>(*f);
    else
        fold_kernel<float><<<blocks_for(f->out * f->row), THREADS, 0, stream>>>(*f);
    return cudaGetLastError();
}

cudaError_t numbers_fill(cudaStream_t stream, enum number number, void *x, int64_t count)
{
#define CALL(T) (fill_kernel<T><<<blocks_for(count), THREADS, 0, stream>>>((T *)x, count), cudaGetLastError())
    return BY_NUMBER(number, CALL);
#undef CALL
}

cudaError_t device_pause(cudaStream_t stream, int us)
{
    pause_kernel<<<1, 1, 0, stream>>>(1000LL * us);
    return cudaGetLastError();
}
