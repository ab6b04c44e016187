/* attention_mma.cu - attention on matrix units: BF16, heads of 64 channels. See launch.h
 *
 * After Dao, "FlashAttention-2", 2023: a block of four warps takes 64 rows of a head, a warp 16 of them, and goes over
 * the other side's rows 64 at a time through shared memory, the next ones on their way while it computes. Scores never
 * leave registers. The backward is two kernels, one for dQ and one for dK and dV, each of which computes the scores
 * anew: no sums are shared between blocks, so equal inputs give equal bits. */
#include "engine/cuda/attention.cuh"
#include "engine/cuda/numbers.cuh"

namespace
{

enum { DIM = 64, ROWS = 64, WARPS = 4, THREADS = 32 * WARPS, TILE = ROWS * DIM, STAGES = 2, CHUNK = 8, CHUNKS = 8 };

typedef unsigned fragment[4]; /* of a 16 by 16 matrix: a, or two b side by side */

/* Byte address in shared memory of chunk (8 numbers) `chunk` of a tile's row; the exclusive or spreads a column of
 * chunks over all banks. */
__device__ inline unsigned tile_at(const bf16 *tile, int row, int chunk)
{
    return (unsigned)__cvta_generic_to_shared(tile + row * DIM + ((chunk ^ (row & 7)) * CHUNK));
}

__device__ inline void load_matrix(fragment f, unsigned at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(f[0]), "=r"(f[1]), "=r"(f[2]), "=r"(f[3])
                 : "r"(at));
}

__device__ inline void load_matrix_turned(fragment f, unsigned at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(f[0]), "=r"(f[1]), "=r"(f[2]), "=r"(f[3])
                 : "r"(at));
}

/* c (16 by 8) += a (16 by 16) b (16 by 8) */
__device__ inline void multiply(float *c, const fragment a, unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Rows row.. of a tile as a: 16 rows, channels 16 step.. */
__device__ inline void load_a(fragment f, const bf16 *tile, int row, int step)
{
    int lane = threadIdx.x % 32;

    load_matrix(f, tile_at(tile, row + lane % 16, step * 2 + lane / 16));
}

/* Rows row.. (16) as columns of b, channels 16 step.. going down: for products over channels. */
__device__ inline void load_b(fragment f, const bf16 *tile, int row, int step)
{
    int lane = threadIdx.x % 32;

    load_matrix(f, tile_at(tile, row + lane % 8 + lane / 16 * 8, step * 2 + lane / 8 % 2));
}

/* Rows row.. (16) of b going down, channels 16 step.. as its columns: for products over rows. */
__device__ inline void load_b_turned(fragment f, const bf16 *tile, int row, int step)
{
    int lane = threadIdx.x % 32;

    load_matrix_turned(f, tile_at(tile, row + lane % 16, step * 2 + lane / 16));
}

__device__ inline unsigned pack(float low, float high)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);

    return *reinterpret_cast<unsigned *>(&pair);
}

/* Two results side by side (16 by 16) as the a of another product. */
__device__ inline void as_a(fragment a, const float *left, const float *right)
{
    a[0] = pack(left[0], left[1]);
    a[1] = pack(left[2], left[3]);
    a[2] = pack(right[0], right[1]);
    a[3] = pack(right[2], right[3]);
}

/* Begins to bring rows first.. of a matrix with rows `stride` apart into a tile; zeros behind its last row. */
__device__ inline void fetch(bf16 *tile, const bf16 *matrix, int64_t stride, int first, int rows)
{
#pragma unroll
    for (int i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
        int row = i / CHUNKS, chunk = i % CHUNKS, there = first + row < rows;
        const bf16 *from = matrix + (int64_t)(there ? first + row : 0) * stride + chunk * CHUNK;

        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(tile_at(tile, row, chunk)), "l"(from),
                     "r"(there ? 16 : 0));
    }
}

__device__ inline void fetch_commit()
{
    asm volatile("cp.async.commit_group;");
}

/* All but the latest `LEFT` groups are there, for every thread. */
template <int LEFT> __device__ inline void fetch_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT));
    __syncthreads();
}

