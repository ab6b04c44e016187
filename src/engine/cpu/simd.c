/* simd.c - the loops for any processor, and the choice. */
#define SIMD_NAME  "plain"
#define SIMD_BLOCK 8
#define SIMD_TABLE simd_plain
#include "engine/cpu/simd_loops.h"

const struct simd *simd_best(bool avx512)
{
#ifdef __x86_64__
    __builtin_cpu_init();
    if (avx512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return &simd_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &simd_avx2;
#endif
    (void)avx512;
    return &simd_plain;
}
