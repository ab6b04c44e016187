/* attention_head.cu - attention of up to 208 tokens on matrix units, a whole head at a time in shared memory: BF16,
 * heads of 64 channels, as attention_mma.cu, whose results these are to the bit. (The 197 tokens of 224×224 pixels are
 * 13 times 16.)
 *
 * A block has a head's matrices in shared memory and goes on with another head, whose numbers are on their way while it
 * computes; a warp has 16 of the tokens. In the backward they are keys first: over all queries, the warp makes its rows
 * of dK and dV in registers, and leaves those of dS in shared memory. Then they are queries: dQ is dS K. So scores are
 * made once, five products instead of seven, every input is read once, and all sums are a warp's own.
 *
 * Rows behind a head's last are zeros; weights there are at most 1, so that what they give is 0, too.
 *
 * Where there are few heads, the forward's blocks take 16 queries each instead, and their warps share the keys. */
#include "engine/cuda/attention.cuh"
#include "engine/cuda/attention_tiles.cuh"

namespace
{

enum { MOST_TILES = 13, MOST_THREADS = 32 * MOST_TILES };
enum { MOST_PARTS = (16 * MOST_TILES + COLUMNS - 1) / COLUMNS, PITCH = DIM + 4 };

/* Where a head's matrices are. */
struct head {
    int64_t qkv, y, stats, channels, stride;
};

__device__ inline head head_of(const attention_launch &a, int index)
{
    int n = index / a.heads, h = index % a.heads;
    head p;

    p.channels = (int64_t)a.heads * DIM;
    p.stride = 3 * p.channels;
    p.qkv = (int64_t)n * a.tokens * p.stride + h * DIM;
    p.y = (int64_t)n * a.tokens * p.channels + h * DIM;
    p.stats = (int64_t)index * a.tokens;
    return p;
}

/* A warp's 16 by 64 result times a factor, straight to memory: neighbours swap halves, so that four threads fill 32
 * bytes. */
__device__ inline void write_out(const float sum[8][4], float factor, bf16 *matrix, int64_t stride, int first,
                                 int tokens)
{
    int lane = threadIdx.x % 32;
    bool odd = lane % 2;

#pragma unroll
    for (int k = 0; k < 2; k++) {
        int row = first + lane / 4 + k * 8;

#pragma unroll
        for (int j = 0; j < 8; j += 2) {
            unsigned left = pack(sum[j][2 * k] * factor, sum[j][2 * k + 1] * factor);
            unsigned right = pack(sum[j + 1][2 * k] * factor, sum[j + 1][2 * k + 1] * factor);
            unsigned other = __shfl_xor_sync(~0u, odd ? left : right, 1);

            if (row < tokens)
                *reinterpret_cast<uint2 *>(matrix + row * stride + (j + odd) * CHUNK + lane % 4 / 2 * 4) =
                    odd ? make_uint2(other, right) : make_uint2(left, other);
        }
    }
}

/* --- forward ----------------------------------------------------------------------------------------------------- */

/* q, k and v one after the other, `rows` of each. */
__device__ inline void fetch_qkv(const attention_launch &a, const head &p, bf16 *to, const bf16 *qkv, int rows)
{
    for (int i = 0; i < 3; i++)
        fetch(to + i * rows * DIM, qkv + p.qkv + i * p.channels, p.stride, 0, a.tokens, rows);
}

__global__ void __launch_bounds__(MOST_THREADS, 1)
    forward_heads(attention_launch a, const bf16 *qkv, bf16 *y, float *stats)
{
    extern __shared__ __align__(128) char memory[];
    int count = a.n * a.heads, rows = (a.tokens + 15) / 16 * 16, size = rows * DIM, lane = threadIdx.x % 32;
    int first = threadIdx.x / 32 * 16;
    bf16 *now = reinterpret_cast<bf16 *>(memory), *later = now + 3 * size;
    float scale = a.scale * LOG2_E;

    fetch_qkv(a, head_of(a, blockIdx.x), now, qkv, rows);
    fetch_commit();
    for (int index = blockIdx.x; index < count; index += gridDim.x) {
        const head p = head_of(a, index);
        running r = {{}, {-INFINITY, -INFINITY}, {}};
        fragment q_rows[4];
        bf16 *const used = now;
        int column = 0;

        fetch_wait<0>(); /* and nobody reads the head before any more */
        if (index + (int)gridDim.x < count)
            fetch_qkv(a, head_of(a, index + gridDim.x), later, qkv, rows);
        fetch_commit();
#pragma unroll
        for (int step = 0; step < 4; step++)
            load_a(q_rows[step], now, first, step);
#pragma unroll 1
        for (; column + COLUMNS <= a.tokens; column += COLUMNS)
            attend<true>(r, q_rows, now + size + column * DIM, now + 2 * size + column * DIM, COLUMNS, scale);
        if (column < a.tokens)
            attend<false>(r, q_rows, now + size + column * DIM, now + 2 * size + column * DIM, a.tokens - column,
                          scale);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int row = first + lane / 4 + i * 8;

            r.total[i] = quad_sum(r.total[i]);
            if (stats && lane % 4 == 0 && row < a.tokens)
                stats[p.stats + row] = r.most[i] * scale + log2f(r.total[i]);
            r.total[i] = 1 / r.total[i];
        }
#pragma unroll
        for (int j = 0; j < 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                r.sum[j][i] *= r.total[i / 2];
        write_out(r.sum, 1, y + p.y, p.channels, first, a.tokens);
        now = later;
        later = used;
    }
}

/* A block takes 16 queries of a head, each of its warps 64 of the keys; then they add up. */
__global__ void __launch_bounds__(32 * MOST_PARTS)
    forward_parts(attention_launch a, const bf16 *qkv, bf16 *y, float *stats)
{
    extern __shared__ __align__(128) char memory[];
    __shared__ float most[MOST_PARTS][16], total[MOST_PARTS][16];
    int tiles = (a.tokens + 15) / 16, first = blockIdx.x % tiles * 16, parts = blockDim.x / 32;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, rows = parts * COLUMNS;
    const head p = head_of(a, blockIdx.x / tiles);
    bf16 *q = reinterpret_cast<bf16 *>(memory), *k = q + 16 * DIM, *v = k + rows * DIM;
    float *sums = reinterpret_cast<float *>(k), scale = a.scale * LOG2_E;
    running r = {{}, {-INFINITY, -INFINITY}, {}};
    fragment q_rows[4];

    fetch(q, qkv + p.qkv, p.stride, first, a.tokens, 16);
    fetch(k, qkv + p.qkv + p.channels, p.stride, 0, a.tokens, rows);
    fetch(v, qkv + p.qkv + 2 * p.channels, p.stride, 0, a.tokens, rows);
    fetch_commit();
    fetch_wait<0>();
#pragma unroll
    for (int step = 0; step < 4; step++)
        load_a(q_rows[step], q, 0, step);
    attend<false>(r, q_rows, k + warp * TILE, v + warp * TILE, a.tokens - warp * COLUMNS, scale);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        r.total[i] = quad_sum(r.total[i]);
        if (lane % 4 == 0) {
            most[warp][lane / 4 + i * 8] = r.most[i] * scale;
            total[warp][lane / 4 + i * 8] = r.total[i];
        }
    }
    __syncthreads(); /* k and v are not read any more */
#pragma unroll
    for (int j = 0; j < 8; j++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            *reinterpret_cast<float2 *>(sums + (warp * 16 + lane / 4 + i * 8) * PITCH + j * 8 + lane % 4 * 2) =
                make_float2(r.sum[j][2 * i], r.sum[j][2 * i + 1]);
    __syncthreads();
    for (int item = threadIdx.x; item < 16 * CHUNKS; item += blockDim.x) {
        int row = item / CHUNKS, chunk = item % CHUNKS * CHUNK;
        float largest = -INFINITY, whole = 0;
        vec<8> sum = {};

        if (first + row >= a.tokens)
            break;
        for (int part = 0; part < parts; part++)
            largest = fmaxf(largest, most[part][row]);
        for (int part = 0; part < parts; part++) {
            float share = power(most[part][row] - largest);
            vec<8> one = load<8>(sums + (part * 16 + row) * PITCH + chunk);

            whole += share * total[part][row];
#pragma unroll
            for (int i = 0; i < 8; i++)
                sum.v[i] += share * one.v[i];
        }
#pragma unroll
        for (int i = 0; i < 8; i++)
            sum.v[i] /= whole;
        store<8>(y + p.y + (int64_t)(first + row) * p.channels + chunk, sum);
        if (stats && chunk == 0)
            stats[p.stats + first + row] = largest + log2f(whole);
    }
}

/* --- backward ---------------------------------------------------------------------------------------------------- */

/* A head in shared memory: matrices of `rows` tokens, a multiple of 16. */
struct room {
    bf16 *q, *dy, *v, *k, *next_k;
    bf16 *ds;  /* turned: a row for each key, of `pitch` queries; an odd number of 16 bytes, which spreads over banks */
    int pitch; /* in numbers */
    float *log_sums, *products;
};

size_t room_bytes(int rows)
{
    return (size_t)rows * (5 * DIM + rows + 8) * sizeof(bf16) + 2 * (size_t)rows * sizeof(float);
}

__device__ inline room room_of(char *memory, int rows)
{
    bf16 *numbers = reinterpret_cast<bf16 *>(memory);
    room r;

    r.q = numbers;
    r.dy = r.q + rows * DIM;
    r.v = r.dy + rows * DIM;
    r.k = r.v + rows * DIM;
    r.next_k = r.k + rows * DIM;
    r.ds = r.next_k + rows * DIM;
    r.pitch = rows + 8;
    r.log_sums = reinterpret_cast<float *>(r.ds + rows * r.pitch);
    r.products = r.log_sums + rows;
    return r;
}

__device__ inline void fetch_head(const attention_launch &a, const head &p, const room &r, bf16 *k, const bf16 *dy,
                                  const bf16 *qkv, int rows)
{
    fetch(k, qkv + p.qkv + p.channels, p.stride, 0, a.tokens, rows);
    fetch(r.v, qkv + p.qkv + 2 * p.channels, p.stride, 0, a.tokens, rows);
    fetch(r.q, qkv + p.qkv, p.stride, 0, a.tokens, rows);
    fetch(r.dy, dy + p.y, p.channels, 0, a.tokens, rows);
}

/* For each of a warp's 16 rows the sum of dy y, and its logarithm from the forward. */
__device__ inline void prepare_rows(const attention_launch &a, const head &p, const room &r, const bf16 *dy,
                                    const bf16 *y, const float *stats, int first)
{
    int lane = threadIdx.x % 32;

#pragma unroll
    for (int k = 0; k < 2; k++) { /* a quarter of a row each */
        int row = first + lane / 4 + k * 8;
        int64_t at = p.y + (int64_t)row * p.channels + lane % 4 * 16;
        float product = 0;

        if (row < a.tokens)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                vec<8> b = load<8>(dy + at + half * 8), c = load<8>(y + at + half * 8);

#pragma unroll
                for (int i = 0; i < 8; i++)
                    product += b.v[i] * c.v[i];
            }
        product = quad_sum(product);
        if (lane % 4 == 0) {
            r.products[row] = product;
            r.log_sums[row] = row < a.tokens ? stats[p.stats + row] : 0;
        }
    }
}