/* The sum, and the largest, of a row's share in four neighbouring threads. */
__device__ inline float quad_sum(float x)
{
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

__device__ inline float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

/* s (16 by 16) = a's rows times 16 rows of a tile, over the channels. */
__device__ inline void scores(float s[2][4], const fragment a[4], const bf16 *tile, int row)
{
#pragma unroll
    for (int i = 0; i < 8; i++)
        s[i / 4][i % 4] = 0;
#pragma unroll
    for (int step = 0; step < 4; step++) {
        fragment b;

        load_b(b, tile, row, step);
        multiply(s[0], a[step], b[0], b[1]);
        multiply(s[1], a[step], b[2], b[3]);
    }
}

/* sum (16 by 64) += a (16 by 16) times 16 rows of a tile */
__device__ inline void accumulate(float sum[8][4], const fragment a, const bf16 *tile, int row)
{
#pragma unroll
    for (int step = 0; step < 4; step++) {
        fragment b;

        load_b_turned(b, tile, row, step);
        multiply(sum[2 * step], a, b[0], b[1]);
        multiply(sum[2 * step + 1], a, b[2], b[3]);
    }
}

/* Writes a warp's 16 by 64 result times factors of its two rows of a thread, through a tile so that stores are wide. */
__device__ inline void write_rows(bf16 *tile, float sum[8][4], float factor0, float factor1, bf16 *matrix,
                                  int64_t stride, int first, int rows)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = warp * 16 + lane / 4;

#pragma unroll
    for (int j = 0; j < 8; j++) {
        bf16 *low = tile + row * DIM + (j ^ (row & 7)) * CHUNK + lane % 4 * 2;

        *reinterpret_cast<unsigned *>(low) = pack(sum[j][0] * factor0, sum[j][1] * factor0);
        *reinterpret_cast<unsigned *>(low + 8 * DIM) = pack(sum[j][2] * factor1, sum[j][3] * factor1);
    }
    __syncwarp();
#pragma unroll
    for (int i = lane; i < 16 * CHUNKS; i += 32) {
        int r = warp * 16 + i / CHUNKS, chunk = i % CHUNKS;

        if (first + r < rows)
            *reinterpret_cast<uint4 *>(matrix + (int64_t)(first + r) * stride + chunk * CHUNK) =
                *reinterpret_cast<const uint4 *>(tile + r * DIM + (chunk ^ (r & 7)) * CHUNK);
    }
}

/* Where a head's matrices are. Blocks of one head are neighbours, so that they find its rows in the cache. */
struct place {
    int first; /* row of this block */
    int64_t qkv, y, stats, stride;
};

__device__ inline place place_of(const attention_launch &a)
{
    int blocks = (a.tokens + ROWS - 1) / ROWS, index = blockIdx.x / blocks, n = index / a.heads, h = index % a.heads;
    int64_t channels = (int64_t)a.heads * DIM;
    place p;

    p.first = blockIdx.x % blocks * ROWS;
    p.stride = 3 * channels;
    p.qkv = (int64_t)n * a.tokens * p.stride + h * DIM;
    p.y = (int64_t)n * a.tokens * channels + h * DIM;
    p.stats = (int64_t)index * a.tokens;
    return p;
}

#define LOG2_E 1.44269504088896341f

__global__ void __launch_bounds__(THREADS) forward(attention_launch a, const bf16 *qkv, bf16 *y, float *stats)
{
    __shared__ __align__(128) bf16 tiles[1 + 2 * STAGES][TILE];
    const place p = place_of(a);
    const int64_t channels = p.stride / 3;
    const bf16 *q = qkv + p.qkv, *k = q + channels, *v = k + channels;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, blocks = (a.tokens + ROWS - 1) / ROWS;
    float sum[8][4] = {}, most[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0}, scale = a.scale * LOG2_E;
    bool idle = p.first + warp * 16 >= a.tokens;
    fragment q_rows[4];

    fetch(tiles[0], q, p.stride, p.first, a.tokens);
    fetch(tiles[1], k, p.stride, 0, a.tokens);
    fetch(tiles[2], v, p.stride, 0, a.tokens);
    fetch_commit();
    for (int block = 0; block < blocks; block++) {
        const bf16 *keys = tiles[1 + block % STAGES * 2], *values = tiles[2 + block % STAGES * 2];
        int rest = a.tokens - block * ROWS, columns = rest < ROWS ? rest : ROWS;
        float s[8][4];

        if (block + 1 < blocks) {
            fetch(tiles[1 + (block + 1) % STAGES * 2], k, p.stride, (block + 1) * ROWS, a.tokens);
            fetch(tiles[2 + (block + 1) % STAGES * 2], v, p.stride, (block + 1) * ROWS, a.tokens);
        }
        fetch_commit();
        fetch_wait<1>();
        if (block == 0)
#pragma unroll
            for (int step = 0; step < 4; step++)
                load_a(q_rows[step], tiles[0], warp * 16, step);
        if (!idle) {
            float largest[2] = {most[0], most[1]}, change[2];

#pragma unroll
            for (int j = 0; j < 4; j++) {
                if (j * 16 < columns)
                    scores(&s[2 * j], q_rows, keys, j * 16);
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    int column = j * 16 + i / 4 * 8 + lane % 4 * 2 + i % 2;
                    float *value = &s[2 * j + i / 4][i % 4];

                    *value = column < columns ? *value * scale : -INFINITY;
                    largest[i / 2 % 2] = fmaxf(largest[i / 2 % 2], *value);
                }
            }
#pragma unroll
            for (int r = 0; r < 2; r++) {
                largest[r] = quad_max(largest[r]);
                change[r] = exp2f(most[r] - largest[r]);
                most[r] = largest[r];
                total[r] *= change[r];
            }
#pragma unroll
            for (int j = 0; j < 8; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    s[j][i] = exp2f(s[j][i] - most[i / 2]);
                    total[i / 2] += s[j][i];
                    sum[j][i] *= change[i / 2];
                }
#pragma unroll
            for (int j = 0; j < 4; j++)
                if (j * 16 < columns) {
                    fragment weights;

                    as_a(weights, s[2 * j], s[2 * j + 1]);
                    accumulate(sum, weights, values, j * 16);
                }
        }
        __syncthreads(); /* before the next round's fetch overwrites this stage */
    }
    if (idle)
        return;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int row = p.first + warp * 16 + lane / 4 + r * 8;

        total[r] = quad_sum(total[r]);
        if (stats && lane % 4 == 0 && row < a.tokens)
            stats[p.stats + row] = most[r] + log2f(total[r]);
    }
    write_rows(tiles[0], sum, 1 / total[0], 1 / total[1], y + p.y, channels, p.first, a.tokens);
}

