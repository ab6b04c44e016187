/* window.cuh - what the kernels of window attention share: one window of 8 by 8 pixels and one head of 32 channels, the
 * only size there is in Swin v2, in shared memory; and products of such matrices on the matrix units.
 *
 * A block of four warps takes one head of one window at a time; a warp has 16 of the 64 tokens as rows. Fragments are
 * those of mma.m16n8: with g = lane / 4 and t = lane % 4 a thread holds of a product's 16 by 8 tile c0, c1 at (g, 2t),
 * (g, 2t+1) and c2, c3 eight rows below. BF16 multiplies in steps of 16. F32 multiplies in steps of 8 on the same
 * units: every factor is the sum of two TF32 numbers, of whose four products the smallest is left out, which is as
 * exact as floats are; its step takes columns 2t and 2t+1 where the unit means t and t+4, so that a product's tile can
 * be the next product's factor as it lies. */
#ifndef RFUAV_ENGINE_CUDA_WINDOW_CUH
#define RFUAV_ENGINE_CUDA_WINDOW_CUH

#include "engine/cuda/numbers.cuh"

namespace window
{

enum {
    SIDE = WINDOW_SIDE,
    TOKENS = SIDE * SIDE,
    DIM = WINDOW_DIM,
    PLACES = (2 * SIDE - 1) * (2 * SIDE - 1),
    WARPS = 4,
    THREADS = 32 * WARPS,
    ROWS = TOKENS / WARPS, /* of a warp */
    TILES = TOKENS / 8,    /* of 8 keys */
    DIM_TILES = DIM / 8,
    CHUNK = 8, /* channels that a thread loads at once */
    CHUNKS = DIM / CHUNK,
};

constexpr float LOG2E = 1.4426950408889634f, SHORTEST = 1e-12f, MASKED = -100 * LOG2E, LARGEST_SCALE = 100;

/* How rows lie in shared memory: padded, so that neither rows nor columns of fragments meet in a bank. */
template <typename T> struct pitch {
    static constexpr int dim = sizeof(T) == 2 ? DIM + 8 : DIM + 4;
    static constexpr int tokens = sizeof(T) == 2 ? TOKENS + 8 : TOKENS + 4;
};

/* --- products -------------------------------------------------------------------------------------------------- */

template <typename T> struct unit;

__device__ inline uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

template <> struct unit<bf16> {
    static constexpr int K = 16;
    struct left {
        uint32_t x[4];
    };
    struct right {
        uint32_t x[2];
    };

    static __device__ void load4(uint32_t *r, const bf16 *p)
    {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(shared_address(p))
                     : "memory");
    }
    static __device__ void load4_turned(uint32_t *r, const bf16 *p)
    {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(shared_address(p))
                     : "memory");
    }
    /* m[row][k] from (row, k) on */
    static __device__ left left_of(const bf16 *m, int pitch, int row, int k, int lane)
    {
        left a;

        load4(a.x, m + (row + lane % 16) * pitch + k + lane / 16 * 8);
        return a;
    }
    /* the transpose of m[k][row] */
    static __device__ left left_of_turned(const bf16 *m, int pitch, int row, int k, int lane)
    {
        left a;

        load4_turned(a.x, m + (k + lane % 8 + lane / 16 * 8) * pitch + row + lane / 8 % 2 * 8);
        return a;
    }
    /* two tiles of a product as a factor: columns 16 step and on */
    static __device__ left left_of_tiles(const float (*c)[4], int step)
    {
        left a;

#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float *tile = c[2 * step + i / 2];
            __nv_bfloat162 pair = __floats2bfloat162_rn(tile[i % 2 * 2], tile[i % 2 * 2 + 1]);

            a.x[i] = *reinterpret_cast<uint32_t *>(&pair);
        }
        return a;
    }
    /* the transpose of m[n][k]: two tiles of n */
    static __device__ void rights_of(right *b, const bf16 *m, int pitch, int n, int k, int lane)
    {
        uint32_t r[4];

        load4(r, m + (n + lane % 8 + lane / 16 * 8) * pitch + k + lane / 8 % 2 * 8);
        b[0].x[0] = r[0], b[0].x[1] = r[1], b[1].x[0] = r[2], b[1].x[1] = r[3];
    }
    /* m[k][n]: two tiles of n */
    static __device__ void rights_of_turned(right *b, const bf16 *m, int pitch, int n, int k, int lane)
    {
        uint32_t r[4];

        load4_turned(r, m + (k + lane % 16) * pitch + n + lane / 16 * 8);
        b[0].x[0] = r[0], b[0].x[1] = r[1], b[1].x[0] = r[2], b[1].x[1] = r[3];
    }
    static __device__ void multiply(float *c, const left &a, const right &b)
    {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                     "{%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "r"(b.x[0]), "r"(b.x[1]));
    }
};

