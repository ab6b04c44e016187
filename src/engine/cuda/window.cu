/* window.cu - attention in windows and its gradient, fused: logits and softmax never leave a block. See launch.h,
 * window.cuh. The backward makes the softmax anew, which is cheaper than keeping it. */
#include "engine/cuda/window.cuh"

using namespace window;

namespace
{

/* Blocks for each head, so that each has about the same number of windows. */
int groups_for(const window_launch &l, int blocks)
{
    int windows = l.images * l.rows * l.columns, most = blocks / l.heads > 1 ? blocks / l.heads : 1;
    int each = (windows + most - 1) / most;

    return (windows + each - 1) / each;
}

__device__ inline float scale_of(float logit_scale)
{
    return fminf(expf(logit_scale), LARGEST_SCALE);
}

template <typename T>
__global__ void __launch_bounds__(THREADS) forward_kernel(window_launch l, const T *qkv, const float *qkv_bias,
                                                          const float *logit_scale, const float *table, T *y)
{
    extern __shared__ __align__(16) char memory[];
    operands<T> &s = *reinterpret_cast<operands<T> *>(memory);
    int head = blockIdx.x % l.heads, windows = l.images * l.rows * l.columns;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float scale = scale_of(logit_scale[head]) * LOG2E;

    load_table(s, table + head * PLACES);
    for (int window = blockIdx.x / l.heads; window < windows; window += gridDim.x / l.heads) {
        place p = place_of(l, window);
        float c[TILES][4] = {}, out[DIM_TILES][4] = {}, sums[2];

        __syncthreads();
        load_operands(s, l, p, qkv + head * DIM, qkv_bias + head * DIM);
        __syncthreads();
        product<T, TILES, DIM>(c, s.q, pitch<T>::dim, ROWS * warp, s.k, pitch<T>::dim, lane);
        softmax(c, s, l, p, scale, sums);
        product_of_tiles(out, c, s.v, lane);
#pragma unroll
        for (int i = 0; i < DIM_TILES; i++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                out[i][e] /= sums[e / 2];
        __syncwarp(); /* q's rows of this warp have been read */
        store_rows(out, s.q, l, p, y + head * DIM, (int64_t)l.channels);
    }
}

/* What a block sums over its windows and leaves behind: the table's gradient, that of q's and v's bias, and that of the
 * scale. */
enum { SUM_BIAS = PLACES, SUM_SCALE = SUM_BIAS + 2 * DIM, SUMS = SUM_SCALE + 1 };

/* Distances that a warp's queries, two rows of the window, have from the keys' rows: -2 warp - 1 and seven more up. A
 * thread's sums for them; which columns those are depends on its lane alone. */
enum { DISTANCES = SIDE + 1 };

template <typename T> struct backward_memory {
    operands<T> s;
    alignas(16) T dy[TOKENS * pitch<T>::dim], p[TOKENS * pitch<T>::tokens], dlogits[TOKENS * pitch<T>::tokens];
};

struct backward_sums {
    float table[DISTANCES][2], q[DIM_TILES][2], v[DIM_TILES][2], scale;
};

template <typename T>
__device__ void load_dy(backward_memory<T> &s, const window_launch &l, const place &p, const T *dy)
{
    constexpr int STEP = THREADS / CHUNKS;
    int chunk = threadIdx.x % CHUNKS * CHUNK;

#pragma unroll
    for (int i = 0; i < TOKENS / STEP; i++) {
        int token = threadIdx.x / CHUNKS + i * STEP;
        int64_t pixel = pixel_of(l, p, token);

        store<8>(s.dy + token * pitch<T>::dim + chunk, pixel < 0 ? vec<8>{} : load<8>(dy + pixel * l.channels + chunk));
    }
}

/* A warp's rows of a product to a matrix of tokens by tokens. */
template <typename T> __device__ void keep_tiles(const float (*c)[4], T *to)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            to[(ROWS * warp + lane / 4 + e / 2 * 8) * pitch<T>::tokens + 8 * i + lane % 4 * 2 + e % 2] =
                from_float<T>(c[i][e]);
}

/* From p (divided) and dp in `c` to dlogits = p (dp - sum p dp). */
__device__ inline void softmax_backward(float (*c)[4], const float (*p)[4])
{
    float sums[2] = {0, 0};

#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            sums[e / 2] += p[i][e] * c[i][e];
    sums[0] = quad_sum(sums[0]);
    sums[1] = quad_sum(sums[1]);
#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            c[i][e] = p[i][e] * (c[i][e] - sums[e / 2]);
}

/* From the gradient of rows of length 1, d, to that of the rows as they were. unit: those rows. Returns the thread's
 * share of the sum of unit d. */
template <typename T> __device__ float lengthen(float (*d)[4], const T *unit, const float *inverse)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = ROWS * warp + lane / 4;
    float along[2] = {0, 0}, all;

#pragma unroll
    for (int i = 0; i < DIM_TILES; i++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            along[e / 2] +=
                d[i][e] * to_float<T>(unit[(row + e / 2 * 8) * pitch<T>::dim + 8 * i + lane % 4 * 2 + e % 2]);
    all = along[0] + along[1];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float sum = quad_sum(along[r]);

        along[r] = inverse[row + 8 * r] < 1 / SHORTEST ? sum : 0; /* a length below that was none */
    }
#pragma unroll
    for (int i = 0; i < DIM_TILES; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            float u = to_float<T>(unit[(row + e / 2 * 8) * pitch<T>::dim + 8 * i + lane % 4 * 2 + e % 2]);

            d[i][e] = (d[i][e] - along[e / 2] * u) * inverse[row + e / 2 * 8];
        }
    return all;
}