/* dQ of 64 rows; and, on the way, for each row the sum of dy y, which the other kernel needs. */
__global__ void __launch_bounds__(THREADS) backward_q(attention_launch a, const bf16 *dy, const bf16 *qkv,
                                                      const bf16 *y, const float *stats, float *products, bf16 *dqkv)
{
    __shared__ __align__(128) bf16 tiles[2 + 2 * STAGES][TILE];
    const place p = place_of(a);
    const int64_t channels = p.stride / 3;
    const bf16 *q = qkv + p.qkv, *k = q + channels, *v = k + channels;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, blocks = (a.tokens + ROWS - 1) / ROWS;
    bool idle = p.first + warp * 16 >= a.tokens;
    float sum[8][4] = {}, log_sum[2], product[2], scale = a.scale * LOG2_E;
    fragment q_rows[4], dy_rows[4];

    fetch(tiles[0], q, p.stride, p.first, a.tokens);
    fetch(tiles[1], dy + p.y, channels, p.first, a.tokens);
    fetch(tiles[2], k, p.stride, 0, a.tokens);
    fetch(tiles[3], v, p.stride, 0, a.tokens);
    fetch_commit();
#pragma unroll
    for (int r = 0; r < 2; r++) { /* a quarter of a row each */
        int row = p.first + warp * 16 + lane / 4 + r * 8;
        int64_t at = p.y + (int64_t)row * channels + lane % 4 * 16;

        product[r] = 0;
        log_sum[r] = row < a.tokens ? stats[p.stats + row] : 0;
        for (int half = 0; half < 2 && row < a.tokens; half++) {
            vec<8> b = load<8>(dy + at + half * 8), c = load<8>(y + at + half * 8);

#pragma unroll
            for (int i = 0; i < 8; i++)
                product[r] += b.v[i] * c.v[i];
        }
        product[r] = quad_sum(product[r]);
        if (lane % 4 == 0 && row < a.tokens)
            products[p.stats + row] = product[r];
    }
    for (int block = 0; block < blocks; block++) {
        const bf16 *keys = tiles[2 + block % STAGES * 2], *values = tiles[3 + block % STAGES * 2];
        int rest = a.tokens - block * ROWS, columns = rest < ROWS ? rest : ROWS;

        if (block + 1 < blocks) {
            fetch(tiles[2 + (block + 1) % STAGES * 2], k, p.stride, (block + 1) * ROWS, a.tokens);
            fetch(tiles[3 + (block + 1) % STAGES * 2], v, p.stride, (block + 1) * ROWS, a.tokens);
        }
        fetch_commit();
        fetch_wait<1>();
        if (block == 0)
#pragma unroll
            for (int step = 0; step < 4; step++) {
                load_a(q_rows[step], tiles[0], warp * 16, step);
                load_a(dy_rows[step], tiles[1], warp * 16, step);
            }
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (j * 16 < columns && !idle) {
                float s[2][4], ds[2][4];
                fragment rows;

                scores(s, q_rows, keys, j * 16);
                scores(ds, dy_rows, values, j * 16);
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    int column = j * 16 + i / 4 * 8 + lane % 4 * 2 + i % 2, r = i / 2 % 2;
                    float weight = column < columns ? exp2f(s[i / 4][i % 4] * scale - log_sum[r]) : 0;

                    ds[i / 4][i % 4] = weight * (ds[i / 4][i % 4] - product[r]);
                }
                as_a(rows, ds[0], ds[1]);
                accumulate(sum, rows, keys, j * 16);
            }
        __syncthreads();
    }
    if (!idle)
        write_rows(tiles[0], sum, a.scale, a.scale, dqkv + p.qkv, p.stride, p.first, a.tokens);
}

