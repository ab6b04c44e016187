/* attention.cu - attention for any numbers and heads of up to 128 channels, in floats without matrix units. See
 * launch.h
 *
 * A block of 16 by 16 threads takes 64 rows of a head and goes over the other side's rows 64 at a time; a thread has
 * the scores of rows ty + 16 i and columns tx + 16 j, i, j < 4. The order of the work is that of attention_mma.cu. At
 * the end of the file is the choice between all kernels. */
#include "engine/cuda/attention.cuh"
#include "engine/cuda/numbers.cuh"

namespace
{

enum { SIDE = 16, THREADS = SIDE * SIDE, EACH = 4, ROWS = SIDE * EACH, SCORES = ROWS + 1 };

/* Matrices in shared memory have rows of dim + 1 numbers, so that a column lies in different banks. */
struct head {
    int first, tokens, dim, pitch;
    int64_t qkv, y, stats, stride, channels;
};

__device__ inline head head_of(const attention_launch &a)
{
    int blocks = (a.tokens + ROWS - 1) / ROWS, index = blockIdx.x / blocks, n = index / a.heads, h = index % a.heads;
    head p;

    p.first = blockIdx.x % blocks * ROWS;
    p.tokens = a.tokens;
    p.dim = a.dim;
    p.pitch = a.dim + 1;
    p.channels = (int64_t)a.heads * a.dim;
    p.stride = 3 * p.channels;
    p.qkv = (int64_t)n * a.tokens * p.stride + h * a.dim;
    p.y = (int64_t)n * a.tokens * p.channels + h * a.dim;
    p.stats = (int64_t)index * a.tokens;
    return p;
}

/* Rows first.. of a matrix as floats, zeros behind its last. */
template <typename T> __device__ void fetch(const head &p, float *to, const T *matrix, int64_t stride, int first)
{
    for (int i = threadIdx.x; i < ROWS * p.dim; i += THREADS) {
        int row = i / p.dim, c = i % p.dim;

        to[row * p.pitch + c] = first + row < p.tokens ? to_float(matrix[(first + row) * stride + c]) : 0;
    }
}

/* s[i][j] = sum over channels of a[row i][c] b[column j][c] */
__device__ inline void scores(const head &p, float s[EACH][EACH], const float *a, const float *b)
{
    int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;

#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int j = 0; j < EACH; j++)
            s[i][j] = 0;
    for (int c = 0; c < p.dim; c++) {
        float left[EACH], right[EACH];

#pragma unroll
        for (int i = 0; i < EACH; i++) {
            left[i] = a[(ty + SIDE * i) * p.pitch + c];
            right[i] = b[(tx + SIDE * i) * p.pitch + c];
        }
#pragma unroll
        for (int i = 0; i < EACH; i++)
#pragma unroll
            for (int j = 0; j < EACH; j++)
                s[i][j] += left[i] * right[j];
    }
}

__device__ inline void put_scores(float *shared, const float s[EACH][EACH])
{
    int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;

#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int j = 0; j < EACH; j++)
            shared[(ty + SIDE * i) * SCORES + tx + SIDE * j] = s[i][j];
}

/* sum[i][j] (rows ty + 16 i, channels tx + 16 j) += shared scores times the rows of b */
template <int D>
__device__ inline void accumulate(const head &p, float sum[EACH][D], const float *shared, const float *b)
{
    int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;

    for (int k = 0; k < ROWS; k++) {
        float left[EACH];

#pragma unroll
        for (int i = 0; i < EACH; i++)
            left[i] = shared[(ty + SIDE * i) * SCORES + k];
#pragma unroll
        for (int j = 0; j < D; j++) {
            float right = tx + SIDE * j < p.dim ? b[k * p.pitch + tx + SIDE * j] : 0;

#pragma unroll
            for (int i = 0; i < EACH; i++)
                sum[i][j] += left[i] * right;
        }
    }
}

template <typename T, int D>
__device__ inline void write_rows(const head &p, const float sum[EACH][D], const float factor[EACH], T *matrix,
                                  int64_t stride)
{
    int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;

#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int j = 0; j < D; j++) {
            int row = p.first + ty + SIDE * i, c = tx + SIDE * j;

            if (row < p.tokens && c < p.dim)
                matrix[row * stride + c] = from_float<T>(sum[i][j] * factor[i]);
        }
}

