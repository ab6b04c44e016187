/* depthwise.cu - depthwise convolutions, forward and backward, at the speed of memory where cuDNN's are far from it.
 * See launch.h
 *
 * Forward and gradient of the input: a thread makes a few neighbours of a row for 8 channels, so that what it reads
 * serves several of them; a block keeps to a few vectors of channels, whose weights it has in shared memory as floats.
 * With stride 1 the gradient of the input is the same with the kernel turned around. Gradient of the weight: a thread
 * goes over its share of the images with one sum for every position of the kernel, blocks add up their threads', a
 * second kernel adds the blocks' in order. */
#include "engine/cuda/activation.cuh"

namespace
{

enum { V = 8, THREADS = 256, MOST_VECTORS = 8, LEAST_VECTORS = 2, WAVES = 8, PROCESSORS = 132 };

/* How the channels are cut among blocks: `vectors` of V channels a block, `rows` tiles at once. */
struct channel_cut {
    int blocks, vectors, rows;
};

/* Too little for all processors: smaller blocks and tiles are faster, though they read more often. */
bool is_small(int64_t numbers)
{
    return numbers / (4 * V) < PROCESSORS * THREADS;
}

channel_cut cut_channels(int channels, bool small)
{
    int vectors = channels / V, most = small ? LEAST_VECTORS : MOST_VECTORS;
    channel_cut c;

    c.blocks = (vectors + most - 1) / most;
    c.vectors = (vectors + c.blocks - 1) / c.blocks;
    c.rows = THREADS / c.vectors;
    return c;
}

/* The weights of this block's channels, (position, channel), turned around if asked. */
template <typename T, int K>
__device__ void load_weights(const T *weight, int first, int channels, int count, bool turned, float *shared)
{
    for (int i = threadIdx.x; i < K * K * count; i += blockDim.x) {
        int c = i / (K * K), k = turned ? K * K - 1 - i % (K * K) : i % (K * K);

        shared[k * count + c] = first + c < channels ? to_float(weight[first * K * K + i]) : 0;
    }
    __syncthreads();
}

/* Which tile a thread has: TW neighbours of a row. */
struct tile {
    int n, row, column;
};

template <int TW> __device__ tile tile_of(int64_t index, int height, int width)
{
    int columns = (width + TW - 1) / TW;

    return {(int)(index / columns / height), (int)(index / columns % height), (int)(index % columns) * TW};
}

/* What is outside of the image is 0. The load itself is unconditional, from somewhere, so that many are under way at
 * once. */
template <typename T> __device__ inline vec<V> load_inside(bool inside, const T *p, const T *somewhere)
{
    vec<V> value = load<V>(inside ? p : somewhere);

#pragma unroll
    for (int i = 0; i < V; i++)
        value.v[i] = inside ? value.v[i] : 0;
    return value;
}

__device__ inline void multiply_add(const vec<V> &x, const float *weight, vec<V> &sum)
{
    float4 a = *reinterpret_cast<const float4 *>(weight), b = *reinterpret_cast<const float4 *>(weight + 4);

    sum.v[0] += x.v[0] * a.x, sum.v[1] += x.v[1] * a.y, sum.v[2] += x.v[2] * a.z, sum.v[3] += x.v[3] * a.w;
    sum.v[4] += x.v[4] * b.x, sum.v[5] += x.v[5] * b.y, sum.v[6] += x.v[6] * b.z, sum.v[7] += x.v[7] * b.w;
}

/* y = act(conv(x) + bias): K by K, stride S, padding K / 2. */
template <typename T, int K, int S, int TW>
__global__ void __launch_bounds__(THREADS)
    forward_kernel(direct_launch d, depthwise_epilogue e, bool turned, int vectors, const T *__restrict__ x,
                   const T *__restrict__ weight, T *__restrict__ y)
{
    __shared__ __align__(16) float shared[K * K * MOST_VECTORS * V];
    int lane = threadIdx.x % vectors, rows = blockDim.x / vectors, channels = d.c;
    int first = blockIdx.x * vectors * V, c = first + lane * V;
    int64_t tiles = (int64_t)d.n * d.oh * ((d.ow + TW - 1) / TW);
    vec<V> bias = {};

    load_weights<T, K>(weight, first, channels, vectors * V, turned, shared);
    if (c >= channels)
        return;
    if (e.bias)
        bias = e.bias_number == NUMBER_BF16 ? load<V>((const bf16 *)e.bias + c) : load<V>((const float *)e.bias + c);
    for (int64_t index = (int64_t)blockIdx.y * rows + threadIdx.x / vectors; index < tiles;
         index += (int64_t)gridDim.y * rows) {
        const tile t = tile_of<TW>(index, d.oh, d.ow);
        vec<V> sum[TW];

#pragma unroll
        for (int i = 0; i < TW; i++)
            sum[i] = bias;
#pragma unroll 1
        for (int kh = 0; kh < K; kh++) {
            int ih = t.row * S - K / 2 + kh, iw = t.column * S - K / 2;
            const T *from = x + (((int64_t)t.n * d.h + ih) * d.w + iw) * channels + c;

            if (ih < 0 || ih >= d.h)
                continue;
#pragma unroll
            for (int j = 0; j < (TW - 1) * S + K; j++) {
                vec<V> value = load_inside(iw + j >= 0 && iw + j < d.w, from + (int64_t)j * channels, x);

#pragma unroll
                for (int i = 0; i < TW; i++)
                    if (j - i * S >= 0 && j - i * S < K)
                        multiply_add(value, shared + (kh * K + j - i * S) * vectors * V + lane * V, sum[i]);
            }
        }
#pragma unroll
        for (int i = 0; i < TW; i++)
            if (t.column + i < d.ow) {
                activate<V>(e.activation, sum[i]);
                store<V>(y + (((int64_t)t.n * d.oh + t.row) * d.ow + t.column + i) * channels + c, sum[i]);
            }
    }
}

/* dx with stride 2: of the positions of the kernel every other one meets an output, by row and column. */
template <typename T, int K, int TW>
__global__ void __launch_bounds__(THREADS) strided_data_kernel(direct_launch d, int vectors, const T *__restrict__ dy,
                                                               const T *__restrict__ weight, T *__restrict__ dx)
{
    enum { P = K / 2, FIRST = -(P / 2), LAST = (TW - 1 + P) / 2 };
    __shared__ __align__(16) float shared[K * K * MOST_VECTORS * V];
    int lane = threadIdx.x % vectors, rows = blockDim.x / vectors, channels = d.c;
    int first = blockIdx.x * vectors * V, c = first + lane * V;
    int64_t tiles = (int64_t)d.n * d.h * ((d.w + TW - 1) / TW);

    load_weights<T, K>(weight, first, channels, vectors * V, false, shared);
    if (c >= channels)
        return;
    for (int64_t index = (int64_t)blockIdx.y * rows + threadIdx.x / vectors; index < tiles;
         index += (int64_t)gridDim.y * rows) {
        const tile t = tile_of<TW>(index, d.h, d.w);
        vec<V> sum[TW] = {};

        for (int kh = (t.row + P) % 2; kh < K; kh += 2) {
            int oh = (t.row + P - kh) / 2, ow = t.column / 2;
            const T *from = dy + (((int64_t)t.n * d.oh + oh) * d.ow + ow) * channels + c;

            if (t.row + P < kh || oh >= d.oh)
                continue;
#pragma unroll
            for (int j = FIRST; j <= LAST; j++) {
                vec<V> value = load_inside(ow + j >= 0 && ow + j < d.ow, from + (int64_t)j * channels, dy);

#pragma unroll
                for (int i = 0; i < TW; i++)
                    if (i + P - 2 * j >= 0 && i + P - 2 * j < K)
                        multiply_add(value, shared + (kh * K + i + P - 2 * j) * vectors * V + lane * V, sum[i]);
            }
        }
#pragma unroll
        for (int i = 0; i < TW; i++)
            if (t.column + i < d.w)
                store<V>(dx + (((int64_t)t.n * d.h + t.row) * d.w + t.column + i) * channels + c, sum[i]);
    }
}

/* Two neighbouring numbers. */
__device__ inline float2 load2(const float *p)
{
    return *reinterpret_cast<const float2 *>(p);
}

__device__ inline float2 load2(const bf16 *p)
{
    return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162 *>(p));
}

