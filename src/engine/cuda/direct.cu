/* direct.cu - convolution as its definition says, one thread an output number. Slow; for shapes that cuDNN has no
 * engine for. See launch.h */
#include "engine/cuda/numbers.cuh"

namespace
{

enum { THREADS = 256 };

template <typename T> __global__ void forward_kernel(direct_launch d, const T *x, const T *weight, T *y)
{
    int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x;

    if (at >= (int64_t)d.n * d.oh * d.ow * d.o)
        return;
    int o = (int)(at % d.o), ow = (int)(at / d.o % d.ow), oh = (int)(at / d.o / d.ow % d.oh);
    int64_t n = at / d.o / d.ow / d.oh;
    int ci = d.c / d.groups, first = o / (d.o / d.groups) * ci;
    float sum = 0;

    for (int kh = 0; kh < d.kernel[0]; kh++)
        for (int kw = 0; kw < d.kernel[1]; kw++) {
            int ih = oh * d.stride[0] - d.padding[0] + kh, iw = ow * d.stride[1] - d.padding[1] + kw;

            if (ih < 0 || ih >= d.h || iw < 0 || iw >= d.w)
                continue;
            const T *in = x + ((n * d.h + ih) * d.w + iw) * d.c + first;
            const T *w = weight + (((int64_t)o * d.kernel[0] + kh) * d.kernel[1] + kw) * ci;

            for (int i = 0; i < ci; i++)
                sum += to_float(in[i]) * to_float(w[i]);
        }
    y[at] = from_float<T>(sum);
}

template <typename T> __global__ void data_kernel(direct_launch d, const T *dy, const T *weight, T *dx)
{
    int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x;

    if (at >= (int64_t)d.n * d.h * d.w * d.c)
        return;
    int c = (int)(at % d.c), iw = (int)(at / d.c % d.w), ih = (int)(at / d.c / d.w % d.h);
    int64_t n = at / d.c / d.w / d.h;
    int ci = d.c / d.groups, co = d.o / d.groups, first = c / ci * co;
    float sum = 0;

    for (int kh = 0; kh < d.kernel[0]; kh++)
        for (int kw = 0; kw < d.kernel[1]; kw++) {
            int oh = ih + d.padding[0] - kh, ow = iw + d.padding[1] - kw;

            if (oh < 0 || ow < 0 || oh % d.stride[0] || ow % d.stride[1] || oh / d.stride[0] >= d.oh ||
                ow / d.stride[1] >= d.ow)
                continue;
            const T *out = dy + ((n * d.oh + oh / d.stride[0]) * d.ow + ow / d.stride[1]) * d.o + first;

            for (int o = 0; o < co; o++)
                sum += to_float(out[o]) *
                       to_float(weight[((((int64_t)first + o) * d.kernel[0] + kh) * d.kernel[1] + kw) * ci + c % ci]);
        }
    dx[at] = from_float<T>(sum);
}

template <typename T, typename W> __global__ void weight_kernel(direct_launch d, const T *dy, const T *x, W *dweight)
{
    int ci = d.c / d.groups;
    int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x;

    if (at >= (int64_t)d.o * d.kernel[0] * d.kernel[1] * ci)
        return;
    int i = (int)(at % ci), kw = (int)(at / ci % d.kernel[1]), kh = (int)(at / ci / d.kernel[1] % d.kernel[0]);
    int o = (int)(at / ci / d.kernel[1] / d.kernel[0]), c = o / (d.o / d.groups) * ci + i;
    double sum = 0;

    for (int n = 0; n < d.n; n++)
        for (int oh = 0; oh < d.oh; oh++)
            for (int ow = 0; ow < d.ow; ow++) {
                int ih = oh * d.stride[0] - d.padding[0] + kh, iw = ow * d.stride[1] - d.padding[1] + kw;

                if (ih >= 0 && ih < d.h && iw >= 0 && iw < d.w)
                    sum += (double)to_float(x[(((int64_t)n * d.h + ih) * d.w + iw) * d.c + c]) *
                           (double)to_float(dy[(((int64_t)n * d.oh + oh) * d.ow + ow) * d.o + o]);
            }
    dweight[at] = from_float<W>((float)sum);
}

unsigned blocks_for(int64_t items)
{
    return (unsigned)((items + THREADS - 1) / THREADS);
}

} // namespace

cudaError_t direct_forward(cudaStream_t stream, const struct direct_launch *d, const void *x, const void *weight,
                           void *y)
{
    unsigned blocks = blocks_for((int64_t)d->n * d->oh * d->ow * d->o);

    if (d->number == NUMBER_BF16)
        forward_kernel<<<blocks, THREADS, 0, stream>>>(*d, (const bf16 *)x, (const bf16 *)weight, (bf16 *)y);
    else
        forward_kernel<<<blocks, THREADS, 0, stream>>>(*d, (const float *)x, (const float *)weight, (float *)y);
    return cudaGetLastError();
}

cudaError_t direct_backward_data(cudaStream_t stream, const struct direct_launch *d, const void *dy, const void *weight,
                                 void *dx)
{
    unsigned blocks = blocks_for((int64_t)d->n * d->h * d->w * d->c);

    if (d->number == NUMBER_BF16)
        data_kernel<<<blocks, THREADS, 0, stream>>>(*d, (const bf16 *)dy, (const bf16 *)weight, (bf16 *)dx);
    else
        data_kernel<<<blocks, THREADS, 0, stream>>>(*d, (const float *)dy, (const float *)weight, (float *)dx);
    return cudaGetLastError();
}

cudaError_t direct_backward_weight(cudaStream_t stream, const struct direct_launch *d, const void *dy, const void *x,
                                   void *dweight)
{
    unsigned blocks = blocks_for((int64_t)d->o * d->kernel[0] * d->kernel[1] * (d->c / d->groups));

    if (d->number == NUMBER_F32)
        weight_kernel<<<blocks, THREADS, 0, stream>>>(*d, (const float *)dy, (const float *)x, (float *)dweight);
    else if (d->weight_number == NUMBER_F32)
        weight_kernel<<<blocks, THREADS, 0, stream>>>(*d, (const bf16 *)dy, (const bf16 *)x, (float *)dweight);
    else
        weight_kernel<<<blocks, THREADS, 0, stream>>>(*d, (const bf16 *)dy, (const bf16 *)x, (bf16 *)dweight);
    return cudaGetLastError();
}
