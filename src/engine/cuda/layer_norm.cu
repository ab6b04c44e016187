/* layer_norm.cu - layer normalisation over the last dimension. See launch.h
 *
 * A warp takes a row into registers: one read, one write. The backward's warps go over many rows each and add up what
 * their columns give to the gradients of weight and bias; a second kernel adds the blocks' sums in a fixed order. Rows
 * that do not fit, or are no multiple of 8 numbers, go by slower kernels that read them several times. */
#include "engine/cuda/numbers.cuh"
#include "engine/cuda/sizes.h"

namespace
{

enum { WARP = 32, WARPS = 8, THREADS = WARP * WARPS, V = 8, MOST_VECTORS = 4 };

__device__ inline float warp_sum(float x)
{
#pragma unroll
    for (int half = WARP / 2; half; half /= 2)
        x += __shfl_xor_sync(~0u, x, half);
    return x;
}

__device__ inline float sum_of(const vec<V> &x)
{
    return ((x.v[0] + x.v[1]) + (x.v[2] + x.v[3])) + ((x.v[4] + x.v[5]) + (x.v[6] + x.v[7]));
}

/* Lane's column of vector k, and whether there is one. */
#define COLUMN(k) (((k)*WARP + lane) * V)

template <typename T, int N>
__global__ void __launch_bounds__(THREADS) forward(int64_t rows, int channels, float eps, layer_norm_args a)
{
    int lane = threadIdx.x % WARP;
    int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP, at = row * channels;
    vec<V> x[N];
    float sum = 0, mean, invstd;

    if (row >= rows)
        return;
#pragma unroll
    for (int k = 0; k < N; k++)
        if (COLUMN(k) < channels) {
            x[k] = load<V>((const T *)a.x + at + COLUMN(k));
            sum += sum_of(x[k]);
        }
    mean = warp_sum(sum) / (float)channels;
    sum = 0;
#pragma unroll
    for (int k = 0; k < N; k++)
        if (COLUMN(k) < channels) {
#pragma unroll
            for (int i = 0; i < V; i++) {
                x[k].v[i] -= mean;
                sum += x[k].v[i] * x[k].v[i];
            }
        }
    invstd = rsqrtf(warp_sum(sum) / (float)channels + eps);
    if (lane == 0 && a.save_mean) {
        a.save_mean[row] = mean;
        a.save_invstd[row] = invstd;
    }
#pragma unroll
    for (int k = 0; k < N; k++)
        if (COLUMN(k) < channels) {
            vec<V> weight = load<V>(a.weight + COLUMN(k)), y = load<V>(a.bias + COLUMN(k));

#pragma unroll
            for (int i = 0; i < V; i++)
                y.v[i] += x[k].v[i] * invstd * weight.v[i];
            if (a.residual) {
                vec<V> residual = load<V>((const T *)a.residual + at + COLUMN(k));

#pragma unroll
                for (int i = 0; i < V; i++)
                    y.v[i] += residual.v[i];
            }
            store<V>((T *)a.y + at + COLUMN(k), y);
        }
}

/* What a lane needs of a row, as it comes from memory. */
template <typename T, int N> struct row_part {
    alignas(16) T x[N][V], dy[N][V], add[N][V];
    float mean, invstd;
};

/* V numbers as they are. */
template <typename T> __device__ inline void copy(T *to, const T *from)
{
    constexpr int words = V * sizeof(T) / 16;

#pragma unroll
    for (int i = 0; i < words; i++)
        reinterpret_cast<uint4 *>(to)[i] = reinterpret_cast<const uint4 *>(from)[i];
}

template <typename T, int N>
__device__ inline void load_part(row_part<T, N> &part, const layer_norm_backward_args &a, int64_t row, int channels,
                                 int lane)
{
    part.mean = a.save_mean[row];
    part.invstd = a.save_invstd[row];
#pragma unroll
    for (int k = 0; k < N; k++)
        if (COLUMN(k) < channels) {
            copy(part.x[k], (const T *)a.x + row * channels + COLUMN(k));
            copy(part.dy[k], (const T *)a.dy + row * channels + COLUMN(k));
            if (a.add)
                copy(part.add[k], (const T *)a.add + row * channels + COLUMN(k));
        }
}

/* dx of one row; what it gives to dweight and dbias is added there. */
template <typename T, int N>
__device__ inline void backward_row(const row_part<T, N> &part, const layer_norm_backward_args &a, int64_t row,
                                    int channels, int lane, vec<V> dweight[N], vec<V> dbias[N])
{
    float sum = 0, product = 0;
    vec<V> xhat[N], g[N];

#pragma unroll
    for (int k = 0; k < N; k++)
        if (COLUMN(k) < channels) {
            vec<V> weight = load<V>(a.weight + COLUMN(k));

#pragma unroll
            for (int i = 0; i < V; i++) {
                float dy = to_float(part.dy[k][i]);

                xhat[k].v[i] = (to_float(part.x[k][i]) - part.mean) * part.invstd;
                dweight[k].v[i] += dy * xhat[k].v[i];
                dbias[k].v[i] += dy;
                g[k].v[i] = dy * weight.v[i];
                sum += g[k].v[i];
                product += g[k].v[i] * xhat[k].v[i];
            }
        }
    sum = warp_sum(sum) / (float)channels;
    product = warp_sum(product) / (float)channels;
#pragma unroll
    for (int k = 0; k < N; k++)
        if (COLUMN(k) < channels) {
            vec<V> dx;

#pragma unroll
            for (int i = 0; i < V; i++) {
                dx.v[i] = part.invstd * (g[k].v[i] - sum - xhat[k].v[i] * product);
                if (a.add)
                    dx.v[i] += to_float(part.add[k][i]);
            }
            store<V>((T *)a.dx + row * channels + COLUMN(k), dx);
        }
}

/* Adds up the warps' vectors, in their order, and writes (channels) sums. shared: (WARPS, channels) */
template <int N> __device__ inline void add_warps(const vec<V> part[N], int channels, float *shared, float *sums)
{
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;

    __syncthreads();
#pragma unroll
    for (int k = 0; k < N; k++)
        if (COLUMN(k) < channels)
            store<V>(shared + warp * channels + COLUMN(k), part[k]);
    __syncthreads();
    for (int c = threadIdx.x; c < channels; c += THREADS) {
        float sum = 0;

#pragma unroll
        for (int w = 0; w < WARPS; w++)
            sum += shared[w * channels + c];
        sums[c] = sum;
    }
}

template <typename T, int N>
__global__ void __launch_bounds__(THREADS)
    backward(int64_t rows, int channels, float *partial, layer_norm_backward_args a)
{
    extern __shared__ __align__(16) float shared[];
    int lane = threadIdx.x % WARP;
    int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP, step = (int64_t)gridDim.x * WARPS;
    float *sums = partial + (size_t)blockIdx.x * 2 * channels;
    vec<V> dweight[N] = {}, dbias[N] = {};
    constexpr bool early = N * sizeof(T) <= 8; /* registers for two rows */
    row_part<T, N> part, next;

    if (row < rows)
        load_part(part, a, row, channels, lane);
    for (; row < rows; row += step) {
        if (early && row + step < rows) /* on its way while this one is computed */
            load_part(next, a, row + step, channels, lane);
        backward_row<T, N>(part, a, row, channels, lane, dweight, dbias);
        if (early)
            part = next;
        else if (row + step < rows)
            load_part(part, a, row + step, channels, lane);
    }
    add_warps<N>(dweight, channels, shared, sums);
    add_warps<N>(dbias, channels, shared, sums + channels);
}

/* Column c of (blocks, 2, channels): 32 columns a block of threads, which share the rows. */
__global__ void __launch_bounds__(THREADS)
    finish(const float *partial, int blocks, int channels, float *dweight, float *dbias)
{
    __shared__ float shared[WARPS][WARP];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, c = blockIdx.x * WARP + lane;
    float sum = 0;

    if (c < 2 * channels)
#pragma unroll 4
        for (int block = warp; block < blocks; block += WARPS)
            sum += partial[(size_t)block * 2 * channels + c];
    shared[warp][lane] = sum;
    __syncthreads();
    if (warp || c >= 2 * channels)
        return;
    for (int w = 1; w < WARPS; w++)
        sum += shared[w][lane];
    *(c < channels ? &dweight[c] : &dbias[c - channels]) = sum;
}

/* --- rows of any length ------------------------------------------------------------------------------------------ */

template <typename T>
__global__ void __launch_bounds__(THREADS) forward_any(int64_t rows, int channels, float eps, layer_norm_args a)
{
    int lane = threadIdx.x % WARP;
    int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP, at = row * channels;
    const T *x = (const T *)a.x + at;
    float sum = 0, mean, invstd;

    if (row >= rows)
        return;
    for (int c = lane; c < channels; c += WARP)
        sum += to_float(x[c]);
    mean = warp_sum(sum) / (float)channels;
    sum = 0;
    for (int c = lane; c < channels; c += WARP)
        sum += (to_float(x[c]) - mean) * (to_float(x[c]) - mean);
    invstd = rsqrtf(warp_sum(sum) / (float)channels + eps);
    if (lane == 0 && a.save_mean) {
        a.save_mean[row] = mean;
        a.save_invstd[row] = invstd;
    }
    for (int c = lane; c < channels; c += WARP) {
        float y = (to_float(x[c]) - mean) * invstd * a.weight[c] + a.bias[c];

        if (a.residual)
            y += to_float(((const T *)a.residual)[at + c]);
        ((T *)a.y)[at + c] = from_float<T>(y);
    }
}

/* Gradients of weight and bias, a thread a column; before dx, which may lie where dy or x does. */
template <typename T>
__global__ void __launch_bounds__(THREADS) columns_any(int64_t rows, int channels, layer_norm_backward_args a)
{
    int c = blockIdx.x * THREADS + threadIdx.x;
    float sum = 0, product = 0;

    if (c >= channels)
        return;
    for (int64_t row = 0; row < rows; row++) {
        float dy = to_float(((const T *)a.dy)[row * channels + c]);

        sum += dy;
        product += dy * (to_float(((const T *)a.x)[row * channels + c]) - a.save_mean[row]) * a.save_invstd[row];
    }
    a.dbias[c] = sum;
    a.dweight[c] = product;
}

template <typename T>
__global__ void __launch_bounds__(THREADS) backward_any(int64_t rows, int channels, layer_norm_backward_args a)
{
    int lane = threadIdx.x % WARP;
    int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP, at = row * channels;
    const T *x = (const T *)a.x + at, *dy = (const T *)a.dy + at;
    float sum = 0, product = 0, mean, invstd;

    if (row >= rows)
        return;
    mean = a.save_mean[row];
    invstd = a.save_invstd[row];
    for (int c = lane; c < channels; c += WARP) {
        float g = __fmul_rn(to_float(dy[c]), a.weight[c]); /* the same below: what cancels out does so exactly */

        sum += g;
        product += g * (to_float(x[c]) - mean) * invstd;
    }
    sum = warp_sum(sum) / (float)channels;
    product = warp_sum(product) / (float)channels;
    for (int c = lane; c < channels; c += WARP) {
        float xhat = (to_float(x[c]) - mean) * invstd;
        float dx = invstd * (__fmul_rn(to_float(dy[c]), a.weight[c]) - sum - xhat * product);

        if (a.add)
            dx += to_float(((const T *)a.add)[at + c]);
        ((T *)a.dx)[at + c] = from_float<T>(dx);
    }
}

/* Vectors that a lane holds of a row; 0: the row goes the other way. */
int vectors_of(int channels)
{
    int vectors = (channels + WARP * V - 1) / (WARP * V);

    return channels % V || vectors > MOST_VECTORS ? 0 : vectors;
}

unsigned row_blocks(int64_t rows)
{
    return (unsigned)((rows + WARPS - 1) / WARPS);
}

unsigned backward_blocks(int64_t rows)
{
    int64_t blocks = (rows + LAYER_NORM_BLOCK_ROWS - 1) / LAYER_NORM_BLOCK_ROWS;

    return blocks < LAYER_NORM_MOST_BLOCKS ? (unsigned)blocks : (unsigned)LAYER_NORM_MOST_BLOCKS;
}

template <typename T>
void run_forward(cudaStream_t stream, int64_t rows, int channels, float eps, const layer_norm_args &a)
{
    unsigned blocks = row_blocks(rows);

    switch (vectors_of(channels)) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        forward<T, n><<<blocks, THREADS, 0, stream>>>(rows, channels, eps, a);                                         \
        break;
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
#undef CASE
    default:
        forward_any<T><<<blocks, THREADS, 0, stream>>>(rows, channels, eps, a);
    }
}

