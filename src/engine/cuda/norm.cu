/* norm.cu - batch normalisation, forward and backward, and sums of columns, for tensors of any size. See launch.h
 *
 * A thread keeps to V channels and walks down the rows. Two sums a channel are made by blocks over parts of the rows
 * and written to scratch; a small kernel adds the parts up in their order and turns them into statistics or gradients;
 * a third one applies them. */
#include "engine/cuda/norm.cuh"

namespace
{

enum { THREADS = 256, ROWS_A_THREAD = 8, MOST_BLOCKS = 792, FINISH_CHANNELS = 8, FINISH_SHARES = 64 };

/* How rows and channels are cut. tx threads along vectors of channels, ty along rows. */
struct cut {
    int tx, ty, columns, parts; /* grid: (columns, parts) */
};

cut cut_of(int64_t rows, int channels)
{
    int vectors = channels % 8 ? channels : channels / 8;
    cut c;

    c.tx = 1;
    while (c.tx < 32 && c.tx < vectors)
        c.tx *= 2;
    c.ty = THREADS / c.tx;
    c.columns = (vectors + c.tx - 1) / c.tx;
    int64_t wanted = (rows + (int64_t)c.ty * ROWS_A_THREAD - 1) / ((int64_t)c.ty * ROWS_A_THREAD);
    int64_t most = (MOST_BLOCKS + c.columns - 1) / c.columns;
    c.parts = (int)(wanted < most ? wanted : most);
    return c;
}

/* Adds up a block's sums over its ty rows of threads, and writes them to partial[part][2][channels]. */
template <int V> __device__ void write_partial(vec<V> a, vec<V> b, int channels, float *partial)
{
    __shared__ float shared[2][THREADS * V];
    int thread = threadIdx.y * blockDim.x + threadIdx.x;

#pragma unroll
    for (int i = 0; i < V; i++) {
        shared[0][i * THREADS + thread] = a.v[i];
        shared[1][i * THREADS + thread] = b.v[i];
    }
    __syncthreads();
    /* every thread adds some columns: 2 V tx of them */
    for (int k = thread; k < 2 * V * (int)blockDim.x; k += THREADS) {
        int which = k / (V * blockDim.x), lane = k % blockDim.x, i = k / blockDim.x % V;
        int c = (blockIdx.x * blockDim.x + lane) * V + i;
        float sum = 0;

        for (int y = 0; y < (int)blockDim.y; y++)
            sum += shared[which][i * THREADS + y * blockDim.x + lane];
        if (c < channels)
            partial[((size_t)blockIdx.y * 2 + which) * channels + c] = sum;
    }
}

/* Calls finish(channel, sum a, sum b) for each channel with the sums over all parts. A block takes FINISH_CHANNELS. */
template <typename Finish>
__global__ void __launch_bounds__(FINISH_CHANNELS *FINISH_SHARES)
    add_parts(int channels, int parts, const float *partial, Finish finish)
{
    __shared__ double shared[2][FINISH_SHARES][FINISH_CHANNELS];
    int lane = threadIdx.x % FINISH_CHANNELS, share = threadIdx.x / FINISH_CHANNELS;
    int c = blockIdx.x * FINISH_CHANNELS + lane;
    double a = 0, b = 0;

    if (c < channels)
#pragma unroll 4
        for (int part = share; part < parts; part += FINISH_SHARES) {
            a += (double)partial[((size_t)part * 2) * channels + c];
            b += (double)partial[((size_t)part * 2 + 1) * channels + c];
        }
    shared[0][share][lane] = a;
    shared[1][share][lane] = b;
    for (int half = FINISH_SHARES / 2; half; half /= 2) {
        __syncthreads();
        if (share < half) {
            shared[0][share][lane] += shared[0][share + half][lane];
            shared[1][share][lane] += shared[1][share + half][lane];
        }
    }
    if (share == 0 && c < channels)
        finish(c, shared[0][0][lane], shared[1][0][lane]);
}

template <typename Finish> void launch_add_parts(cudaStream_t stream, const norm_launch *l, const cut &c, Finish finish)
{
    add_parts<<<(l->channels + FINISH_CHANNELS - 1) / FINISH_CHANNELS, FINISH_CHANNELS * FINISH_SHARES, 0, stream>>>(
        l->channels, c.parts, (const float *)l->scratch, finish);
}

/* What is done with the sums. */
template <typename T> struct finish_statistics {
    const T *x;
    int64_t rows;
    float eps, momentum;
    norm_forward_args f;
    __device__ void operator()(int channel, double sum, double square) const
    {
        norm_statistics(channel, to_float(x[channel]), sum, square, rows, eps, momentum, f);
    }
};

struct finish_gradients {
    norm_backward_args b;
    __device__ void operator()(int channel, double sum, double product) const
    {
        b.dbias[channel] = (float)sum;
        b.dweight[channel] = (float)(product * (double)b.save_invstd[channel]);
    }
};

struct finish_sums {
    float *out;
    __device__ void operator()(int channel, double sum, double) const
    {
        out[channel] = (float)sum;
    }
};

template <typename T, int V>
__global__ void __launch_bounds__(THREADS)
    statistics(const T *__restrict__ x, int64_t rows, int channels, float *partial)
{
    int c = (blockIdx.x * blockDim.x + threadIdx.x) * V;
    vec<V> shift = {}, sum = {}, square = {};

    if (c < channels) {
        int64_t step = (int64_t)gridDim.y * blockDim.y;

        shift = load<V>(x + c);
#pragma unroll 4
        for (int64_t row = (int64_t)blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += step) {
            vec<V> value = load<V>(x + row * channels + c);

#pragma unroll
            for (int i = 0; i < V; i++) {
                float d = value.v[i] - shift.v[i];

                sum.v[i] += d;
                square.v[i] += d * d;
            }
        }
    }
    write_partial<V>(sum, square, channels, partial);
}

/* y = act((x - mean) invstd weight + bias + residual); invstd comes from a variance unless `training`. */
template <typename T, int V>
__global__ void __launch_bounds__(THREADS)
    apply(const T *x, int64_t rows, int channels, bool training, enum activation activation, float eps,
          const T *residual, T *y, norm_forward_args f)
{
    int c = (blockIdx.x * blockDim.x + threadIdx.x) * V;
    int64_t step = (int64_t)gridDim.y * blockDim.y;
    vec<V> mean, scale, bias;

    if (c >= channels)
        return;
    mean = load<V>((training ? f.save_mean : f.running_mean) + c);
    scale = load<V>((training ? f.save_invstd : f.running_var) + c);
    bias = load<V>(f.weight + c);
#pragma unroll
    for (int i = 0; i < V; i++)
        scale.v[i] = (training ? scale.v[i] : 1 / sqrtf(scale.v[i] + eps)) * bias.v[i];
    bias = load<V>(f.bias + c);
#pragma unroll 2
    for (int64_t row = (int64_t)blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += step) {
        int64_t at = row * channels + c;
        vec<V> value = load<V>(x + at), add = {};
        unsigned bits = 0;

        if (residual)
            add = load<V>(residual + at);
#pragma unroll
        for (int i = 0; i < V; i++) {
            value.v[i] = (value.v[i] - mean.v[i]) * scale.v[i] + bias.v[i] + add.v[i];
            bits |= (unsigned)(value.v[i] > 0) << i;
        }
        activate<V>(activation, value);
        store<V>(y + at, value);
        if (V == 8 && f.mask)
            f.mask[at / 8] = (uint8_t)bits;
    }
}

/* Sums of g and g (x - mean); dresidual = g on the way, which may lie where dy or dy2 does. */
template <typename T, int V, bool INTO>
__global__ void __launch_bounds__(THREADS)
    backward_sums(const T *dy, const T *dy2, const T *y, const T *__restrict__ x, T *dresidual, int64_t rows,
                  int channels, enum activation activation, float *partial, norm_backward_args b)
{
    int c = (blockIdx.x * blockDim.x + threadIdx.x) * V;
    vec<V> mean = {}, sum = {}, product = {};
    into<V> in;

    if (c < channels) {
        int64_t step = (int64_t)gridDim.y * blockDim.y;

        mean = load<V>(b.save_mean + c);
        if (INTO)
            in.load_from(b, c);
#pragma unroll 2
        for (int64_t row = (int64_t)blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += step) {
            int64_t at = row * channels + c;
            vec<V> value = load<V>(x + at), g = norm_gradient<T, V>(dy, dy2, y, b.mask, at);

            if (INTO)
                in.pass(activation, value, g);
            if (dresidual) {
                round_to<T, V>(g);
                store<V>(dresidual + at, g);
            }
#pragma unroll
            for (int i = 0; i < V; i++) {
                sum.v[i] += g.v[i];
                product.v[i] += g.v[i] * (value.v[i] - mean.v[i]);
            }
        }
    }
    write_partial<V>(sum, product, channels, partial);
}

/* dx = weight invstd (g - dbias / n - xhat dweight / n) */
template <typename T, int V, bool INTO>
__global__ void __launch_bounds__(THREADS)
    backward_apply(const T *dy, const T *dy2, const T *y, const T *__restrict__ x, T *dx, int64_t rows, int channels,
                   enum activation activation, norm_backward_args b)
{
    int c = (blockIdx.x * blockDim.x + threadIdx.x) * V;
    int64_t step = (int64_t)gridDim.y * blockDim.y;
    vec<V> mean, scale, mean_g, steep;
    into<V> in;

