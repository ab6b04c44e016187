/* norm_cluster.cu - batch normalisation in one kernel, for tensors of which a cluster of blocks can hold a few channels
 * in shared memory. Every number is read once and written once. See launch.h, norm.cuh
 *
 * A cluster takes C channels, 16 or 8, its blocks share the rows. A block keeps what it reads, adds up two sums a
 * channel, and all blocks of the cluster add each other's sums in the order of their ranks, so that all know the same
 * totals. */
#include <cooperative_groups.h>

#include "engine/cuda/norm.cuh"

namespace cg = cooperative_groups;

namespace
{

enum {
    THREADS = 512,
    WARPS = THREADS / 32,
    CHANNELS = 16,   /* of a cluster: two vectors of 8, a sector of memory in bf16; 8 if they are no multiple of 16 */
    MOST_BLOCKS = 8, /* of a cluster */
    MOST_SHARED = 52 << 10, /* with more, two passes by many small blocks are faster */
    WANTED_BLOCKS = 128,
    LEAST_ROWS = THREADS / 2,
};

/* Eight numbers as they lie in memory. */
template <typename T> struct raw8 {
    uint4 part[sizeof(T) / 2];
};

template <typename T> __device__ inline raw8<T> load_raw(const T *p)
{
    return *reinterpret_cast<const raw8<T> *>(p);
}

template <typename T> __device__ inline vec<8> values_of(const raw8<T> &raw)
{
    return load<8>(reinterpret_cast<const T *>(&raw));
}

template <int C> struct sums {
    float first[C], second[C];
};

/* The totals over the cluster of each thread's two sums for its vector of channels; in shared memory of each block. */
template <int C> __device__ void add_up(vec<8> a, vec<8> b, sums<C> *total)
{
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900 /* elsewhere nobody launches this */
    enum { VECTORS = C / 8 };
    __shared__ sums<C> warps[WARPS], own;
    cg::cluster_group cluster = cg::this_cluster();
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int step = VECTORS; step < 32; step *= 2) {
            a.v[i] += __shfl_xor_sync(0xFFFFFFFF, a.v[i], step);
            b.v[i] += __shfl_xor_sync(0xFFFFFFFF, b.v[i], step);
        }
    if (lane < VECTORS)
#pragma unroll
        for (int i = 0; i < 8; i++) {
            warps[warp].first[lane * 8 + i] = a.v[i];
            warps[warp].second[lane * 8 + i] = b.v[i];
        }
    __syncthreads();
    if (threadIdx.x < 2 * C) {
        float sum = 0;

        for (int w = 0; w < WARPS; w++)
            sum += warps[w].first[threadIdx.x]; /* `second` lies behind `first` */
        own.first[threadIdx.x] = sum;
    }
    cluster.sync();
    if (threadIdx.x < 2 * C) {
        float sum = 0;

        for (unsigned rank = 0; rank < cluster.num_blocks(); rank++)
            sum += cluster.map_shared_rank(own.first, rank)[threadIdx.x];
        total->first[threadIdx.x] = sum;
    }
    cluster.sync(); /* nobody leaves before all have read */
#endif
}

/* This block's share of the rows. */
struct share {
    int64_t first, last;
};

__device__ share share_of(int64_t rows)
{
    int64_t blocks = gridDim.y, each = (rows + blocks - 1) / blocks, first = blockIdx.y * each;

    return {first, first + each < rows ? first + each : rows};
}

template <typename T, int C>
__global__ void __launch_bounds__(THREADS, 2)
    forward_kernel(const T *x, int64_t rows, int channels, enum activation activation, float eps, float momentum,
                   const T *residual, T *y, norm_forward_args f)
{
    enum { VECTORS = C / 8, ROWS = THREADS / VECTORS };
    extern __shared__ uint4 memory[];
    __shared__ sums<C> total;
    raw8<T> *kept = reinterpret_cast<raw8<T> *>(memory);
    int vector = threadIdx.x % VECTORS, c = blockIdx.x * C + vector * 8;
    const share mine = share_of(rows);
    vec<8> shift = load<8>(x + c), sum = {}, square = {}, scale, bias;

#pragma unroll 4
    for (int64_t row = mine.first + threadIdx.x / VECTORS; row < mine.last; row += ROWS) {
        raw8<T> raw = load_raw(x + row * channels + c);
        vec<8> value = values_of<T>(raw);

        kept[(row - mine.first) * VECTORS + vector] = raw;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float d = value.v[i] - shift.v[i];

            sum.v[i] += d;
            square.v[i] += d * d;
        }
    }
    add_up(sum, square, &total);
    __syncthreads();
    if (blockIdx.y == 0 && threadIdx.x < C)
        norm_statistics(blockIdx.x * C + threadIdx.x, to_float(reinterpret_cast<const T *>(memory)[threadIdx.x]),
                        (double)total.first[threadIdx.x], (double)total.second[threadIdx.x], rows, eps, momentum, f);
    scale = load<8>(f.weight + c);
    bias = load<8>(f.bias + c);