template <typename T> __device__ inline float2 load2_inside(bool inside, const T *p, const T *somewhere)
{
    float2 value = load2(inside ? p : somewhere);

    return inside ? value : make_float2(0, 0);
}

/* partial[part][c][k]: sums over a part of the tiles of dy x, for two channels a thread. lanes: threads along channels.
 */
template <typename T, int K, int S, int TW>
__global__ void __launch_bounds__(THREADS)
    weight_kernel(direct_launch d, int lanes, const T *__restrict__ dy, const T *__restrict__ x, float *partial)
{
    enum { IN = (TW - 1) * S + K };
    __shared__ float2 shared[K][THREADS];
    int lane = threadIdx.x % lanes, row = threadIdx.x / lanes, rows = THREADS / lanes;
    int channels = d.c, c = (blockIdx.x * lanes + lane) * 2;
    int64_t tiles = (int64_t)d.n * d.oh * ((d.ow + TW - 1) / TW);
    float2 sum[K * K] = {};

    if (c < channels)
        for (int64_t index = (int64_t)blockIdx.y * rows + row; index < tiles; index += (int64_t)gridDim.y * rows) {
            const tile t = tile_of<TW>(index, d.oh, d.ow);
            const T *out = dy + (((int64_t)t.n * d.oh + t.row) * d.ow + t.column) * channels + c;
            float2 g[TW];

#pragma unroll
            for (int i = 0; i < TW; i++)
                g[i] = load2_inside(t.column + i < d.ow, out + (int64_t)i * channels, dy);
#pragma unroll
            for (int kh = 0; kh < K; kh++) {
                int ih = t.row * S - K / 2 + kh, iw = t.column * S - K / 2;
                const T *from = x + (((int64_t)t.n * d.h + ih) * d.w + iw) * channels + c;
                bool row_inside = ih >= 0 && ih < d.h;

#pragma unroll
                for (int j = 0; j < IN; j++) {
                    float2 value =
                        load2_inside(row_inside && iw + j >= 0 && iw + j < d.w, from + (int64_t)j * channels, x);

#pragma unroll
                    for (int i = 0; i < TW; i++)
                        if (j - i * S >= 0 && j - i * S < K) {
                            sum[kh * K + j - i * S].x += value.x * g[i].x;
                            sum[kh * K + j - i * S].y += value.y * g[i].y;
                        }
                }
            }
        }
#pragma unroll
    for (int kh = 0; kh < K; kh++) { /* a row of the kernel at a time */
        __syncthreads();
#pragma unroll
        for (int kw = 0; kw < K; kw++)
            shared[kw][threadIdx.x] = sum[kh * K + kw];
        __syncthreads();
        for (int i = threadIdx.x; i < K * lanes; i += THREADS) {
            int kw = i / lanes, at = (blockIdx.x * lanes + i % lanes) * 2;
            float2 total = shared[kw][i % lanes];

            for (int r = 1; r < rows; r++) {
                total.x += shared[kw][r * lanes + i % lanes].x;
                total.y += shared[kw][r * lanes + i % lanes].y;
            }
            if (at < channels) {
                partial[((int64_t)blockIdx.y * channels + at) * K * K + kh * K + kw] = total.x;
                partial[((int64_t)blockIdx.y * channels + at + 1) * K * K + kh * K + kw] = total.y;
            }
        }
    }
}

