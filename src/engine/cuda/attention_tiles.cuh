/* attention_tiles.cuh - the pieces of attention_mma.cu and attention_head.cu: rows of 64 halves in shared memory,
 * products of 16 by 16 of them on matrix units, copies that run ahead. A warp computes together; fragments are PTX's of
 * mma.m16n8k16. */
#ifndef RFUAV_ENGINE_CUDA_ATTENTION_TILES_CUH
#define RFUAV_ENGINE_CUDA_ATTENTION_TILES_CUH

#include "engine/cuda/numbers.cuh"

namespace
{

enum { DIM = 64, COLUMNS = 64, TILE = COLUMNS * DIM };
enum { CHUNK = 8, CHUNKS = DIM / CHUNK };

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
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
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

/* Rows row.. (16) as columns of b, channels 16 step.. going down: for products over channels. In the address of a chunk
 * `step` is an exclusive or of its own, so that the four steps share the rest; a tile lies at a multiple of 128 bytes.
 */
__device__ inline void load_b(fragment f, const bf16 *tile, int row, int step)
{
    int lane = threadIdx.x % 32;

    load_matrix(f, tile_at(tile, row + lane % 8 + lane / 16 * 8, lane / 8 % 2) ^ (step * 32));
}

/* Rows row.. (16) of b going down, channels 16 step.. as its columns: for products over rows. */
__device__ inline void load_b_turned(fragment f, const bf16 *tile, int row, int step)
{
    int lane = threadIdx.x % 32;

    load_matrix_turned(f, tile_at(tile, row + lane % 16, lane / 16) ^ (step * 32));
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

__device__ inline void copy_async(unsigned to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
}

/* Begins to bring `count` rows of a matrix, first.., into shared memory; zeros behind its last. */
__device__ inline void fetch(bf16 *tile, const bf16 *matrix, int64_t stride, int first, int rows, int count)
{
    int chunk = threadIdx.x % CHUNKS;

    for (int row = threadIdx.x / CHUNKS; row < count; row += blockDim.x / CHUNKS) {
        bool there = first + row < rows;

        copy_async(tile_at(tile, row, chunk), matrix + (there ? first + row : 0) * stride + chunk * CHUNK, there);
    }
}

/* The same for a number for each of COLUMNS rows. */
__device__ inline void fetch_numbers(float *to, const float *numbers, int first, int rows)
{
    for (int i = threadIdx.x; i < COLUMNS; i += blockDim.x) {
        bool there = first + i < rows;

        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"((unsigned)__cvta_generic_to_shared(to + i)),
                     "l"(numbers + (there ? first + i : 0)), "r"(there ? 4 : 0)
                     : "memory");
    }
}

__device__ inline void fetch_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* All but the latest `LEFT` groups are there, for every thread. */
template <int LEFT> __device__ inline void fetch_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
    __syncthreads();
}

/* 2^x; below -126 it is 0. */
__device__ inline float power(float x)
{
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
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

#define LOG2_E 1.44269504088896341f

/* What a thread of the forward knows of its two rows. */
struct running {
    float sum[8][4], most[2], total[2];
};

/* One round of the forward: `columns` keys and values. FULL: there are all 64 of them. */
template <bool FULL>
__device__ inline void attend(running &r, const fragment q_rows[4], const bf16 *k, const bf16 *v, int columns,
                              float scale)
{
    int lane = threadIdx.x % 32;
    float s[8][4], largest[2] = {r.most[0], r.most[1]}, offset[2], change[2];

#pragma unroll
    for (int j = 0; j < 4; j++)
        if (FULL || j * 16 < columns)
            scores(&s[2 * j], q_rows, k, j * 16);
#pragma unroll
    for (int j = 0; j < 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (!FULL && j * 8 + lane % 4 * 2 + i % 2 >= columns)
                s[j][i] = -INFINITY;
            largest[i / 2] = fmaxf(largest[i / 2], s[j][i]);
        }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        largest[i] = quad_max(largest[i]);
        offset[i] = largest[i] * scale;
        change[i] = power(r.most[i] * scale - offset[i]);
        r.most[i] = largest[i];
        r.total[i] *= change[i];
    }
#pragma unroll
    for (int j = 0; j < 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            s[j][i] = power(s[j][i] * scale - offset[i / 2]);
            r.total[i / 2] += s[j][i];
            r.sum[j][i] *= change[i / 2];
        }
#pragma unroll
    for (int j = 0; j < 4; j++)
        if (FULL || j * 16 < columns) {
            fragment weights;

            as_a(weights, s[2 * j], s[2 * j + 1]);
            accumulate(r.sum, weights, v, j * 16);
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

} // namespace

#endif
