/* adam.cu - one kernel for any number of parameters. See launch.h, and OP_ADAM in op.h */
#include "engine/cuda/numbers.cuh"

namespace
{

enum { THREADS = 256, V = 4, PASSES = ADAM_CHUNK / (THREADS * V) };

struct constants {
    float one_minus_beta1, beta2, one_minus_beta2, step_size, inv_root, eps;
};

__device__ inline float updated(const constants &k, float g, float &m, float &v, float p)
{
    m += k.one_minus_beta1 * (g - m);
    v = k.beta2 * v + k.one_minus_beta2 * g * g;
    return p - k.step_size * m / (sqrtf(v) * k.inv_root + k.eps);
}

__device__ inline float gradient_at(const adam_tensor &t, int64_t i)
{
    return t.grad_number == NUMBER_BF16 ? __bfloat162float(((const bf16 *)t.grad)[i]) : ((const float *)t.grad)[i];
}

__device__ inline float4 gradient4_at(const adam_tensor &t, int64_t i)
{
    if (t.grad_number == NUMBER_F32)
        return *(const float4 *)((const float *)t.grad + i);
    uint2 raw = *(const uint2 *)((const bf16 *)t.grad + i);
    float2 a = __bfloat1622float2(*(__nv_bfloat162 *)&raw.x), b = __bfloat1622float2(*(__nv_bfloat162 *)&raw.y);

    return make_float4(a.x, a.y, b.x, b.y);
}

__device__ void update4(const constants &k, const adam_tensor &t, int64_t i)
{
    float4 g = gradient4_at(t, i), m = *(float4 *)(t.exp_avg + i), v = *(float4 *)(t.exp_avg_sq + i);
    float4 p = *(float4 *)(t.param + i);

    p.x = updated(k, g.x, m.x, v.x, p.x);
    p.y = updated(k, g.y, m.y, v.y, p.y);
    p.z = updated(k, g.z, m.z, v.z, p.z);
    p.w = updated(k, g.w, m.w, v.w, p.w);
    *(float4 *)(t.exp_avg + i) = m;
    *(float4 *)(t.exp_avg_sq + i) = v;
    *(float4 *)(t.param + i) = p;
    if (t.copy) {
        __nv_bfloat162 pair[2] = {__floats2bfloat162_rn(p.x, p.y), __floats2bfloat162_rn(p.z, p.w)};

        *(uint2 *)((bf16 *)t.copy + i) = *(uint2 *)pair;
    }
}

__global__ void __launch_bounds__(THREADS) adam_kernel(adam_launch a)
{
    __shared__ constants shared;
    const adam_chunk chunk = a.chunks[blockIdx.x];
    const adam_tensor t = a.tensors[chunk.tensor];
    int64_t end = t.count - chunk.first < ADAM_CHUNK ? t.count : chunk.first + ADAM_CHUNK;

    if (threadIdx.x == 0) {
        double step = (double)(*a.step + 1);

        shared.one_minus_beta1 = (float)(1 - a.beta1);
        shared.beta2 = (float)a.beta2;
        shared.one_minus_beta2 = (float)(1 - a.beta2);
        shared.step_size = (float)(a.learning_rate / (1 - pow(a.beta1, step)));
        shared.inv_root = (float)(1 / sqrt(1 - pow(a.beta2, step)));
        shared.eps = a.eps;
    }
    __syncthreads();
    const constants k = shared;

    if (t.count % V == 0) {
#pragma unroll
        for (int pass = 0; pass < PASSES; pass++) {
            int64_t i = chunk.first + (pass * THREADS + threadIdx.x) * V;

            if (i < end)
                update4(k, t, i);
        }
    } else {
        for (int64_t i = chunk.first + threadIdx.x; i < end; i += THREADS) {
            float p = updated(k, gradient_at(t, i), t.exp_avg[i], t.exp_avg_sq[i], t.param[i]);

            t.param[i] = p;
            if (t.copy)
                ((bf16 *)t.copy)[i] = __float2bfloat16(p);
        }
    }
    /* the last block counts the step, when all have read it */
    if (a.counts_step && threadIdx.x == 0) {
        __threadfence();
        if (atomicAdd(a.ticket, 1) == gridDim.x - 1) {
            *a.ticket = 0;
            *a.step += 1;
        }
    }
}

} // namespace

cudaError_t adam_update(cudaStream_t stream, const struct adam_launch *a)
{
    adam_kernel<<<(unsigned)a->chunk_count, THREADS, 0, stream>>>(*a);
    return cudaGetLastError();
}
