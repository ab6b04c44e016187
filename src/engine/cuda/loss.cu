/* loss.cu - softmax with cross entropy, its gradient, and the sums that a training reports. See launch.h
 * One block does it all: a warp an image, then one sum in order. */
#include "engine/cuda/numbers.cuh"

namespace
{

enum { THREADS = 1024, WARP = 32, WARPS = THREADS / WARP };

/* The first largest of a warp's candidates. */
__device__ void best_of_warp(float &value, int &at)
{
    for (int step = WARP / 2; step; step /= 2) {
        float other = __shfl_xor_sync(0xFFFFFFFF, value, step);
        int other_at = __shfl_xor_sync(0xFFFFFFFF, at, step);

        if (other > value || (other == value && other_at < at)) {
            value = other;
            at = other_at;
        }
    }
}

__global__ void __launch_bounds__(THREADS) loss_kernel(const float *logits, const int32_t *labels, int n, int classes,
                                                       float *loss, float *probabilities, double *stats)
{
    __shared__ double losses[WARPS];
    __shared__ int rights[WARPS];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, right = 0;
    double sum_losses = 0;

    for (int i = warp; i < n; i += WARPS) {
        const float *row = logits + (int64_t)i * classes;
        float best = -INFINITY;
        int at = classes;
        float sum = 0;

        for (int k = lane; k < classes; k += WARP)
            if (row[k] > best || at == classes) {
                best = row[k];
                at = k;
            }
        best_of_warp(best, at);
        for (int k = lane; k < classes; k += WARP)
            sum += expf(row[k] - best);
        for (int step = WARP / 2; step; step /= 2)
            sum += __shfl_xor_sync(0xFFFFFFFF, sum, step);
        for (int k = lane; k < classes; k += WARP)
            probabilities[(int64_t)i * classes + k] = expf(row[k] - best) / sum;
        sum_losses += (double)best + (double)logf(sum) - (double)row[labels[i]];
        right += at == labels[i];
    }
    if (lane == 0) {
        losses[warp] = sum_losses;
        rights[warp] = right;
    }
    __syncthreads();
    if (threadIdx.x)
        return;
    for (int i = 1; i < WARPS; i++) {
        sum_losses += losses[i];
        right += rights[i];
    }
    *loss = (float)(sum_losses / n);
    if (stats) {
        stats[0] += (double)*loss;
        stats[1] += 1;
        stats[2] += right;
        stats[3] += n;
    }
}

template <typename T>
__global__ void gradient_kernel(const float *probabilities, const int32_t *labels, int n, int classes, T *dlogits)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;

    if (i < (int64_t)n * classes)
        dlogits[i] = from_float<T>((probabilities[i] - (i % classes == labels[i / classes] ? 1 : 0)) / (float)n);
}

} // namespace

cudaError_t cross_entropy(cudaStream_t stream, const float *logits, const int32_t *labels, int n, int classes,
                          float *loss, float *probabilities, double *stats)
{
    loss_kernel<<<1, THREADS, 0, stream>>>(logits, labels, n, classes, loss, probabilities, stats);
    return cudaGetLastError();
}

cudaError_t cross_entropy_backward(cudaStream_t stream, const float *probabilities, const int32_t *labels, int n,
                                   int classes, enum number number, void *dlogits)
{
    unsigned blocks = (unsigned)(((int64_t)n * classes + 255) / 256);

    if (number == NUMBER_BF16)
        gradient_kernel<<<blocks, 256, 0, stream>>>(probabilities, labels, n, classes, (bf16 *)dlogits);
    else
        gradient_kernel<<<blocks, 256, 0, stream>>>(probabilities, labels, n, classes, (float *)dlogits);
    return cudaGetLastError();
}
