/* norm.cuh - what the two ways of batch normalisation share: norm.cu for tensors of any size, norm_cluster.cu for those
 * that fit into the shared memory of a few blocks. */
#ifndef RFUAV_ENGINE_CUDA_NORM_CUH
#define RFUAV_ENGINE_CUDA_NORM_CUH

#include "engine/cuda/activation.cuh"

/* The batch's moments of a channel, from the sums of d = x - shift and d^2, go into save_* and the running ones. */
__device__ inline void norm_statistics(int channel, float shift, double sum, double square, int64_t rows, float eps,
                                       float momentum, const norm_forward_args &f)
{
    double n = (double)rows, offset = sum / n, var = square / n - offset * offset, mean = (double)shift + offset;

    if (var < 0)
        var = 0;
    f.save_mean[channel] = (float)mean;
    f.save_invstd[channel] = (float)(1 / sqrt(var + (double)eps));
    f.running_mean[channel] = (1 - momentum) * f.running_mean[channel] + momentum * (float)mean;
    f.running_var[channel] =
        (1 - momentum) * f.running_var[channel] + momentum * (float)(rows > 1 ? var * n / (n - 1) : 0);
    if (channel == 0)
        *f.batches += 1;
}

/* The gradient of one vector before the activation: dy + dy2, 0 where the activation cut it off. */
template <typename T, int V>
__device__ inline vec<V> norm_gradient(const T *dy, const T *dy2, const T *y, const uint8_t *mask, int64_t at)
{
    vec<V> g = load<V>(dy + at);

    if (dy2) {
        vec<V> more = load<V>(dy2 + at);

#pragma unroll
        for (int i = 0; i < V; i++)
            g.v[i] += more.v[i];
    }
    if (V == 8 && mask) {
        unsigned bits = mask[at / 8];

#pragma unroll
        for (int i = 0; i < V; i++)
            g.v[i] = bits >> i & 1 ? g.v[i] : 0;
    } else if (y) {
        vec<V> value = load<V>(y + at);

#pragma unroll
        for (int i = 0; i < V; i++)
            g.v[i] = value.v[i] > 0 ? g.v[i] : 0;
    }
    return g;
}

/* What goes into an activation that needs it for its slope, x scale + shift: in the backward, for the channels from c.
 */
template <int V> struct into {
    vec<V> scale, shift;

    __device__ void load_from(const norm_backward_args &b, int c)
    {
        vec<V> mean = load<V>(b.save_mean + c), invstd = load<V>(b.save_invstd + c);

        scale = load<V>(b.weight + c);
        shift = load<V>(b.bias + c);
#pragma unroll
        for (int i = 0; i < V; i++) {
            scale.v[i] *= invstd.v[i];
            shift.v[i] -= mean.v[i] * scale.v[i];
        }
    }

    /* g times the slope there. */
    __device__ void pass(enum activation activation, const vec<V> &x, vec<V> &g) const
    {
#pragma unroll
        for (int i = 0; i < V; i++)
            g.v[i] *= slope(activation, x.v[i] * scale.v[i] + shift.v[i]);
    }
};

/* Enqueue the op if the tensor fits; false when it does not. */
bool norm_cluster_forward(cudaStream_t stream, const norm_launch *l, const norm_forward_args *f, cudaError_t *status);
bool norm_cluster_backward(cudaStream_t stream, const norm_launch *l, const norm_backward_args *b, cudaError_t *status);

#endif