/* dweight[i] = the sum over all parts, in order: 32 numbers a block, 8 shares of the parts. */
template <typename W> __global__ void add_parts(const float *partial, int parts, int count, W *dweight)
{
    enum { SHARES = THREADS / 32 };
    __shared__ float shared[SHARES][32];
    int at = blockIdx.x * 32 + threadIdx.x % 32, share = threadIdx.x / 32;
    float sum = 0;

    if (at < count)
#pragma unroll 4
        for (int part = share; part < parts; part += SHARES)
            sum += partial[(int64_t)part * count + at];
    shared[share][threadIdx.x % 32] = sum;
    __syncthreads();
    if (share || at >= count)
        return;
    for (int i = 1; i < SHARES; i++)
        sum += shared[i][threadIdx.x];
    dweight[at] = from_float<W>(sum);
}

unsigned parts_of(int64_t tiles, int rows, int blocks)
{
    int64_t wanted = (tiles + rows - 1) / rows, most = (WAVES * PROCESSORS + blocks - 1) / blocks;

    return (unsigned)(wanted < most ? wanted : most);
}

template <typename T, int K, int S, int TW>
cudaError_t launch_forward(cudaStream_t stream, const direct_launch *d, const depthwise_epilogue &e, bool turned,
                           bool small, const void *x, const void *weight, void *y)
{
    const channel_cut c = cut_channels(d->c, small);
    int64_t tiles = (int64_t)d->n * d->oh * ((d->ow + TW - 1) / TW);

    forward_kernel<T, K, S, TW><<<dim3(c.blocks, parts_of(tiles, c.rows, c.blocks)), c.vectors * c.rows, 0, stream>>>(
        *d, e, turned, c.vectors, (const T *)x, (const T *)weight, (T *)y);
    return cudaGetLastError();
}

