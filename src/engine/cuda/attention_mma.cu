/* attention_mma.cu - attention on matrix units: BF16, heads of 64 channels. See launch.h
 *
 * After Dao, "FlashAttention-2", 2023: a warp takes 16 rows of a head, a block up to seven warps, and goes over the
 * other side's rows 64 at a time through shared memory, the next ones on their way while it computes. Scores never
 * leave registers. The backward is two kernels, one for dQ and one for dK and dV, each of which computes the scores
 * anew: no sums are shared between blocks, so equal inputs give equal bits. (197 tokens are 13 times 16 rows, two
 * blocks.)
 *
 * Rows behind a head's last are zeros in shared memory. Only the forward has to leave them out; in the backward they
 * add nothing, since every product with them has a row of zeros on one side. */
#include "engine/cuda/attention.cuh"
#include "engine/cuda/attention_tiles.cuh"

namespace
{

enum { MOST_WARPS = 7, MOST_THREADS = 32 * MOST_WARPS, STAGES = 2, FEW_BLOCKS = 132, FEW_WARPS = 4 };

/* Where a head's matrices are. Blocks of one head are neighbours, so that they find its rows in the cache. */
struct place {
    int first, rows; /* of this block */
    int64_t qkv, y, stats, stride;
};

__device__ inline place place_of(const attention_launch &a)
{
    int rows = blockDim.x / 2, blocks = (a.tokens + rows - 1) / rows, index = blockIdx.x / blocks;
    int n = index / a.heads, h = index % a.heads;
    int64_t channels = (int64_t)a.heads * DIM;
    place p;

    p.first = blockIdx.x % blocks * rows;
    p.rows = rows;
    p.stride = 3 * channels;
    p.qkv = (int64_t)n * a.tokens * p.stride + h * DIM;
    p.y = (int64_t)n * a.tokens * channels + h * DIM;
    p.stats = (int64_t)index * a.tokens;
    return p;
}

/* Two matrices' rows of a stage. */
struct stage {
    bf16 *left, *right;
};

__device__ inline stage stage_of(bf16 *memory, int block)
{
    bf16 *left = memory + block % STAGES * 2 * TILE;

    return {left, left + TILE};
}

__global__ void __launch_bounds__(MOST_THREADS, 2) forward(attention_launch a, const bf16 *qkv, bf16 *y, float *stats)
{
    __shared__ __align__(128) bf16 memory[STAGES * 2 * TILE];
    const place p = place_of(a);
    const int64_t channels = p.stride / 3;
    const bf16 *q = qkv + p.qkv, *k = q + channels, *v = k + channels;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, blocks = (a.tokens + COLUMNS - 1) / COLUMNS;
    bool idle = p.first + warp * 16 >= a.tokens;
    running r = {{}, {-INFINITY, -INFINITY}, {}};
    float scale = a.scale * LOG2_E;
    fragment q_rows[4];

    fetch(stage_of(memory, 1).left, q, p.stride, p.first, a.tokens, p.rows); /* they fit into a stage */
    fetch_commit();
    fetch(stage_of(memory, 0).left, k, p.stride, 0, a.tokens, COLUMNS);
    fetch(stage_of(memory, 0).right, v, p.stride, 0, a.tokens, COLUMNS);
    fetch_commit();
    fetch_wait<1>();
#pragma unroll
    for (int step = 0; step < 4; step++)
        load_a(q_rows[step], stage_of(memory, 1).left, warp * 16, step);
    __syncthreads();
    for (int block = 0; block < blocks; block++) {
        const stage now = stage_of(memory, block), next = stage_of(memory, block + 1);
        int columns = a.tokens - block * COLUMNS;

        if (block + 1 < blocks) {
            fetch(next.left, k, p.stride, (block + 1) * COLUMNS, a.tokens, COLUMNS);
            fetch(next.right, v, p.stride, (block + 1) * COLUMNS, a.tokens, COLUMNS);
        }
        fetch_commit();
        fetch_wait<1>();
        if (!idle && columns >= COLUMNS)
            attend<true>(r, q_rows, now.left, now.right, columns, scale);
        else if (!idle)
            attend<false>(r, q_rows, now.left, now.right, columns, scale);
        __syncthreads(); /* before the next round's fetch overwrites this stage */
    }
    if (idle)
        return;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = p.first + warp * 16 + lane / 4 + i * 8;

        r.total[i] = quad_sum(r.total[i]);
        if (stats && lane % 4 == 0 && row < a.tokens)
            stats[p.stats + row] = r.most[i] * scale + log2f(r.total[i]);
    }
    write_rows(memory, r.sum, 1 / r.total[0], 1 / r.total[1], y + p.y, channels, p.first, a.tokens);
}

