/* simd_avx2.c - the loops with AVX2 and FMA; the Makefile gives this file the flags. */
#ifdef __AVX2__
#define SIMD_NAME  "AVX2"
#define SIMD_BLOCK 8
#define SIMD_TABLE simd_avx2
#include "engine/cpu/simd_loops.h"
#endif