template <> struct unit<float> {
    static constexpr int K = 8;
    struct left {
        float x[4];
    };
    struct right {
        float x[2];
    };

    static __device__ left left_of(const float *m, int pitch, int row, int k, int lane)
    {
        const float *p = m + (row + lane / 4) * pitch + k + lane % 4 * 2;

        return {{p[0], p[8 * pitch], p[1], p[8 * pitch + 1]}};
    }
    static __device__ left left_of_turned(const float *m, int pitch, int row, int k, int lane)
    {
        const float *p = m + (k + lane % 4 * 2) * pitch + row + lane / 4;

        return {{p[0], p[8], p[pitch], p[pitch + 8]}};
    }
    static __device__ left left_of_tiles(const float (*c)[4], int step)
    {
        return {{c[step][0], c[step][2], c[step][1], c[step][3]}};
    }
    static __device__ void rights_of(right *b, const float *m, int pitch, int n, int k, int lane)
    {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float *p = m + (n + 8 * i + lane / 4) * pitch + k + lane % 4 * 2;

            b[i] = {{p[0], p[1]}};
        }
    }
    static __device__ void rights_of_turned(right *b, const float *m, int pitch, int n, int k, int lane)
    {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float *p = m + (k + lane % 4 * 2) * pitch + n + 8 * i + lane / 4;

            b[i] = {{p[0], p[pitch]}};
        }
    }
    static __device__ void split(float value, uint32_t &large, uint32_t &small)
    {
        float rest;

        asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(large) : "f"(value));
        rest = value - __uint_as_float(large);
        asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(small) : "f"(rest));
    }
    static __device__ void multiply_parts(float *c, const uint32_t *a, const uint32_t *b)
    {
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                     "{%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
    static __device__ void multiply(float *c, const left &a, const right &b)
    {
        uint32_t large_a[4], small_a[4], large_b[2], small_b[2];

#pragma unroll
        for (int i = 0; i < 4; i++)
            split(a.x[i], large_a[i], small_a[i]);
#pragma unroll
        for (int i = 0; i < 2; i++)
            split(b.x[i], large_b[i], small_b[i]);
        multiply_parts(c, small_a, large_b);
        multiply_parts(c, large_a, small_b);
        multiply_parts(c, large_a, large_b);
    }
};

/* c (16 by 8 TILES_OF_N) += rows of m times the transpose of n's rows, or times n; over `K` columns of m. */
template <typename T, int N, int K>
__device__ void product(float (*c)[4], const T *m, int pitch_m, int row, const T *n, int pitch_n, int lane)
{
#pragma unroll
    for (int k = 0; k < K; k += unit<T>::K) {
        typename unit<T>::left a = unit<T>::left_of(m, pitch_m, row, k, lane);

#pragma unroll
        for (int i = 0; i < N; i += 2) {
            typename unit<T>::right b[2];

            unit<T>::rights_of(b, n, pitch_n, 8 * i, k, lane);
            unit<T>::multiply(c[i], a, b[0]);
            unit<T>::multiply(c[i + 1], a, b[1]);
        }
    }
}