/* For each of a thread's two rows the sum of dy y. */
__device__ inline void row_products(float product[2], const attention_launch &a, const place &p, const bf16 *dy,
                                    const bf16 *y)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

#pragma unroll
    for (int r = 0; r < 2; r++) { /* a quarter of a row each */
        int row = p.first + warp * 16 + lane / 4 + r * 8;
        int64_t at = p.y + (int64_t)row * a.heads * DIM + lane % 4 * 16;

        product[r] = 0;
        if (row < a.tokens)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                vec<8> b = load<8>(dy + at + half * 8), c = load<8>(y + at + half * 8);

#pragma unroll
                for (int i = 0; i < 8; i++)
                    product[r] += b.v[i] * c.v[i];
            }
        product[r] = quad_sum(product[r]);
    }
}

/* dQ; and, on the way, the sums of dy y that the other kernel needs. */
__global__ void __launch_bounds__(MOST_THREADS, 2)
    backward_q(attention_launch a, const bf16 *dy, const bf16 *qkv, const bf16 *y, const float *stats, float *products,
               bf16 *dqkv)
{
    __shared__ __align__(128) bf16 memory[STAGES * 2 * TILE];
    const place p = place_of(a);
    const int64_t channels = p.stride / 3;
    const bf16 *q = qkv + p.qkv, *k = q + channels, *v = k + channels;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, blocks = (a.tokens + COLUMNS - 1) / COLUMNS;
    bool idle = p.first + warp * 16 >= a.tokens;
    float sum[8][4] = {}, log_sum[2], product[2], scale = a.scale * LOG2_E;
    fragment q_rows[4], dy_rows[4];

    fetch(memory, q, p.stride, p.first, a.tokens, p.rows);
    fetch(memory + p.rows * DIM, dy + p.y, channels, p.first, a.tokens, p.rows);
    fetch_commit();
    row_products(product, a, p, dy, y);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int row = p.first + warp * 16 + lane / 4 + r * 8;

        log_sum[r] = row < a.tokens ? stats[p.stats + row] : 0;
        if (lane % 4 == 0 && row < a.tokens)
            products[p.stats + row] = product[r];
    }
    fetch_wait<0>();
#pragma unroll
    for (int step = 0; step < 4; step++) {
        load_a(q_rows[step], memory, warp * 16, step);
        load_a(dy_rows[step], memory + p.rows * DIM, warp * 16, step);
    }
    __syncthreads();
    fetch(stage_of(memory, 0).left, k, p.stride, 0, a.tokens, COLUMNS);
    fetch(stage_of(memory, 0).right, v, p.stride, 0, a.tokens, COLUMNS);
    fetch_commit();
    for (int block = 0; block < blocks; block++) {
        const stage t = stage_of(memory, block), next = stage_of(memory, block + 1);
        int columns = idle ? 0 : a.tokens - block * COLUMNS;

        if (block + 1 < blocks) {
            fetch(next.left, k, p.stride, (block + 1) * COLUMNS, a.tokens, COLUMNS);
            fetch(next.right, v, p.stride, (block + 1) * COLUMNS, a.tokens, COLUMNS);
        }
        fetch_commit();
        fetch_wait<1>();
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (j * 16 < columns) {
                float s[2][4], ds[2][4];
                fragment rows;

                scores(s, q_rows, t.left, j * 16);
                scores(ds, dy_rows, t.right, j * 16);
#pragma unroll
                for (int i = 0; i < 8; i++)
                    ds[i / 4][i % 4] =
                        power(fminf(s[i / 4][i % 4] * scale - log_sum[i / 2 % 2], 0)) * /* finite behind the last key */
                        (ds[i / 4][i % 4] - product[i / 2 % 2]);
                as_a(rows, ds[0], ds[1]);
                accumulate(sum, rows, t.left, j * 16);
            }
        __syncthreads();
    }
    if (!idle)
        write_rows(memory, sum, a.scale, a.scale, dqkv + p.qkv, p.stride, p.first, a.tokens);
}