/* The gradients of one window: into dqkv and the thread's sums. */
template <typename T>
__device__ void backward_window(backward_memory<T> &m, const window_launch &l, const place &p, float scale,
                                backward_sums &sums, T *dqkv)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float c[TILES][4] = {}, dq[DIM_TILES][4] = {}, dk[DIM_TILES][4] = {}, dv[DIM_TILES][4] = {};

    {
        float probability[TILES][4] = {}, divisors[2];

        product<T, TILES, DIM>(probability, m.s.q, pitch<T>::dim, ROWS * warp, m.s.k, pitch<T>::dim, lane);
        softmax(probability, m.s, l, p, scale * LOG2E, divisors);
#pragma unroll
        for (int i = 0; i < TILES; i++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                probability[i][e] /= divisors[e / 2];
        keep_tiles(probability, m.p);
        product<T, TILES, DIM>(c, m.dy, pitch<T>::dim, ROWS * warp, m.s.v, pitch<T>::dim, lane);
        softmax_backward(c, probability);
    }
    keep_tiles(c, m.dlogits);
#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            sums.table[i + 1 - e / 2][e % 2] += c[i][e];
    product_of_tiles(dq, c, m.s.k, lane);
    __syncthreads(); /* p and dlogits are there */
    product_turned(dv, m.p, ROWS * warp, m.dy, lane);
    product_turned(dk, m.dlogits, ROWS * warp, m.s.q, lane);
#pragma unroll
    for (int i = 0; i < DIM_TILES; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            dq[i][e] *= scale;
            dk[i][e] *= scale;
        }
    sums.scale += lengthen(dq, m.s.q, m.s.inverse_q);
    lengthen(dk, m.s.k, m.s.inverse_k);
#pragma unroll
    for (int i = 0; i < DIM_TILES; i++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            sums.q[i][e] += dq[i][e] + dq[i][e + 2];
            sums.v[i][e] += dv[i][e] + dv[i][e + 2];
        }
    __syncthreads(); /* q, k, v have been read by all */
    store_rows(dq, m.s.q, l, p, dqkv, 3 * (int64_t)l.channels);
    store_rows(dk, m.s.k, l, p, dqkv + l.channels, 3 * (int64_t)l.channels);
    store_rows(dv, m.s.v, l, p, dqkv + 2 * l.channels, 3 * (int64_t)l.channels);
}