    if (c >= channels)
        return;
    if (INTO)
        in.load_from(b, c);
    mean = load<V>(b.save_mean + c);
    steep = load<V>(b.save_invstd + c);
    scale = load<V>(b.weight + c);
    mean_g = load<V>(b.dweight + c);
#pragma unroll
    for (int i = 0; i < V; i++) {
        scale.v[i] *= steep.v[i];
        steep.v[i] *= mean_g.v[i] / (float)rows; /* dx = scale (g - mean_g - (x - mean) steep) */
    }
    mean_g = load<V>(b.dbias + c);
#pragma unroll
    for (int i = 0; i < V; i++)
        mean_g.v[i] /= (float)rows;
#pragma unroll 2
    for (int64_t row = (int64_t)blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += step) {
        int64_t at = row * channels + c;
        vec<V> value = load<V>(x + at), g = norm_gradient<T, V>(dy, dy2, y, b.mask, at);

        if (INTO)
            in.pass(activation, value, g);
#pragma unroll
        for (int i = 0; i < V; i++)
            g.v[i] = scale.v[i] * (g.v[i] - mean_g.v[i] - (value.v[i] - mean.v[i]) * steep.v[i]);
        store<V>(dx + at, g);
    }
}

template <typename T, int V>
__global__ void __launch_bounds__(THREADS)
    column_kernel(const T *__restrict__ x, int64_t rows, int channels, float *partial)
{
    int c = (blockIdx.x * blockDim.x + threadIdx.x) * V;
    vec<V> sum = {}, nothing = {};

    if (c < channels) {
        int64_t step = (int64_t)gridDim.y * blockDim.y;

#pragma unroll 2
        for (int64_t row = (int64_t)blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += step) {
            vec<V> value = load<V>(x + row * channels + c);

#pragma unroll
            for (int i = 0; i < V; i++)
                sum.v[i] += value.v[i];
        }
    }
    write_partial<V>(sum, nothing, channels, partial);
}

/* For kernels that only apply: as many rows to a thread, but no sums that ask for few parts. */
dim3 apply_grid(const cut &c, int64_t rows)
{
    int64_t parts = (rows + (int64_t)c.ty * 4 - 1) / ((int64_t)c.ty * 4);
    int64_t most = (4 * MOST_BLOCKS + c.columns - 1) / c.columns;

    return dim3((unsigned)c.columns, (unsigned)(parts < most ? parts : most));
}

template <typename T, int V>
cudaError_t launch_apply(cudaStream_t stream, const norm_launch *l, const norm_forward_args *f, bool training)
{
    cut c = cut_of(l->rows, l->channels);

    apply<T, V><<<apply_grid(c, l->rows), dim3(c.tx, c.ty), 0, stream>>>(
        (const T *)f->x, l->rows, l->channels, training, l->activation, l->eps, (const T *)f->residual, (T *)f->y, *f);
    return cudaGetLastError();
}

template <typename T, int V> cudaError_t forward(cudaStream_t stream, const norm_launch *l, const norm_forward_args *f)
{
    cut c = cut_of(l->rows, l->channels);

    statistics<T, V><<<dim3(c.columns, c.parts), dim3(c.tx, c.ty), 0, stream>>>((const T *)f->x, l->rows, l->channels,
                                                                                (float *)l->scratch);
    launch_add_parts(stream, l, c, finish_statistics<T>{(const T *)f->x, l->rows, l->eps, l->momentum, *f});
    return launch_apply<T, V>(stream, l, f, true);
}

template <typename T, int V, bool INTO>
cudaError_t backward_with(cudaStream_t stream, const norm_launch *l, const norm_backward_args *b)
{
    cut c = cut_of(l->rows, l->channels);
    dim3 block(c.tx, c.ty);
    bool relu = l->activation == ACTIVATION_RELU;
    const T *y = relu && !b->mask ? (const T *)b->y : NULL, *dy = (const T *)b->dy, *dy2 = (const T *)b->dy2;
    norm_backward_args second = *b;

    if (!relu)
        second.mask = NULL;
    backward_sums<T, V, INTO>
        <<<dim3(c.columns, c.parts), block, 0, stream>>>(dy, dy2, y, (const T *)b->x, (T *)b->dresidual, l->rows,
                                                         l->channels, l->activation, (float *)l->scratch, second);
    launch_add_parts(stream, l, c, finish_gradients{*b});
    if (b->dresidual) { /* g is there now, and dy may not be any more */
        dy = (const T *)b->dresidual;
        dy2 = y = NULL;
        second.mask = NULL;
    }
    backward_apply<T, V, INTO><<<apply_grid(c, l->rows), block, 0, stream>>>(
        dy, dy2, y, (const T *)b->x, (T *)b->dx, l->rows, l->channels, l->activation, second);
    return cudaGetLastError();
}

/* With an activation that needs what went into it there is no dresidual (op.h). */
template <typename T, int V>
cudaError_t backward(cudaStream_t stream, const norm_launch *l, const norm_backward_args *b)
{
    return b->bias ? backward_with<T, V, true>(stream, l, b) : backward_with<T, V, false>(stream, l, b);
}

template <typename T, int V>
cudaError_t column_sums_of(cudaStream_t stream, const norm_launch *l, const void *x, float *out)
{
    cut c = cut_of(l->rows, l->channels);

    column_kernel<T, V><<<dim3(c.columns, c.parts), dim3(c.tx, c.ty), 0, stream>>>((const T *)x, l->rows, l->channels,
                                                                                   (float *)l->scratch);
    launch_add_parts(stream, l, c, finish_sums{out});
    return cudaGetLastError();
}

} // namespace