__device__ inline float side_max(float x)
{
#pragma unroll
    for (int half = SIDE / 2; half; half /= 2)
        x = fmaxf(x, __shfl_xor_sync(~0u, x, half));
    return x;
}

__device__ inline float side_sum(float x)
{
#pragma unroll
    for (int half = SIDE / 2; half; half /= 2)
        x += __shfl_xor_sync(~0u, x, half);
    return x;
}

template <typename T, int D>
__global__ void __launch_bounds__(THREADS) forward(attention_launch a, const T *qkv, T *y, float *stats)
{
    extern __shared__ float memory[];
    const head p = head_of(a);
    float *queries = memory, *keys = queries + ROWS * p.pitch, *values = keys + ROWS * p.pitch;
    float *weights = values + ROWS * p.pitch;
    const T *q = qkv + p.qkv, *k = q + p.channels, *v = k + p.channels;
    int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    float sum[EACH][D] = {}, most[EACH], total[EACH], factor[EACH];

#pragma unroll
    for (int i = 0; i < EACH; i++) {
        most[i] = -INFINITY;
        total[i] = 0;
    }
    fetch(p, queries, q, p.stride, p.first);
    for (int first = 0; first < p.tokens; first += ROWS) {
        float s[EACH][EACH];

        __syncthreads();
        fetch(p, keys, k, p.stride, first);
        fetch(p, values, v, p.stride, first);
        __syncthreads();
        scores(p, s, queries, keys);
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            float largest = most[i], change;

#pragma unroll
            for (int j = 0; j < EACH; j++) {
                s[i][j] = first + tx + SIDE * j < p.tokens ? s[i][j] * a.scale : -INFINITY;
                largest = fmaxf(largest, s[i][j]);
            }
            largest = side_max(largest);
            change = expf(most[i] - largest);
            most[i] = largest;
            total[i] *= change;
#pragma unroll
            for (int j = 0; j < EACH; j++) {
                s[i][j] = expf(s[i][j] - largest);
                total[i] += s[i][j];
            }
#pragma unroll
            for (int j = 0; j < D; j++)
                sum[i][j] *= change;
        }
        put_scores(weights, s);
        __syncthreads();
        accumulate<D>(p, sum, weights, values);
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        int row = p.first + ty + SIDE * i;

        total[i] = side_sum(total[i]);
        factor[i] = 1 / total[i];
        if (stats && tx == 0 && row < p.tokens)
            stats[p.stats + row] = most[i] + logf(total[i]);
    }
    write_rows<T, D>(p, sum, factor, y + p.y, p.channels);
}