template <typename T, int K, int S>
cudaError_t forward(cudaStream_t stream, const direct_launch *d, const depthwise_epilogue &e, bool turned,
                    const void *x, const void *weight, void *y)
{
    if (is_small((int64_t)d->n * d->oh * d->ow * d->c))
        return launch_forward<T, K, S, 1>(stream, d, e, turned, true, x, weight, y);
    return launch_forward < T, K, S, S == 1 ? 4 : 2 > (stream, d, e, turned, false, x, weight, y);
}

template <typename T, int K, int TW>
cudaError_t launch_strided(cudaStream_t stream, const direct_launch *d, bool small, const void *dy, const void *weight,
                           void *dx)
{
    const channel_cut c = cut_channels(d->c, small);
    int64_t tiles = (int64_t)d->n * d->h * ((d->w + TW - 1) / TW);

    strided_data_kernel<T, K, TW><<<dim3(c.blocks, parts_of(tiles, c.rows, c.blocks)), c.vectors * c.rows, 0, stream>>>(
        *d, c.vectors, (const T *)dy, (const T *)weight, (T *)dx);
    return cudaGetLastError();
}

template <typename T, int K>
cudaError_t strided_data(cudaStream_t stream, const direct_launch *d, const void *dy, const void *weight, void *dx)
{
    if (is_small((int64_t)d->n * d->h * d->w * d->c))
        return launch_strided<T, K, 2>(stream, d, true, dy, weight, dx);
    return launch_strided<T, K, 4>(stream, d, false, dy, weight, dx);
}

template <typename T, int K, int S>
cudaError_t weight_gradient(cudaStream_t stream, const direct_launch *d, const void *dy, const void *x, void *scratch,
                            void *dweight)
{
    const depthwise_cut c = depthwise_cut_of(d->n, d->oh, d->ow, d->c);
    int count = d->c * K * K;
    float *partial = (float *)scratch;

    weight_kernel<T, K, S, DEPTHWISE_TILE>
        <<<dim3(c.blocks, c.parts), THREADS, 0, stream>>>(*d, c.lanes, (const T *)dy, (const T *)x, partial);
    if (d->weight_number == NUMBER_BF16)
        add_parts<<<(count + 31) / 32, THREADS, 0, stream>>>(partial, c.parts, count, (bf16 *)dweight);
    else
        add_parts<<<(count + 31) / 32, THREADS, 0, stream>>>(partial, c.parts, count, (float *)dweight);
    return cudaGetLastError();
}

/* Calls with T, K and S of the launch at hand. */
#define BY_SHAPE(d, call)                                                                                              \
    ((d)->number == NUMBER_BF16                                                                                        \
         ? ((d)->kernel[0] == 3 ? ((d)->stride[0] == 1 ? call(bf16, 3, 1) : call(bf16, 3, 2))                          \
                                : ((d)->stride[0] == 1 ? call(bf16, 5, 1) : call(bf16, 5, 2)))                         \
         : ((d)->kernel[0] == 3 ? ((d)->stride[0] == 1 ? call(float, 3, 1) : call(float, 3, 2))                        \
                                : ((d)->stride[0] == 1 ? call(float, 5, 1) : call(float, 5, 2))))

} // namespace

bool depthwise_fits(const struct direct_launch *d)
{
    int k = d->kernel[0], s = d->stride[0];

    return d->groups == d->c && d->o == d->c && d->c % V == 0 && (k == 3 || k == 5) && d->kernel[1] == k &&
           (s == 1 || s == 2) && d->stride[1] == s && d->padding[0] == k / 2 && d->padding[1] == k / 2;
}

cudaError_t depthwise_forward(cudaStream_t stream, const struct direct_launch *d, const struct depthwise_epilogue *e,
                              const void *x, const void *weight, void *y)
{
#define CALL(T, K, S) forward<T, K, S>(stream, d, *e, false, x, weight, y)
    return BY_SHAPE(d, CALL);
#undef CALL
}

cudaError_t depthwise_backward_data(cudaStream_t stream, const struct direct_launch *d, const void *dy,
                                    const void *weight, void *dx)
{
    const depthwise_epilogue none = {};

#define CALL(T, K, S)                                                                                                  \
    (S == 1 ? forward<T, K, 1>(stream, d, none, true, dy, weight, dx) : strided_data<T, K>(stream, d, dy, weight, dx))
    return BY_SHAPE(d, CALL);
#undef CALL
}

cudaError_t depthwise_backward_weight(cudaStream_t stream, const struct direct_launch *d, const void *dy, const void *x,
                                      void *scratch, void *dweight)
{
#define CALL(T, K, S) weight_gradient<T, K, S>(stream, d, dy, x, scratch, dweight)
    return BY_SHAPE(d, CALL);
#undef CALL
}