/* The block's sums, in a fixed order, to out[SUMS]. stage: shared memory for WARPS DISTANCES TOKENS floats. */
__device__ void leave_sums(const backward_sums &sums, float *stage, float *out)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    float scale = sums.scale;

    __syncthreads();
#pragma unroll
    for (int i = 0; i < DISTANCES; i++)
#pragma unroll
        for (int e = 0; e < 2; e++)
            stage[(warp * DISTANCES + i) * TOKENS + g * SIDE + 2 * t + e] = sums.table[i][e];
    __syncthreads();
    for (int place = threadIdx.x; place < PLACES; place += THREADS) {
        int down = place / (2 * SIDE - 1) - (SIDE - 1), right = place % (2 * SIDE - 1) - (SIDE - 1);
        float sum = 0;

        for (int w = 0; w < WARPS; w++) {
            int i = 2 * w - down + 1; /* key's row + 1 for the upper of the warp's two rows of queries */

            for (int column = 0; column < SIDE && i >= 0 && i < DISTANCES; column++)
                if (column - right >= 0 && column - right < SIDE)
                    sum += stage[(w * DISTANCES + i) * TOKENS + column * SIDE + column - right];
        }
        out[place] = sum;
    }
    __syncthreads();
    for (int step = 1; step < 32; step *= 2)
        scale += __shfl_xor_sync(0xFFFFFFFF, scale, step);
#pragma unroll
    for (int i = 0; i < DIM_TILES; i++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float q = sums.q[i][e], v = sums.v[i][e];

            for (int step = 4; step < 32; step *= 2) {
                q += __shfl_xor_sync(0xFFFFFFFF, q, step);
                v += __shfl_xor_sync(0xFFFFFFFF, v, step);
            }
            if (g == 0) {
                stage[warp * SUMS + 8 * i + 2 * t + e] = q;
                stage[warp * SUMS + DIM + 8 * i + 2 * t + e] = v;
            }
        }
    if (lane == 0)
        stage[warp * SUMS + 2 * DIM] = scale;
    __syncthreads();
    for (int i = threadIdx.x; i <= 2 * DIM; i += THREADS) {
        float sum = 0;

        for (int w = 0; w < WARPS; w++)
            sum += stage[w * SUMS + i];
        out[SUM_BIAS + i] = sum;
    }
}

template <typename T>
__global__ void __launch_bounds__(THREADS, sizeof(T) == 2 ? 4 : 2)
    backward_kernel(window_launch l, const T *dy, const T *qkv, const float *qkv_bias, const float *logit_scale,
                    const float *table, T *dqkv, float *scratch)
{
    extern __shared__ __align__(16) char memory[];
    backward_memory<T> &m = *reinterpret_cast<backward_memory<T> *>(memory);
    int head = blockIdx.x % l.heads, windows = l.images * l.rows * l.columns;
    float scale = scale_of(logit_scale[head]);
    backward_sums sums = {};

    load_table(m.s, table + head * PLACES);
    for (int window = blockIdx.x / l.heads; window < windows; window += gridDim.x / l.heads) {
        place p = place_of(l, window);

        __syncthreads();
        load_operands(m.s, l, p, qkv + head * DIM, qkv_bias + head * DIM);
        load_dy(m, l, p, dy + head * DIM);
        __syncthreads();
        backward_window(m, l, p, scale, sums, dqkv + head * DIM);
    }
    leave_sums(sums, reinterpret_cast<float *>(memory), scratch + (int64_t)blockIdx.x * SUMS);
}