/* c (16 by DIM) += tiles (16 by TOKENS) times m (TOKENS by DIM) */
template <typename T> __device__ void product_of_tiles(float (*c)[4], const float (*tiles)[4], const T *m, int lane)
{
#pragma unroll
    for (int k = 0; k < TOKENS; k += unit<T>::K) {
        typename unit<T>::left a = unit<T>::left_of_tiles(tiles, k / unit<T>::K);

#pragma unroll
        for (int i = 0; i < DIM_TILES; i += 2) {
            typename unit<T>::right b[2];

            unit<T>::rights_of_turned(b, m, pitch<T>::dim, 8 * i, k, lane);
            unit<T>::multiply(c[i], a, b[0]);
            unit<T>::multiply(c[i + 1], a, b[1]);
        }
    }
}

/* c (16 by DIM) += columns `row` and on of m (TOKENS by TOKENS), turned, times n (TOKENS by DIM) */
template <typename T> __device__ void product_turned(float (*c)[4], const T *m, int row, const T *n, int lane)
{
#pragma unroll
    for (int k = 0; k < TOKENS; k += unit<T>::K) {
        typename unit<T>::left a = unit<T>::left_of_turned(m, pitch<T>::tokens, row, k, lane);

#pragma unroll
        for (int i = 0; i < DIM_TILES; i += 2) {
            typename unit<T>::right b[2];

            unit<T>::rights_of_turned(b, n, pitch<T>::dim, 8 * i, k, lane);
            unit<T>::multiply(c[i], a, b[0]);
            unit<T>::multiply(c[i + 1], a, b[1]);
        }
    }
}

/* --- windows ------------------------------------------------------------------------------------------------------ */

/* One window of an image, as window.h has it. */
struct place {
    int64_t first; /* pixel of the image's first */
    int top, left; /* of the window, before the roll */
    bool last_row, last_column;
};

__device__ inline place place_of(const window_launch &l, int window)
{
    int in_image = window % (l.rows * l.columns), row = in_image / l.columns, column = in_image % l.columns;

    return {(int64_t)(window / (l.rows * l.columns)) * l.height * l.width, row * SIDE, column * SIDE,
            l.shift[0] && row == l.rows - 1, l.shift[1] && column == l.columns - 1};
}

/* The pixel of a token among those of all images; -1: padding. */
__device__ inline int64_t pixel_of(const window_launch &l, const place &p, int token)
{
    int y = p.top + token / SIDE + l.shift[0], x = p.left + token % SIDE + l.shift[1];

    y -= y >= l.rows * SIDE ? l.rows * SIDE : 0;
    x -= x >= l.columns * SIDE ? l.columns * SIDE : 0;
    return y < l.height && x < l.width ? p.first + (int64_t)y * l.width + x : -1;
}

/* Sum, or largest, over the four lanes that share rows of a fragment, or a token's chunks. */
__device__ inline float quad_sum(float x)
{
    x += __shfl_xor_sync(0xFFFFFFFF, x, 1);
    return x + __shfl_xor_sync(0xFFFFFFFF, x, 2);
}

__device__ inline float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFF, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xFFFFFFFF, x, 2));
}

template <typename T> struct operands {
    alignas(16) T q[TOKENS * pitch<T>::dim], k[TOKENS * pitch<T>::dim], v[TOKENS * pitch<T>::dim];
    float inverse_q[TOKENS], inverse_k[TOKENS]; /* 1 / length */
    float table[PLACES];                        /* times log2(e) */
};

