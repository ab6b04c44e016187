/* blocked.cu - images and weights in blocks of four pixels. See stream.h for what goes where, and launch.h */
#include "engine/cuda/numbers.cuh"

namespace
{

enum { THREADS = 256, CHANNELS = 16, KERNEL = 4, BORDER = 3, BEFORE = 2, WINDOW = 7, COLOURS = 3 };

/* One thread a block of four pixels: two rows of six neighbouring bytes. */
template <typename T> __global__ void image_kernel(const uint8_t *x, int n, int h, int w, T *y)
{
    int rows = h / 2 + BORDER, columns = w / 2 + BORDER;
    int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x;

    if (item >= (int64_t)n * rows * columns)
        return;
    int j = (int)(item % columns) - BEFORE, i = (int)(item / columns % rows) - BEFORE;
    const uint8_t *image = x + item / columns / rows * h * w * COLOURS;
    bool inside = i >= 0 && i < h / 2 && j >= 0 && j < w / 2;
    vec<8> low = {}, high = {};

    if (inside)
#pragma unroll
        for (int p = 0; p < 2; p++) {
            /* an even number of bytes from an even start */
            const uint16_t *pair =
                reinterpret_cast<const uint16_t *>(image + ((int64_t)(2 * i + p) * w + 2 * j) * COLOURS);

#pragma unroll
            for (int k = 0; k < COLOURS; k++) {
                int at = p * 2 * COLOURS + 2 * k;
                float first = (float)(pair[k] & 255) / 255, second = (float)(pair[k] >> 8) / 255;

                (at < 8 ? low.v[at % 8] : high.v[at % 8]) = first;
                (at + 1 < 8 ? low.v[(at + 1) % 8] : high.v[(at + 1) % 8]) = second;
            }
        }
    store<8>(y + item * CHANNELS, low);
    store<8>(y + item * CHANNELS + 8, high);
}

/* Where number `at` of (out, 4, 4, 16) lies in (out, 3, 7, 7); -1 when it stands for none. */
__device__ int64_t plain_place(int64_t at)
{
    int channel = (int)(at % CHANNELS), b = (int)(at / CHANNELS % KERNEL), a = (int)(at / CHANNELS / KERNEL % KERNEL);
    int64_t o = at / CHANNELS / KERNEL / KERNEL;
    int c = channel % COLOURS, q = channel / COLOURS % 2, p = channel / COLOURS / 2;
    int kh = 2 * a + p - 1, kw = 2 * b + q - 1;

    if (channel >= 4 * COLOURS || kh < 0 || kw < 0)
        return -1;
    return ((o * COLOURS + c) * WINDOW + kh) * WINDOW + kw;
}

__global__ void pack_kernel(const float *oihw, int64_t count, float *packed)
{
    int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x;

    if (at < count)
        packed[at] = plain_place(at) < 0 ? 0 : oihw[plain_place(at)];
}

template <typename T> __global__ void unpack_kernel(const T *packed, int64_t count, float *oihw)
{
    int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x;

    if (at < count && plain_place(at) >= 0)
        oihw[plain_place(at)] = to_float<T>(packed[at]);
}

template <typename T> __global__ void mask_kernel(T *packed, int64_t count)
{
    int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x;

    if (at < count && plain_place(at) < 0)
        packed[at] = from_float<T>(0);
}

unsigned blocks_for(int64_t items)
{
    return (unsigned)((items + THREADS - 1) / THREADS);
}

} // namespace

cudaError_t image_block(cudaStream_t stream, enum number number, const uint8_t *x, int n, int h, int w, void *y)
{
    unsigned blocks = blocks_for((int64_t)n * (h / 2 + BORDER) * (w / 2 + BORDER));

    if (number == NUMBER_BF16)
        image_kernel<<<blocks, THREADS, 0, stream>>>(x, n, h, w, (bf16 *)y);
    else
        image_kernel<<<blocks, THREADS, 0, stream>>>(x, n, h, w, (float *)y);
    return cudaGetLastError();
}

cudaError_t blocked_weight_pack(cudaStream_t stream, const float *oihw, int64_t out, float *packed)
{
    int64_t count = out * KERNEL * KERNEL * CHANNELS;

    pack_kernel<<<blocks_for(count), THREADS, 0, stream>>>(oihw, count, packed);
    return cudaGetLastError();
}

cudaError_t blocked_weight_unpack(cudaStream_t stream, enum number number, const void *packed, int64_t out, float *oihw)
{
    int64_t count = out * KERNEL * KERNEL * CHANNELS;

    if (number == NUMBER_BF16)
        unpack_kernel<<<blocks_for(count), THREADS, 0, stream>>>((const bf16 *)packed, count, oihw);
    else
        unpack_kernel<<<blocks_for(count), THREADS, 0, stream>>>((const float *)packed, count, oihw);
    return cudaGetLastError();
}

cudaError_t blocked_weight_mask(cudaStream_t stream, enum number number, int64_t out, void *packed)
{
    int64_t count = out * KERNEL * KERNEL * CHANNELS;

    if (number == NUMBER_BF16)
        mask_kernel<<<blocks_for(count), THREADS, 0, stream>>>((bf16 *)packed, count);
    else
        mask_kernel<<<blocks_for(count), THREADS, 0, stream>>>((float *)packed, count);
    return cudaGetLastError();
}