/* dK (not scaled) and dV of a warp's 16 keys; dS of them to shared memory. */
__device__ inline void backward_keys(const room &r, int first, int tiles, float scale, float sum_k[8][4],
                                     float sum_v[8][4])
{
    int lane = threadIdx.x % 32;
    bf16 *place = r.ds + (first + lane / 4) * r.pitch + lane % 4 * 2;
    fragment k_rows[4], v_rows[4];

#pragma unroll
    for (int step = 0; step < 4; step++) {
        load_a(k_rows[step], r.k, first, step);
        load_a(v_rows[step], r.v, first, step);
    }
#pragma unroll 1
    for (int t = 0; t < tiles; t++) {
        float s[2][4], ds[2][4];
        fragment rows;

        scores(s, k_rows, r.q, t * 16);
        scores(ds, v_rows, r.dy, t * 16);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int column = t * 16 + half * 8 + lane % 4 * 2;
            const float2 log_sum = *reinterpret_cast<const float2 *>(r.log_sums + column);
            const float2 product = *reinterpret_cast<const float2 *>(r.products + column);

#pragma unroll
            for (int i = 0; i < 4; i++) {
                s[half][i] = power(fminf(s[half][i] * scale - (i % 2 ? log_sum.y : log_sum.x), 0));
                ds[half][i] = s[half][i] * (ds[half][i] - (i % 2 ? product.y : product.x));
            }
        }
        as_a(rows, s[0], s[1]);
        accumulate(sum_v, rows, r.dy, t * 16);
        as_a(rows, ds[0], ds[1]);
#pragma unroll
        for (int i = 0; i < 4; i++)
            *reinterpret_cast<unsigned *>(place + i % 2 * 8 * r.pitch + i / 2 * 8 + t * 16) = rows[i];
        accumulate(sum_k, rows, r.q, t * 16);
    }
}