/* dK and dV: everything is turned, rows are keys and columns queries. */
__global__ void __launch_bounds__(MOST_THREADS, 2) backward_kv(attention_launch a, const bf16 *dy, const bf16 *qkv,
                                                               const float *stats, const float *products, bf16 *dqkv)
{
    __shared__ __align__(128) bf16 memory[STAGES * 2 * TILE];
    __shared__ __align__(16) float log_sums[STAGES][COLUMNS], sums[STAGES][COLUMNS];
    const place p = place_of(a);
    const int64_t channels = p.stride / 3;
    const bf16 *q = qkv + p.qkv, *k = q + channels, *v = k + channels;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, blocks = (a.tokens + COLUMNS - 1) / COLUMNS;
    bool idle = p.first + warp * 16 >= a.tokens;
    float sum_k[8][4] = {}, sum_v[8][4] = {}, scale = a.scale * LOG2_E;
    fragment k_rows[4], v_rows[4];

    fetch(memory, k, p.stride, p.first, a.tokens, p.rows);
    fetch(memory + p.rows * DIM, v, p.stride, p.first, a.tokens, p.rows);
    fetch_commit();
    fetch_wait<0>();
#pragma unroll
    for (int step = 0; step < 4; step++) {
        load_a(k_rows[step], memory, warp * 16, step);
        load_a(v_rows[step], memory + p.rows * DIM, warp * 16, step);
    }
    __syncthreads();
    for (int block = -1; block < blocks; block++) {
        const stage t = stage_of(memory, block + STAGES), next = stage_of(memory, block + 1);
        int columns = idle ? 0 : a.tokens - block * COLUMNS;

        if (block + 1 < blocks) {
            int first = (block + 1) * COLUMNS;

            fetch(next.left, q, p.stride, first, a.tokens, COLUMNS);
            fetch(next.right, dy + p.y, channels, first, a.tokens, COLUMNS);
            fetch_numbers(log_sums[(block + 1) % STAGES], stats + p.stats, first, a.tokens);
            fetch_numbers(sums[(block + 1) % STAGES], products + p.stats, first, a.tokens);
        }
        fetch_commit();
        if (block < 0)
            continue;
        fetch_wait<1>();
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (j * 16 < columns) {
                float s[2][4], ds[2][4];
                fragment rows;

                scores(s, k_rows, t.left, j * 16);
                scores(ds, v_rows, t.right, j * 16);
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    int column = j * 16 + half * 8 + lane % 4 * 2;
                    const float2 log_sum = *reinterpret_cast<const float2 *>(&log_sums[block % STAGES][column]);
                    const float2 product = *reinterpret_cast<const float2 *>(&sums[block % STAGES][column]);

#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        s[half][i] = power(s[half][i] * scale - (i % 2 ? log_sum.y : log_sum.x));
                        ds[half][i] = s[half][i] * (ds[half][i] - (i % 2 ? product.y : product.x));
                    }
                }
                as_a(rows, s[0], s[1]);
                accumulate(sum_v, rows, t.right, j * 16);
                as_a(rows, ds[0], ds[1]);
                accumulate(sum_k, rows, t.left, j * 16);
            }
        __syncthreads();
    }
    if (idle)
        return;
    write_rows(memory, sum_k, a.scale, a.scale, dqkv + p.qkv + channels, p.stride, p.first, a.tokens);
    write_rows(memory + p.rows * DIM, sum_v, 1, 1, dqkv + p.qkv + 2 * channels, p.stride, p.first, a.tokens);
}

/* How a head's rows are cut: as even blocks as possible, smaller ones while there are few. */
struct cut {
    unsigned blocks, threads;
};

cut cut_of(const attention_launch *a)
{
    int tiles = (a->tokens + 15) / 16, blocks = (tiles + MOST_WARPS - 1) / MOST_WARPS;

    if (a->n * a->heads * blocks < FEW_BLOCKS)
        blocks = (tiles + FEW_WARPS - 1) / FEW_WARPS;
    int warps = (tiles + blocks - 1) / blocks;
    return {(unsigned)(a->n * a->heads * ((tiles + warps - 1) / warps)), (unsigned)(32 * warps)};
}

} // namespace

bool attention_mma_fits(const attention_launch *a)
{
    return a->number == NUMBER_BF16 && a->dim == DIM;
}

cudaError_t attention_mma(cudaStream_t stream, const attention_launch *a, const void *qkv, void *y, float *stats)
{
    const cut c = cut_of(a);

    forward<<<c.blocks, c.threads, 0, stream>>>(*a, (const bf16 *)qkv, (bf16 *)y, stats);
    return cudaGetLastError();
}

cudaError_t attention_mma_backward(cudaStream_t stream, const attention_launch *a, const attention_backward_args *b)
{
    const cut c = cut_of(a);

    backward_q<<<c.blocks, c.threads, 0, stream>>>(*a, (const bf16 *)b->dy, (const bf16 *)b->qkv, (const bf16 *)b->y,
                                                   b->stats, b->products, (bf16 *)b->dqkv);
    backward_kv<<<c.blocks, c.threads, 0, stream>>>(*a, (const bf16 *)b->dy, (const bf16 *)b->qkv, b->stats,
                                                    b->products, (bf16 *)b->dqkv);
    return cudaGetLastError();
}
