/* swin.cu - Swin v2's position bias and patch merging. See launch.h, op.h */
#include "engine/cuda/numbers.cuh"

namespace
{

enum { WARP = 32, FORWARD_THREADS = 256, FORWARD_PLACES = 8, BACKWARD_WARPS = 8 };
constexpr float LARGEST = 16; /* bias */

__device__ inline float hidden_of(const position_launch &l, int place, int m)
{
    float x = l.weight1[2 * m] * l.coords[2 * place] + l.weight1[2 * m + 1] * l.coords[2 * place + 1] + l.bias1[m];

    return fmaxf(x, 0);
}

/* A block makes FORWARD_PLACES places of the table: first the hidden numbers of all, then a warp a head. */
__global__ void __launch_bounds__(FORWARD_THREADS) position_kernel(position_launch l, float *table)
{
    extern __shared__ float hidden[]; /* (FORWARD_PLACES, middle) */
    int first = blockIdx.x * FORWARD_PLACES, lane = threadIdx.x % WARP;

#pragma unroll 4
    for (int i = threadIdx.x; i < FORWARD_PLACES * l.middle; i += FORWARD_THREADS) {
        int place = first + i / l.middle;

        hidden[i] = place < l.places ? hidden_of(l, place, i % l.middle) : 0;
    }
    __syncthreads();
    for (int head = threadIdx.x / WARP; head < l.heads; head += FORWARD_THREADS / WARP) {
        float sums[FORWARD_PLACES] = {};

#pragma unroll 4
        for (int m = lane; m < l.middle; m += WARP) {
            float weight = l.weight2[head * l.middle + m];

#pragma unroll
            for (int i = 0; i < FORWARD_PLACES; i++)
                sums[i] += hidden[i * l.middle + m] * weight;
        }
#pragma unroll
        for (int i = 0; i < FORWARD_PLACES; i++) {
            for (int step = WARP / 2; step; step /= 2)
                sums[i] += __shfl_xor_sync(0xFFFFFFFF, sums[i], step);
            if (lane == 0 && first + i < l.places)
                table[head * l.places + first + i] = LARGEST / (1 + expf(-sums[i]));
        }
    }
}

/* What a hidden number's thread sums over places: gradients of weight2, of weight1, of bias1. */
enum {
    HEADS = POSITION_MOST_HEADS,
    PITCH = HEADS + 1 /* for the banks */,
    DW1 = HEADS,
    DB1 = HEADS + 2,
    VALUES = HEADS + 3
};

/* A block takes 32 hidden numbers, one a lane; its warps share the places. shared: (places, PITCH) gradients before the
 * sigmoid, then (VALUES, BACKWARD_WARPS, WARP) sums. */
template <typename T>
__global__ void __launch_bounds__(WARP *BACKWARD_WARPS)
    position_backward_kernel(position_launch l, const float *dtable, const float *table, T *dweight1, float *dbias1,
                             T *dweight2)
{
    extern __shared__ float shared[];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, m = blockIdx.x * WARP + lane;
    float weight2[HEADS], sums[VALUES] = {};

    for (int i = threadIdx.x; i < l.places * PITCH; i += WARP * BACKWARD_WARPS)
        shared[i] = 0;
    __syncthreads();
#pragma unroll 8
    for (int i = threadIdx.x; i < l.places * l.heads; i += WARP * BACKWARD_WARPS) {
        float y = table[i];

        shared[i % l.places * PITCH + i / l.places] = dtable[i] * y * (1 - y / LARGEST);
    }
#pragma unroll
    for (int head = 0; head < HEADS; head++)
        weight2[head] = head < l.heads && m < l.middle ? l.weight2[head * l.middle + m] : 0;
    __syncthreads();
    for (int place = warp; place < l.places; place += BACKWARD_WARPS) {
        float hidden = m < l.middle ? hidden_of(l, place, m) : 0, dhidden = 0;

#pragma unroll
        for (int head = 0; head < HEADS; head++) {
            float dz = shared[place * PITCH + head];

            sums[head] += dz * hidden;
            dhidden += dz * weight2[head];
        }
        dhidden = hidden > 0 ? dhidden : 0;
        sums[DW1] += dhidden * l.coords[2 * place];
        sums[DW1 + 1] += dhidden * l.coords[2 * place + 1];
        sums[DB1] += dhidden;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < VALUES; i++)
        shared[(i * BACKWARD_WARPS + warp) * WARP + lane] = sums[i];
    __syncthreads();
    for (int i = warp; i < VALUES && m < l.middle; i += BACKWARD_WARPS) {
        float sum = 0;

        for (int w = 0; w < BACKWARD_WARPS; w++)
            sum += shared[(i * BACKWARD_WARPS + w) * WARP + lane];
        if (i < l.heads)
            dweight2[i * l.middle + m] = from_float<T>(sum);
        else if (i == DB1)
            dbias1[m] = sum;
        else if (i >= DW1)
            dweight1[2 * m + i - DW1] = from_float<T>(sum);
    }
}

/* V numbers a thread: of the merged image (to_merged: from the pixel, or zeros), or of the pixel (from the merged). */
template <typename T, int V>
__global__ void merge_kernel(const T *from, int64_t count, int h, int w, int channels, bool to_merged, T *to)
{
    int oh = (h + 1) / 2, ow = (w + 1) / 2;

    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count / V;
         i += (int64_t)gridDim.x * blockDim.x) {
        int64_t at = i * V, rest = at / channels;
        int c = (int)(at % channels), y, x;

        if (to_merged) {
            int part = (int)(rest % 4);

            rest /= 4;
            y = (int)(rest / ow % oh) * 2 + part % 2;
            x = (int)(rest % ow) * 2 + part / 2;
            store<V>(to + at,
                     y < h && x < w ? load<V>(from + ((rest / ow / oh * h + y) * w + x) * channels + c) : vec<V>{});
        } else {
            y = (int)(rest / w % h);
            x = (int)(rest % w);
            store<V>(
                to + at,
                load<V>(from + (((rest / w / h * oh + y / 2) * ow + x / 2) * 4 + y % 2 + x % 2 * 2) * channels + c));
        }
    }
}