/* dQ (not scaled) of a warp's 16 queries. */
__device__ inline void backward_queries(const room &r, int first, int tiles, float sum[8][4])
{
    int lane = threadIdx.x % 32;
    unsigned from =
        (unsigned)__cvta_generic_to_shared(r.ds + (lane / 16 * 8 + lane % 8) * r.pitch + first + lane / 8 % 2 * 8);

#pragma unroll 1
    for (int t = 0; t < tiles; t++) {
        fragment rows;

        load_matrix_turned(rows, from + (unsigned)(t * 16 * r.pitch * sizeof(bf16)));
        accumulate(sum, rows, r.k, t * 16);
    }
}

__global__ void __launch_bounds__(MOST_THREADS, 1)
    backward_heads(attention_launch a, const bf16 *dy, const bf16 *qkv, const bf16 *y, const float *stats, bf16 *dqkv)
{
    extern __shared__ __align__(128) char memory[];
    int tiles = (a.tokens + 15) / 16, rows = 16 * tiles, first = threadIdx.x / 32 * 16;
    room r = room_of(memory, rows);
    int count = a.n * a.heads;

    fetch_head(a, head_of(a, blockIdx.x), r, r.k, dy, qkv, rows);
    fetch_commit();
    prepare_rows(a, head_of(a, blockIdx.x), r, dy, y, stats, first);
    for (int index = blockIdx.x; index < count; index += gridDim.x) {
        const head p = head_of(a, index), next = head_of(a, index + gridDim.x);
        bool more = index + (int)gridDim.x < count;
        bf16 *last = r.k;

        fetch_wait<0>();
        {
            float sum_k[8][4] = {}, sum_v[8][4] = {};

            backward_keys(r, first, tiles, a.scale * LOG2_E, sum_k, sum_v);
            __syncthreads(); /* dS is complete, and only k is still read */
            if (more)
                fetch_head(a, next, r, r.next_k, dy, qkv, rows);
            fetch_commit();
            write_out(sum_k, a.scale, dqkv + p.qkv + p.channels, p.stride, first, a.tokens);
            write_out(sum_v, 1, dqkv + p.qkv + 2 * p.channels, p.stride, first, a.tokens);
        }
        {
            float sum[8][4] = {};

            backward_queries(r, first, tiles, sum);
            write_out(sum, a.scale, dqkv + p.qkv, p.stride, first, a.tokens);
        }
        if (more)
            prepare_rows(a, next, r, dy, y, stats, first);
        r.k = r.next_k;
        r.next_k = last;
    }
}

