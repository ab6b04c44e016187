/* simd_avx512.c - the loops with AVX-512; the Makefile gives this file the flags. */
#ifdef __AVX512F__
#define SIMD_NAME  "AVX-512"
#define SIMD_BLOCK 16
#define SIMD_TABLE simd_avx512
#include "engine/cpu/simd_loops.h"
#endif