/* dK and dV of 64 rows: everything is turned, rows are keys and columns queries. */
__global__ void __launch_bounds__(THREADS) backward_kv(attention_launch a, const bf16 *dy, const bf16 *qkv,
                                                       const float *stats, const float *products, bf16 *dqkv)
{
    __shared__ __align__(128) bf16 tiles[2 + 2 * STAGES][TILE];
    const place p = place_of(a);
    const int64_t channels = p.stride / 3;
    const bf16 *q = qkv + p.qkv, *k = q + channels, *v = k + channels;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, blocks = (a.tokens + ROWS - 1) / ROWS;
    bool idle = p.first + warp * 16 >= a.tokens;
    float sum_k[8][4] = {}, sum_v[8][4] = {}, scale = a.scale * LOG2_E;
    fragment k_rows[4], v_rows[4];

    fetch(tiles[0], k, p.stride, p.first, a.tokens);
    fetch(tiles[1], v, p.stride, p.first, a.tokens);
    fetch(tiles[2], q, p.stride, 0, a.tokens);
    fetch(tiles[3], dy + p.y, channels, 0, a.tokens);
    fetch_commit();
    for (int block = 0; block < blocks; block++) {
        const bf16 *queries = tiles[2 + block % STAGES * 2], *gradients = tiles[3 + block % STAGES * 2];
        int rest = a.tokens - block * ROWS, columns = rest < ROWS ? rest : ROWS;

        if (block + 1 < blocks) {
            fetch(tiles[2 + (block + 1) % STAGES * 2], q, p.stride, (block + 1) * ROWS, a.tokens);
            fetch(tiles[3 + (block + 1) % STAGES * 2], dy + p.y, channels, (block + 1) * ROWS, a.tokens);
        }
        fetch_commit();
        fetch_wait<1>();
        if (block == 0)
#pragma unroll
            for (int step = 0; step < 4; step++) {
                load_a(k_rows[step], tiles[0], warp * 16, step);
                load_a(v_rows[step], tiles[1], warp * 16, step);
            }
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (j * 16 < columns && !idle) {
                float s[2][4], ds[2][4];
                fragment rows;

                scores(s, k_rows, queries, j * 16);
                scores(ds, v_rows, gradients, j * 16);
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    int column = j * 16 + i / 4 * 8 + lane % 4 * 2 + i % 2;
                    int64_t at = p.stats + block * ROWS + column;
                    bool there = column < columns;

                    s[i / 4][i % 4] = there ? exp2f(s[i / 4][i % 4] * scale - stats[at]) : 0;
                    ds[i / 4][i % 4] = there ? s[i / 4][i % 4] * (ds[i / 4][i % 4] - products[at]) : 0;
                }
                as_a(rows, s[0], s[1]);
                accumulate(sum_v, rows, gradients, j * 16);
                as_a(rows, ds[0], ds[1]);
                accumulate(sum_k, rows, queries, j * 16);
            }
        __syncthreads();
    }
    if (idle)
        return;
    write_rows(tiles[0], sum_k, a.scale, a.scale, dqkv + p.qkv + channels, p.stride, p.first, a.tokens);
    write_rows(tiles[1], sum_v, 1, 1, dqkv + p.qkv + 2 * channels, p.stride, p.first, a.tokens);
}

unsigned blocks_of(const attention_launch *a)
{
    return (unsigned)(a->n * a->heads * ((a->tokens + ROWS - 1) / ROWS));
}

} // namespace

bool attention_mma_fits(const attention_launch *a)
{
    return a->number == NUMBER_BF16 && a->dim == DIM;
}

cudaError_t attention_mma(cudaStream_t stream, const attention_launch *a, const void *qkv, void *y, float *stats)
{
    forward<<<blocks_of(a), THREADS, 0, stream>>>(*a, (const bf16 *)qkv, (bf16 *)y, stats);
    return cudaGetLastError();
}

cudaError_t attention_mma_backward(cudaStream_t stream, const attention_launch *a, const attention_backward_args *b)
{
    backward_q<<<blocks_of(a), THREADS, 0, stream>>>(*a, (const bf16 *)b->dy, (const bf16 *)b->qkv, (const bf16 *)b->y,
                                                     b->stats, b->products, (bf16 *)b->dqkv);
    backward_kv<<<blocks_of(a), THREADS, 0, stream>>>(*a, (const bf16 *)b->dy, (const bf16 *)b->qkv, b->stats,
                                                      b->products, (bf16 *)b->dqkv);
    return cudaGetLastError();
}