/* The head's q and k of length 1, and v, of all tokens of a window. bias: of the head's q; qkv: at the head's q. */
template <typename T>
__device__ void load_operands(operands<T> &s, const window_launch &l, const place &p, const T *qkv, const float *bias)
{
    constexpr int STEP = THREADS / CHUNKS;
    int chunk = threadIdx.x % CHUNKS * CHUNK;
    vec<8> part[TOKENS / STEP][3];

#pragma unroll
    for (int i = 0; i < TOKENS / STEP; i++) {
        int64_t pixel = pixel_of(l, p, threadIdx.x / CHUNKS + i * STEP);

#pragma unroll
        for (int k = 0; k < 3; k++)
            part[i][k] = pixel < 0 ? vec<8>{} : load<8>(qkv + (pixel * 3 + k) * l.channels + chunk);
    }
#pragma unroll
    for (int i = 0; i < TOKENS / STEP; i++) {
        int token = threadIdx.x / CHUNKS + i * STEP;
        T *to[3] = {s.q, s.k, s.v};

#pragma unroll
        for (int k = 0; k < 3; k++) {
            vec<8> &x = part[i][k];
            float squares = 0, inverse;

#pragma unroll
            for (int c = 0; c < 8; c++) {
                x.v[c] += k == 1 ? 0 : bias[k * l.channels + chunk + c];
                squares += x.v[c] * x.v[c];
            }
            if (k < 2) {
                inverse = 1 / fmaxf(sqrtf(quad_sum(squares)), SHORTEST);
#pragma unroll
                for (int c = 0; c < 8; c++)
                    x.v[c] *= inverse;
                if (chunk == 0)
                    (k ? s.inverse_k : s.inverse_q)[token] = inverse;
            }
            store<8>(to[k] + token * pitch<T>::dim + chunk, x);
        }
    }
}

template <typename T> __device__ void load_table(operands<T> &s, const float *table)
{
    for (int i = threadIdx.x; i < PLACES; i += THREADS)
        s.table[i] = table[i] * LOG2E;
}

/* From cosines (rows of a warp by keys) to the softmax of the logits, all but the division: *sums (rows g, g + 8). */
template <typename T>
__device__ void softmax(float (*c)[4], const operands<T> &s, const window_launch &l, const place &p, float scale,
                        float *sums)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    float most[2] = {-INFINITY, -INFINITY};
    bool right = g >= SIDE - l.shift[1];

#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int row = 2 * warp + e / 2, column = 2 * t + e % 2; /* the query is (row, g), the key (i, column) */
            bool apart = (p.last_row && (row >= SIDE - l.shift[0]) != (i >= SIDE - l.shift[0])) ||
                         (p.last_column && right != (column >= SIDE - l.shift[1]));

            c[i][e] = c[i][e] * scale + s.table[(row - i + SIDE - 1) * (2 * SIDE - 1) + g - column + SIDE - 1] +
                      (apart ? MASKED : 0);
            most[e / 2] = fmaxf(most[e / 2], c[i][e]);
        }
    most[0] = quad_max(most[0]);
    most[1] = quad_max(most[1]);
    sums[0] = sums[1] = 0;
#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            c[i][e] = exp2f(c[i][e] - most[e / 2]);
            sums[e / 2] += c[i][e];
        }
    sums[0] = quad_sum(sums[0]);
    sums[1] = quad_sum(sums[1]);
}

/* A warp's 16 rows of a product, through its rows of shared memory, to the head's channels of their pixels. */
template <typename T>
__device__ void store_rows(const float (*c)[4], T *rows, const window_launch &l, const place &p, T *y, int64_t pitch_y)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

#pragma unroll
    for (int i = 0; i < DIM_TILES; i++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            rows[(ROWS * warp + lane / 4 + e / 2 * 8) * pitch<T>::dim + 8 * i + lane % 4 * 2 + e % 2] =
                from_float<T>(c[i][e]);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < ROWS * CHUNKS / 32; i++) {
        int token = ROWS * warp + lane / CHUNKS + i * 32 / CHUNKS, chunk = lane % CHUNKS * CHUNK;
        int64_t pixel = pixel_of(l, p, token);

        if (pixel >= 0)
            store<8>(y + pixel * pitch_y + chunk, load<8>(rows + token * pitch<T>::dim + chunk));
    }
}

} // namespace window

#endif