/* For each row the sum of dy y: a warp a row. */
template <typename T>
__global__ void __launch_bounds__(THREADS) row_products(attention_launch a, const T *dy, const T *y, float *products)
{
    int64_t item = (int64_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32; /* (n, h, token) */
    int64_t index = item / a.tokens, n = index / a.heads, h = index % a.heads, row = item % a.tokens;
    int64_t at = ((n * a.tokens + row) * a.heads + h) * a.dim;
    float sum = 0;

    if (n >= a.n)
        return;
    for (int c = threadIdx.x % 32; c < a.dim; c += 32)
        sum += to_float(dy[at + c]) * to_float(y[at + c]);
    for (int half = 16; half; half /= 2)
        sum += __shfl_xor_sync(~0u, sum, half);
    if (threadIdx.x % 32 == 0)
        products[item] = sum;
}

template <typename T, int D>
__global__ void __launch_bounds__(THREADS)
    backward_q(attention_launch a, const T *dy, const T *qkv, const float *stats, const float *products, T *dqkv)
{
    extern __shared__ float memory[];
    const head p = head_of(a);
    float *queries = memory, *gradients = queries + ROWS * p.pitch, *keys = gradients + ROWS * p.pitch;
    float *values = keys + ROWS * p.pitch, *slopes = values + ROWS * p.pitch;
    const T *q = qkv + p.qkv, *k = q + p.channels, *v = k + p.channels;
    int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    float sum[EACH][D] = {}, factor[EACH];

    fetch(p, queries, q, p.stride, p.first);
    fetch(p, gradients, dy + p.y, p.channels, p.first);
    for (int first = 0; first < p.tokens; first += ROWS) {
        float s[EACH][EACH], ds[EACH][EACH];

        __syncthreads();
        fetch(p, keys, k, p.stride, first);
        fetch(p, values, v, p.stride, first);
        __syncthreads();
        scores(p, s, queries, keys);
        scores(p, ds, gradients, values);
#pragma unroll
        for (int i = 0; i < EACH; i++)
#pragma unroll
            for (int j = 0; j < EACH; j++) {
                int row = p.first + ty + SIDE * i;
                bool there = row < p.tokens && first + tx + SIDE * j < p.tokens;

                ds[i][j] =
                    there ? expf(s[i][j] * a.scale - stats[p.stats + row]) * (ds[i][j] - products[p.stats + row]) : 0;
            }
        put_scores(slopes, ds);
        __syncthreads();
        accumulate<D>(p, sum, slopes, keys);
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
        factor[i] = a.scale;
    write_rows<T, D>(p, sum, factor, dqkv + p.qkv, p.stride);
}

/* Rows are keys here, columns queries. */
template <typename T, int D>
__global__ void __launch_bounds__(THREADS)
    backward_kv(attention_launch a, const T *dy, const T *qkv, const float *stats, const float *products, T *dqkv)
{
    extern __shared__ float memory[];
    const head p = head_of(a);
    float *keys = memory, *values = keys + ROWS * p.pitch, *queries = values + ROWS * p.pitch;
    float *gradients = queries + ROWS * p.pitch, *shared = gradients + ROWS * p.pitch;
    const T *q = qkv + p.qkv, *k = q + p.channels, *v = k + p.channels;
    int tx = threadIdx.x % SIDE;
    float sum_k[EACH][D] = {}, sum_v[EACH][D] = {}, factor[EACH], one[EACH];

    fetch(p, keys, k, p.stride, p.first);
    fetch(p, values, v, p.stride, p.first);
    for (int first = 0; first < p.tokens; first += ROWS) {
        float s[EACH][EACH], ds[EACH][EACH];

        __syncthreads();
        fetch(p, queries, q, p.stride, first);
        fetch(p, gradients, dy + p.y, p.channels, first);
        __syncthreads();
        scores(p, s, keys, queries);
        scores(p, ds, values, gradients);
#pragma unroll
        for (int i = 0; i < EACH; i++)
#pragma unroll
            for (int j = 0; j < EACH; j++) {
                int column = first + tx + SIDE * j;
                bool there = column < p.tokens;

                s[i][j] = there ? expf(s[i][j] * a.scale - stats[p.stats + column]) : 0;
                ds[i][j] = there ? s[i][j] * (ds[i][j] - products[p.stats + column]) : 0;
            }
        put_scores(shared, s);
        __syncthreads();
        accumulate<D>(p, sum_v, shared, gradients);
        __syncthreads();
        put_scores(shared, ds);
        __syncthreads();
        accumulate<D>(p, sum_k, shared, queries);
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        factor[i] = a.scale;
        one[i] = 1;
    }
    write_rows<T, D>(p, sum_k, factor, dqkv + p.qkv + p.channels, p.stride);
    write_rows<T, D>(p, sum_v, one, dqkv + p.qkv + 2 * p.channels, p.stride);
}

size_t shared_bytes(const attention_launch *a, int matrices)
{
    return (size_t)(matrices * ROWS * (a->dim + 1) + ROWS * SCORES) * sizeof(float);
}

/* A kernel may use more than 48 KiB only when it is told so. */
template <typename Kernel> cudaError_t allow(Kernel *kernel, size_t bytes)
{
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
}

unsigned blocks_of(const attention_launch *a)
{
    return (unsigned)(a->n * a->heads * ((a->tokens + ROWS - 1) / ROWS));
}

template <typename T, int D>
cudaError_t run_forward(cudaStream_t stream, const attention_launch *a, const void *qkv, void *y, float *stats)
{
    size_t shared = shared_bytes(a, 3);
    cudaError_t status = allow(forward<T, D>, shared);

    if (status == cudaSuccess)
        forward<T, D><<<blocks_of(a), THREADS, shared, stream>>>(*a, (const T *)qkv, (T *)y, stats);
    return status == cudaSuccess ? cudaGetLastError() : status;
}

template <typename T, int D>
cudaError_t run_backward(cudaStream_t stream, const attention_launch *a, const attention_backward_args *b)
{
    size_t shared = shared_bytes(a, 4);
    int64_t rows = (int64_t)a->n * a->heads * a->tokens;
    cudaError_t status = allow(backward_q<T, D>, shared);
    const T *dy = (const T *)b->dy, *qkv = (const T *)b->qkv;

    if (status == cudaSuccess)
        status = allow(backward_kv<T, D>, shared);
    if (status != cudaSuccess)
        return status;
    row_products<T><<<(unsigned)((rows + THREADS / 32 - 1) / (THREADS / 32)), THREADS, 0, stream>>>(
        *a, dy, (const T *)b->y, b->products);
    backward_q<T, D><<<blocks_of(a), THREADS, shared, stream>>>(*a, dy, qkv, b->stats, b->products, (T *)b->dqkv);
    backward_kv<T, D><<<blocks_of(a), THREADS, shared, stream>>>(*a, dy, qkv, b->stats, b->products, (T *)b->dqkv);
    return cudaGetLastError();
}

/* Where the other files' kernels become faster than each other, measured on an H100. */
enum { MANY_HEADS = 66, MANY_TOKENS = 128, FEW_BLOCKS = 200 };

} // namespace

#define BY_DIM(a, call)                                                                                                \
    ((a)->number == NUMBER_BF16 ? ((a)->dim <= 64 ? call(bf16, 4) : call(bf16, 8))                                     \
                                : ((a)->dim <= 64 ? call(float, 4) : call(float, 8)))

size_t attention_scratch_bytes(const struct attention_launch *a)
{
    return (size_t)a->n * (size_t)a->heads * (size_t)a->tokens * sizeof(float);
}

cudaError_t attention(cudaStream_t stream, const struct attention_launch *a, const void *qkv, void *y, float *stats)
{
#define CALL(T, D) run_forward<T, D>(stream, a, qkv, y, stats)
    int heads = a->n * a->heads;

    if (heads >= MANY_HEADS && attention_head_fits(a))
        return attention_head(stream, a, qkv, y, stats);
    if (a->tokens > MANY_TOKENS && heads * ((a->tokens + 15) / 16) <= FEW_BLOCKS && attention_head_fits(a))
        return attention_head_parts(stream, a, qkv, y, stats);
    if (attention_mma_fits(a))
        return attention_mma(stream, a, qkv, y, stats);
    return a->dim > ATTENTION_MOST_DIM ? cudaErrorInvalidValue : BY_DIM(a, CALL);
#undef CALL
}

cudaError_t attention_backward(cudaStream_t stream, const struct attention_launch *a,
                               const struct attention_backward_args *b)
{
#define CALL(T, D) run_backward<T, D>(stream, a, b)
    if (attention_head_fits(a))
        return attention_head_backward(stream, a, b);
    if (attention_mma_fits(a))
        return attention_mma_backward(stream, a, b);
    return a->dim > ATTENTION_MOST_DIM ? cudaErrorInvalidValue : BY_DIM(a, CALL);
#undef CALL
}