#pragma unroll
    for (int i = 0; i < 8; i++) { /* shift becomes the mean */
        float offset = total.first[vector * 8 + i] / (float)rows;
        float var = total.second[vector * 8 + i] / (float)rows - offset * offset;

        shift.v[i] += offset;
        scale.v[i] *= rsqrtf((var > 0 ? var : 0) + eps);
    }
    for (int64_t row = mine.first + threadIdx.x / VECTORS; row < mine.last; row += ROWS) {
        int64_t at = row * channels + c;
        vec<8> value = values_of<T>(kept[(row - mine.first) * VECTORS + vector]), add = {};
        unsigned bits = 0;

        if (residual)
            add = load<8>(residual + at);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            value.v[i] = (value.v[i] - shift.v[i]) * scale.v[i] + bias.v[i] + add.v[i];
            bits |= (unsigned)(value.v[i] > 0) << i;
        }
        activate<8>(activation, value);
        store<8>(y + at, value);
        if (f.mask)
            f.mask[at / 8] = (uint8_t)bits;
    }
}

template <typename T, int C, bool INTO>
__global__ void __launch_bounds__(THREADS, 2)
    backward_kernel(const T *dy, const T *dy2, const T *y, const T *x, T *dx, T *dresidual, int64_t rows, int channels,
                    enum activation activation, norm_backward_args b)
{
    enum { VECTORS = C / 8, ROWS = THREADS / VECTORS };
    extern __shared__ uint4 memory[];
    __shared__ sums<C> total;
    const share mine = share_of(rows);
    raw8<T> *kept = reinterpret_cast<raw8<T> *>(memory);
    int vector = threadIdx.x % VECTORS, c = blockIdx.x * C + vector * 8;
    vec<8> mean = load<8>(b.save_mean + c), invstd = load<8>(b.save_invstd + c), scale = load<8>(b.weight + c);
    vec<8> sum = {}, product = {};
    into<8> in;

    if (INTO)
        in.load_from(b, c);
#pragma unroll 2
    for (int64_t row = mine.first + threadIdx.x / VECTORS; row < mine.last; row += ROWS) {
        int64_t at = row * channels + c, place = ((row - mine.first) * VECTORS + vector) * 2;
        raw8<T> raw = load_raw(x + at);
        vec<8> value = values_of<T>(raw), g = norm_gradient<T, 8>(dy, dy2, y, b.mask, at);

        if (INTO)
            in.pass(activation, value, g);
        round_to<T, 8>(g);
        kept[place] = raw;
        store<8>(reinterpret_cast<T *>(&kept[place + 1]), g);
        if (dresidual)
            store<8>(dresidual + at, g);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            sum.v[i] += g.v[i];
            product.v[i] += g.v[i] * (value.v[i] - mean.v[i]);
        }
    }
    add_up(sum, product, &total);
    __syncthreads();
    if (blockIdx.y == 0 && threadIdx.x < C) {
        int channel = blockIdx.x * C + threadIdx.x;

        b.dbias[channel] = total.first[threadIdx.x];
        b.dweight[channel] = total.second[threadIdx.x] * b.save_invstd[channel];
    }