/* --- launches ---------------------------------------------------------------------------------------------------- */

int tiles_of(const attention_launch *a)
{
    return (a->tokens + 15) / 16;
}

cudaError_t device_attribute(int *value, cudaDeviceAttr attribute)
{
    int device = 0;
    cudaError_t status = cudaGetDevice(&device);

    return status == cudaSuccess ? cudaDeviceGetAttribute(value, attribute, device) : status;
}

/* As many blocks as the device has place for, and heads for them: a warp for 16 tokens, with so much shared memory. */
template <typename... T>
cudaError_t blocks_of(const attention_launch *a, void (*kernel)(T...), size_t shared, unsigned *ret)
{
    int processors = 0, each = 0, count = a->n * a->heads;
    cudaError_t status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);

    if (status == cudaSuccess)
        status = device_attribute(&processors, cudaDevAttrMultiProcessorCount);
    if (status == cudaSuccess)
        status = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, 32 * tiles_of(a), shared);
    *ret = (unsigned)(count < processors * each ? count : processors * each);
    return status;
}

} // namespace

bool attention_head_fits(const attention_launch *a)
{
    int most = 0;

    return attention_mma_fits(a) && tiles_of(a) <= MOST_TILES &&
           device_attribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin) == cudaSuccess &&
           room_bytes(16 * tiles_of(a)) <= (size_t)most;
}

cudaError_t attention_head(cudaStream_t stream, const attention_launch *a, const void *qkv, void *y, float *stats)
{
    size_t shared = (size_t)16 * tiles_of(a) * 6 * DIM * sizeof(bf16);
    unsigned blocks = 0;
    cudaError_t status = blocks_of(a, forward_heads, shared, &blocks);

    if (status != cudaSuccess)
        return status;
    forward_heads<<<blocks, 32 * tiles_of(a), shared, stream>>>(*a, (const bf16 *)qkv, (bf16 *)y, stats);
    return cudaGetLastError();
}

cudaError_t attention_head_parts(cudaStream_t stream, const attention_launch *a, const void *qkv, void *y, float *stats)
{
    int parts = (a->tokens + COLUMNS - 1) / COLUMNS;
    size_t shared = (size_t)(16 + 2 * parts * COLUMNS) * DIM * sizeof(bf16);
    cudaError_t status = cudaFuncSetAttribute(forward_parts, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);

    if (status != cudaSuccess)
        return status;
    forward_parts<<<(unsigned)(a->n * a->heads * tiles_of(a)), 32 * parts, shared, stream>>>(*a, (const bf16 *)qkv,
                                                                                             (bf16 *)y, stats);
    return cudaGetLastError();
}

cudaError_t attention_head_backward(cudaStream_t stream, const attention_launch *a, const attention_backward_args *b)
{
    size_t shared = room_bytes(16 * tiles_of(a));
    unsigned blocks = 0;
    cudaError_t status = blocks_of(a, backward_heads, shared, &blocks);

    if (status != cudaSuccess)
        return status;
    backward_heads<<<blocks, 32 * tiles_of(a), shared, stream>>>(*a, (const bf16 *)b->dy, (const bf16 *)b->qkv,
                                                                 (const bf16 *)b->y, b->stats, (bf16 *)b->dqkv);
    return cudaGetLastError();
}