size_t norm_scratch_bytes(int64_t rows, int channels)
{
    return (size_t)cut_of(rows, channels).parts * 2 * (size_t)channels * sizeof(float);
}

cudaError_t norm_forward_training(cudaStream_t stream, const struct norm_launch *l, const struct norm_forward_args *f)
{
    cudaError_t status;

    if (norm_cluster_forward(stream, l, f, &status))
        return status;
#define CALL(T, V) forward<T, V>(stream, l, f)
    return DISPATCH(l->number, l->channels, CALL);
#undef CALL
}

cudaError_t norm_forward_inference(cudaStream_t stream, const struct norm_launch *l, const struct norm_forward_args *f)
{
#define CALL(T, V) launch_apply<T, V>(stream, l, f, false)
    return DISPATCH(l->number, l->channels, CALL);
#undef CALL
}

cudaError_t norm_apply(cudaStream_t stream, const struct norm_launch *l, const struct norm_forward_args *f)
{
#define CALL(T, V) launch_apply<T, V>(stream, l, f, true)
    return DISPATCH(l->number, l->channels, CALL);
#undef CALL
}

cudaError_t norm_backward(cudaStream_t stream, const struct norm_launch *l, const struct norm_backward_args *b)
{
    cudaError_t status;

    if (norm_cluster_backward(stream, l, b, &status))
        return status;
#define CALL(T, V) backward<T, V>(stream, l, b)
    return DISPATCH(l->number, l->channels, CALL);
#undef CALL
}

cudaError_t column_sums(cudaStream_t stream, const struct norm_launch *l, const void *x, float *out)
{
#define CALL(T, V) column_sums_of<T, V>(stream, l, x, out)
    return DISPATCH(l->number, l->channels, CALL);
#undef CALL
}