#pragma unroll
    for (int i = 0; i < 8; i++) { /* dx = scale (g - sum - (x - mean) product) */
        sum.v[i] = total.first[vector * 8 + i] / (float)rows;
        product.v[i] = total.second[vector * 8 + i] / (float)rows * invstd.v[i] * invstd.v[i];
        scale.v[i] *= invstd.v[i];
    }
    for (int64_t row = mine.first + threadIdx.x / VECTORS; row < mine.last; row += ROWS) {
        int64_t place = ((row - mine.first) * VECTORS + vector) * 2;
        vec<8> value = values_of<T>(kept[place]), g = values_of<T>(kept[place + 1]);

#pragma unroll
        for (int i = 0; i < 8; i++)
            g.v[i] = scale.v[i] * (g.v[i] - sum.v[i] - (value.v[i] - mean.v[i]) * product.v[i]);
        store<8>(dx + row * channels + c, g);
    }
}

/* How many blocks a cluster has, and the shared memory of each, to keep `bytes` a row; false: it does not fit. */
bool shape_of(int64_t rows, int channels, int each, size_t bytes, unsigned *blocks, size_t *shared)
{
    unsigned n = 1;

    if (channels % each)
        return false;
    while (n < MOST_BLOCKS && (rows + n - 1) / n * (int64_t)bytes > (int64_t)MOST_SHARED)
        n *= 2;
    while (n < MOST_BLOCKS && (int64_t)n * (channels / each) < WANTED_BLOCKS && rows / (2 * n) >= LEAST_ROWS)
        n *= 2;
    *blocks = n;
    *shared = (size_t)((rows + n - 1) / n) * bytes;
    return *shared <= MOST_SHARED;
}

template <typename Kernel, typename... Args>
cudaError_t launch(cudaStream_t stream, Kernel kernel, unsigned clusters, unsigned blocks, size_t shared, Args... args)
{
    cudaLaunchAttribute attribute = {};
    cudaLaunchConfig_t config = {};
    cudaError_t status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, MOST_SHARED);

    if (status != cudaSuccess)
        return status;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = 1;
    attribute.val.clusterDim.y = blocks;
    attribute.val.clusterDim.z = 1;
    config.gridDim = dim3(clusters, blocks);
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = 1;
    return cudaLaunchKernelEx(&config, kernel, args...);
}

} // namespace

template <typename T, int C>
static bool forward(cudaStream_t stream, const norm_launch *l, const norm_forward_args *f, cudaError_t *status)
{
    unsigned blocks;
    size_t shared;

    if (!shape_of(l->rows, l->channels, C, C * sizeof(T), &blocks, &shared))
        return false;
    *status = launch(stream, forward_kernel<T, C>, (unsigned)(l->channels / C), blocks, shared, (const T *)f->x,
                     l->rows, l->channels, l->activation, l->eps, l->momentum, (const T *)f->residual, (T *)f->y, *f);
    return true;
}

template <typename T, int C>
static bool backward(cudaStream_t stream, const norm_launch *l, const norm_backward_args *b, cudaError_t *status)
{
    norm_backward_args args = *b;
    bool relu = l->activation == ACTIVATION_RELU;
    unsigned blocks;
    size_t shared;

    if (!shape_of(l->rows, l->channels, C, 2 * C * sizeof(T), &blocks, &shared))
        return false;
    if (!relu)
        args.mask = NULL;
    *status = launch(stream, b->bias ? backward_kernel<T, C, true> : backward_kernel<T, C, false>,
                     (unsigned)(l->channels / C), blocks, shared, (const T *)b->dy, (const T *)b->dy2,
                     relu && !b->mask ? (const T *)b->y : (const T *)NULL, (const T *)b->x, (T *)b->dx,
                     (T *)b->dresidual, l->rows, l->channels, l->activation, args);
    return true;
}

#define BY_CHANNELS(l, call)                                                                                           \
    ((l)->number == NUMBER_BF16 ? ((l)->channels % CHANNELS ? call(bf16, 8) : call(bf16, CHANNELS))                    \
                                : ((l)->channels % CHANNELS ? call(float, 8) : call(float, CHANNELS)))

bool norm_cluster_forward(cudaStream_t stream, const norm_launch *l, const norm_forward_args *f, cudaError_t *status)
{
#define CALL(T, C) forward<T, C>(stream, l, f, status)
    return l->clusters && BY_CHANNELS(l, CALL);
#undef CALL
}

bool norm_cluster_backward(cudaStream_t stream, const norm_launch *l, const norm_backward_args *b, cudaError_t *status)
{
#define CALL(T, C) backward<T, C>(stream, l, b, status)
    return l->clusters && BY_CHANNELS(l, CALL);
#undef CALL
}