template <typename T>
void run_backward(cudaStream_t stream, int64_t rows, int channels, float *partial, const layer_norm_backward_args &a)
{
    unsigned blocks = backward_blocks(rows);
    size_t shared = WARPS * (size_t)channels * sizeof(float);

    switch (vectors_of(channels)) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        backward<T, n><<<blocks, THREADS, shared, stream>>>(rows, channels, partial, a);                               \
        break;
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
#undef CASE
    default:
        columns_any<T><<<(channels + THREADS - 1) / THREADS, THREADS, 0, stream>>>(rows, channels, a);
        backward_any<T><<<row_blocks(rows), THREADS, 0, stream>>>(rows, channels, a);
        return;
    }
    finish<<<(2 * channels + WARP - 1) / WARP, THREADS, 0, stream>>>(partial, (int)blocks, channels, a.dweight,
                                                                     a.dbias);
}

} // namespace

size_t layer_norm_scratch_bytes(int64_t rows, int channels)
{
    return vectors_of(channels) ? (size_t)backward_blocks(rows) * 2 * (size_t)channels * sizeof(float) : 0;
}

cudaError_t layer_norm(cudaStream_t stream, enum number number, int64_t rows, int channels, float eps,
                       const struct layer_norm_args *args)
{
    if (number == NUMBER_BF16)
        run_forward<bf16>(stream, rows, channels, eps, *args);
    else
        run_forward<float>(stream, rows, channels, eps, *args);
    return cudaGetLastError();
}

cudaError_t layer_norm_backward(cudaStream_t stream, enum number number, int64_t rows, int channels, void *scratch,
                                const struct layer_norm_backward_args *args)
{
    if (number == NUMBER_BF16)
        run_backward<bf16>(stream, rows, channels, (float *)scratch, *args);
    else
        run_backward<float>(stream, rows, channels, (float *)scratch, *args);
    return cudaGetLastError();
}