/* Adds what the blocks of a head have left. */
__global__ void sums_kernel(window_launch l, int groups, const float *scratch, const float *logit_scale,
                            window_gradients d)
{
    int head = blockIdx.x, i = threadIdx.x;
    float sum = 0;

    if (i >= SUMS)
        return;
#pragma unroll 8
    for (int group = 0; group < groups; group++)
        sum += scratch[((int64_t)group * l.heads + head) * SUMS + i];
    if (i == SUM_SCALE) {
        sum = logit_scale[head] <= logf(LARGEST_SCALE) ? sum : 0;
        if (d.scale_number == NUMBER_BF16)
            ((bf16 *)d.dlogit_scale)[head] = __float2bfloat16(sum);
        else
            ((float *)d.dlogit_scale)[head] = sum;
    } else if (i >= SUM_BIAS) {
        int channel = (i - SUM_BIAS) % DIM, part = (i - SUM_BIAS) / DIM * 2;

        d.dqkv_bias[part * l.channels + head * DIM + channel] = sum;
        d.dqkv_bias[l.channels + head * DIM + channel] = 0;
    } else if (d.table_number == NUMBER_BF16) {
        ((bf16 *)d.dtable)[head * PLACES + i] = __float2bfloat16(sum);
    } else {
        ((float *)d.dtable)[head * PLACES + i] = sum;
    }
}

template <typename T>
cudaError_t forward(cudaStream_t stream, const window_launch &l, const void *qkv, const float *qkv_bias,
                    const float *logit_scale, const float *table, void *y)
{
    int blocks = groups_for(l, l.processors * 8) * l.heads;

    forward_kernel<T>
        <<<blocks, THREADS, sizeof(operands<T>), stream>>>(l, (const T *)qkv, qkv_bias, logit_scale, table, (T *)y);
    return cudaGetLastError();
}

int backward_groups(const window_launch &l)
{
    return groups_for(l, l.processors * (l.number == NUMBER_BF16 ? 4 : 2));
}

template <typename T>
cudaError_t backward(cudaStream_t stream, const window_launch &l, const void *dy, const void *qkv,
                     const float *qkv_bias, const float *logit_scale, const float *table, float *scratch,
                     const window_gradients &d)
{
    int groups = backward_groups(l);
    cudaError_t status = cudaFuncSetAttribute(backward_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                              (int)sizeof(backward_memory<T>));

    static_assert(sizeof(backward_memory<T>) >= WARPS * DISTANCES * TOKENS * sizeof(float), "room for the sums");
    if (status != cudaSuccess)
        return status;
    backward_kernel<T><<<groups * l.heads, THREADS, sizeof(backward_memory<T>), stream>>>(
        l, (const T *)dy, (const T *)qkv, qkv_bias, logit_scale, table, (T *)d.dqkv, scratch);
    sums_kernel<<<l.heads, (SUMS + 31) / 32 * 32, 0, stream>>>(l, groups, scratch, logit_scale, d);
    return cudaGetLastError();
}

} // namespace

cudaError_t window_attention(cudaStream_t stream, const struct window_launch *l, const void *qkv, const float *qkv_bias,
                             const float *logit_scale, const float *table, void *y)
{
    return l->number == NUMBER_BF16 ? forward<bf16>(stream, *l, qkv, qkv_bias, logit_scale, table, y)
                                    : forward<float>(stream, *l, qkv, qkv_bias, logit_scale, table, y);
}

size_t window_scratch_bytes(const struct window_launch *l)
{
    return (size_t)backward_groups(*l) * (size_t)l->heads * SUMS * sizeof(float);
}

cudaError_t window_attention_backward(cudaStream_t stream, const struct window_launch *l, const void *dy,
                                      const void *qkv, const float *qkv_bias, const float *logit_scale,
                                      const float *table, void *scratch, const struct window_gradients *d)
{
    return l->number == NUMBER_BF16
               ? backward<bf16>(stream, *l, dy, qkv, qkv_bias, logit_scale, table, (float *)scratch, *d)
               : backward<float>(stream, *l, dy, qkv, qkv_bias, logit_scale, table, (float *)scratch, *d);
}