cudaError_t merge(cudaStream_t stream, enum number number, const void *from, int64_t count, int h, int w, int channels,
                  bool to_merged, void *to)
{
    int64_t blocks = (count / (channels % 8 ? 1 : 8) + 255) / 256;

    blocks = blocks < 1 << 20 ? blocks : 1 << 20;
#define CALL(T, V)                                                                                                     \
    (merge_kernel<T, V>                                                                                                \
     <<<(unsigned)blocks, 256, 0, stream>>>((const T *)from, count, h, w, channels, to_merged, (T *)to),               \
     cudaGetLastError())
    return DISPATCH(number, channels, CALL);
#undef CALL
}

} // namespace

cudaError_t position_bias(cudaStream_t stream, const struct position_launch *l, float *table)
{
    unsigned blocks = (unsigned)(l->places + FORWARD_PLACES - 1) / FORWARD_PLACES;

    position_kernel<<<blocks, FORWARD_THREADS, FORWARD_PLACES *(size_t)l->middle * sizeof(float), stream>>>(*l, table);
    return cudaGetLastError();
}

cudaError_t position_bias_backward(cudaStream_t stream, const struct position_launch *l, const float *dtable,
                                   const float *table, enum number number, void *dweight1, float *dbias1,
                                   void *dweight2)
{
    unsigned blocks = (unsigned)(l->middle + WARP - 1) / WARP;
    size_t places = (size_t)l->places * PITCH, sums = (size_t)VALUES * BACKWARD_WARPS * WARP;
    size_t bytes = (places > sums ? places : sums) * sizeof(float);

    if (number == NUMBER_BF16)
        position_backward_kernel<<<blocks, WARP * BACKWARD_WARPS, bytes, stream>>>(*l, dtable, table, (bf16 *)dweight1,
                                                                                   dbias1, (bf16 *)dweight2);
    else
        position_backward_kernel<<<blocks, WARP * BACKWARD_WARPS, bytes, stream>>>(*l, dtable, table, (float *)dweight1,
                                                                                   dbias1, (float *)dweight2);
    return cudaGetLastError();
}

cudaError_t patch_merge(cudaStream_t stream, enum number number, const void *x, int n, int h, int w, int channels,
                        void *y)
{
    return merge(stream, number, x, (int64_t)n * ((h + 1) / 2) * ((w + 1) / 2) * 4 * channels, h, w, channels, true, y);
}

cudaError_t patch_merge_backward(cudaStream_t stream, enum number number, const void *dy, int n, int h, int w,
                                 int channels, void *dx)
{
    return merge(stream, number, dy, (int64_t)n * h * w * channels, h, w, channels, false, dx);
}
