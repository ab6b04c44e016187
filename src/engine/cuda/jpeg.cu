/* jpeg.cu - see jpeg_kernels.h. A block makes a row of RGB in shared memory and resizes it, then each column is
 * resized: base/resample.h's definition, in integers, so that the result is the CPU's. */
#include "engine/cuda/jpeg_kernels.h"

#include "engine/cuda/ycc.h"

enum { THREADS = 256 };

__device__ static uint8_t to_byte(int sum)
{
    sum >>= RESAMPLE_BITS;
    return (uint8_t)(sum > 255 ? 255 : sum);
}

__device__ static void make_row(const struct planes &p, int y, uint8_t *rgb)
{
    bool half = p.colour_width != p.width;
    const uint8_t *luma = p.plane[0] + (size_t)y * p.width;
    size_t near_row = (size_t)(half ? y / 2 : y) * p.colour_width;
    size_t far_row = (size_t)(half ? ycc_far_row(y, p.colour_height) : y) * p.colour_width;

    for (int x = threadIdx.x; x < p.width; x += THREADS) {
        int colour[2];

        for (int c = 0; c < 2; c++) {
            const uint8_t *plane = p.plane[1 + c];

            colour[c] = half ? ycc_upsample(plane + near_row, plane + far_row, p.colour_width, x) : plane[near_row + x];
        }
        ycc_to_rgb(luma[x], colour[0], colour[1], rgb + 3 * x);
    }
}

/* Block (y, picture): row y of `between`. */
__global__ static void rows(const __grid_constant__ struct jpeg_launch launch)
{
    extern __shared__ uint8_t rgb[];
    const struct planes &p = launch.pictures[blockIdx.y];
    int y = blockIdx.x, numbers = 3 * launch.image_size;

    if (y >= p.height)
        return;
    make_row(p, y, rgb);
    __syncthreads();
    for (int j = threadIdx.x; j < numbers; j += THREADS) {
        int i = j / 3, count = p.horizontal.count[i], sum = RESAMPLE_HALF;
        const int32_t *weight = p.horizontal.weight + (size_t)i * p.horizontal.taps;
        const uint8_t *in = rgb + 3 * p.horizontal.first[i] + j % 3;

        for (int t = 0; t < count; t++)
            sum += weight[t] * in[3 * t];
        p.between[(size_t)y * numbers + j] = to_byte(sum);
    }
}

/* Block (y, picture): row y of the result. */
__global__ static void columns(const __grid_constant__ struct jpeg_launch launch)
{
    const struct planes &p = launch.pictures[blockIdx.y];
    int y = blockIdx.x, numbers = 3 * launch.image_size, count = p.vertical.count[y];
    const int32_t *weight = p.vertical.weight + (size_t)y * p.vertical.taps;
    const uint8_t *in = p.between + (size_t)p.vertical.first[y] * numbers;

    for (int j = threadIdx.x; j < numbers; j += THREADS) {
        int sum = RESAMPLE_HALF;

        for (int t = 0; t < count; t++)
            sum += weight[t] * in[(size_t)t * numbers + j];
        p.out[(size_t)y * numbers + j] = to_byte(sum);
    }
}

cudaError_t jpeg_resize(cudaStream_t stream, const struct jpeg_launch *launch)
{
    rows<<<dim3(launch->most_rows, launch->count), THREADS, 3 * launch->most_columns, stream>>>(*launch);
    columns<<<dim3(launch->image_size, launch->count), THREADS, 0, stream>>>(*launch);
    return cudaGetLastError();
}
