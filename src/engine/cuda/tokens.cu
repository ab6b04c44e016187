/* tokens.cu - patches of images, tokens with their position embedding, the first token. See launch.h */
#include "engine/cuda/numbers.cuh"

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

/* The pixel number that number `to` of the patches comes from. */
__device__ inline int64_t pixel_of(const patches_launch &p, int64_t to)
{
    int64_t column = to % p.size, line = to / p.size % p.size, channel = to / (p.size * p.size) % p.channels;
    int64_t patch = to / ((int64_t)p.size * p.size * p.channels), across = p.w / p.size;
    int64_t row = patch / across * p.size + line; /* of all images, one under the other */

    return (row * p.w + patch % across * p.size + column) * p.channels + channel;
}

/* V neighbours of the result are V pixels of one channel and line. */
template <typename T, int V> __global__ void patches_of_bytes(patches_launch p, int64_t count, const uint8_t *x, T *y)
{
    EACH(item, count / V)
    {
        int64_t from = pixel_of(p, item * V);
        vec<V> value;

#pragma unroll
        for (int i = 0; i < V; i++)
            value.v[i] = (float)x[from + i * p.channels] / 255;
        store<V>(y + item * V, value);
    }
}

template <typename T> __global__ void patches_of_numbers(patches_launch p, int64_t count, const T *x, T *y)
{
    EACH(to, count)
    {
        y[to] = x[pixel_of(p, to)];
    }
}

template <typename T> __global__ void patches_back(patches_launch p, int64_t count, const T *dy, T *dx)
{
    EACH(to, count)
    {
        dx[pixel_of(p, to)] = dy[to];
    }
}

template <typename T, int V>
__global__ void tokens_kernel(int64_t count, int tokens, int channels, const T *x, const float *first, const float *pos,
                              T *y)
{
    EACH(item, count / V)
    {
        int64_t at = item * V, row = at / channels, n = row / tokens;
        int c = (int)(at % channels), i = (int)(row % tokens);
        vec<V> value = i ? load<V>(x + (row - n - 1) * channels + c) : load<V>(first + c);
        vec<V> add = load<V>(pos + (int64_t)i * channels + c);

#pragma unroll
        for (int k = 0; k < V; k++)
            value.v[k] += add.v[k];
        store<V>(y + at, value);
    }
}

/* A thread goes through all images for V numbers of one token: sums for the embedding, and a copy. */
template <typename T, int V>
__global__ void tokens_back(int images, int tokens, int channels, const T *dy, T *dx, T *dfirst, T *dpos)
{
    int64_t image = (int64_t)tokens * channels;

    EACH(item, image / V)
    {
        int64_t at = item * V;
        vec<V> sum = {};

#pragma unroll 4
        for (int n = 0; n < images; n++) {
            vec<V> value = load<V>(dy + n * image + at);

            if (at >= channels)
                store<V>(dx + n * (image - channels) + at - channels, value);
#pragma unroll
            for (int k = 0; k < V; k++)
                sum.v[k] += value.v[k];
        }
        store<V>(dpos + at, sum);
        if (at < channels)
            store<V>(dfirst + at, sum);
    }
}

template <typename T> __global__ void first_kernel(int64_t count, int64_t image, int channels, const T *x, T *y)
{
    EACH(i, count)
    {
        y[i] = x[i / channels * image + i % channels];
    }
}

template <typename T, int V> __global__ void first_back(int64_t count, int64_t image, int channels, const T *dy, T *dx)
{
    EACH(item, count / V)
    {
        int64_t at = item * V, inside = at % image;
        vec<V> value = {};

        if (inside < channels)
            value = load<V>(dy + at / image * channels + inside);
        store<V>(dx + at, value);
    }
}

} // namespace

cudaError_t patches(cudaStream_t stream, enum number number, const struct patches_launch *p, bool bytes, const void *x,
                    void *y)
{
    int64_t count = (int64_t)p->n * p->h * p->w * p->channels;

#define BYTES(T, V)                                                                                                    \
    (patches_of_bytes<T, V><<<blocks_for(count / V), THREADS, 0, stream>>>(*p, count, (const uint8_t *)x, (T *)y),     \
     cudaGetLastError())
    if (bytes)
        return DISPATCH(number, p->size, BYTES);
#undef BYTES
    if (number == NUMBER_BF16)
        patches_of_numbers<<<blocks_for(count), THREADS, 0, stream>>>(*p, count, (const bf16 *)x, (bf16 *)y);
    else
        patches_of_numbers<<<blocks_for(count), THREADS, 0, stream>>>(*p, count, (const float *)x, (float *)y);
    return cudaGetLastError();
}

cudaError_t patches_backward(cudaStream_t stream, enum number number, const struct patches_launch *p, const void *dy,
                             void *dx)
{
    int64_t count = (int64_t)p->n * p->h * p->w * p->channels;

    if (number == NUMBER_BF16)
        patches_back<<<blocks_for(count), THREADS, 0, stream>>>(*p, count, (const bf16 *)dy, (bf16 *)dx);
    else
        patches_back<<<blocks_for(count), THREADS, 0, stream>>>(*p, count, (const float *)dy, (float *)dx);
    return cudaGetLastError();
}

cudaError_t tokens(cudaStream_t stream, enum number number, const struct tokens_launch *t, const void *x,
                   const float *class_token, const float *pos_embedding, void *y)
{
    int64_t count = (int64_t)t->n * t->tokens * t->channels;

#define CALL(T, V)                                                                                                     \
    (tokens_kernel<T, V><<<blocks_for(count / V), THREADS, 0, stream>>>(count, t->tokens, t->channels, (const T *)x,   \
                                                                        class_token, pos_embedding, (T *)y),           \
     cudaGetLastError())
    return DISPATCH(number, t->channels, CALL);
#undef CALL
}

cudaError_t tokens_backward(cudaStream_t stream, enum number number, const struct tokens_launch *t, const void *dy,
                            void *dx, void *dclass_token, void *dpos_embedding)
{
    int64_t count = (int64_t)t->tokens * t->channels;

#define CALL(T, V)                                                                                                     \
    (tokens_back<T, V><<<blocks_for(count / V), THREADS, 0, stream>>>(                                                 \
         t->n, t->tokens, t->channels, (const T *)dy, (T *)dx, (T *)dclass_token, (T *)dpos_embedding),                \
     cudaGetLastError())
    return DISPATCH(number, t->channels, CALL);
#undef CALL
}

cudaError_t first_token(cudaStream_t stream, enum number number, const struct tokens_launch *t, const void *x, void *y)
{
    int64_t count = (int64_t)t->n * t->channels, image = (int64_t)t->tokens * t->channels;

    if (number == NUMBER_BF16)
        first_kernel<<<blocks_for(count), THREADS, 0, stream>>>(count, image, t->channels, (const bf16 *)x, (bf16 *)y);
    else
        first_kernel<<<blocks_for(count), THREADS, 0, stream>>>(count, image, t->channels, (const float *)x,
                                                                (float *)y);
    return cudaGetLastError();
}

cudaError_t first_token_backward(cudaStream_t stream, enum number number, const struct tokens_launch *t, const void *dy,
                                 void *dx)
{
    int64_t image = (int64_t)t->tokens * t->channels, count = t->n * image;

#define CALL(T, V)                                                                                                     \
    (first_back<T, V>                                                                                                  \
     <<<blocks_for(count / V), THREADS, 0, stream>>>(count, image, t->channels, (const T *)dy, (T *)dx),               \
     cudaGetLastError())
    return DISPATCH(number, t->channels, CALL);
#undef CALL
}
