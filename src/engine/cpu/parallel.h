/* parallel.h - OpenMP, also where the compiler has none (then everything runs in one thread).
 * The same runtime as oneDNN's, so that there is one pool of threads. */
#ifndef RFUAV_ENGINE_CPU_PARALLEL_H
#define RFUAV_ENGINE_CPU_PARALLEL_H

#include <stdint.h>

#ifdef _OPENMP
#include <omp.h>

#define PARALLEL_PRAGMA(x) _Pragma(#x)

/* The statement after it is run by `threads` threads. */
#define PARALLEL(threads) PARALLEL_PRAGMA(omp parallel num_threads(threads))

static inline int parallel_thread(void)
{
    return omp_get_thread_num();
}

static inline int parallel_threads(void)
{
    return omp_get_num_threads();
}

/* All threads of a PARALLEL statement wait for each other. */
static inline void parallel_barrier(void)
{
#pragma omp barrier
}
#else
#define PARALLEL(threads) (void)(threads);

static inline int parallel_thread(void)
{
    return 0;
}

static inline int parallel_threads(void)
{
    return 1;
}

static inline void parallel_barrier(void)
{
}
#endif

/* This thread's arithmetic takes numbers below 1e-38 for 0, as they take a hundred times longer; returns what was
 * before, for parallel_restore(). Elsewhere than on x86-64 nothing changes. */
static inline unsigned parallel_flush_tiny(void)
{
#ifdef __SSE2__
    unsigned before = __builtin_ia32_stmxcsr();

    __builtin_ia32_ldmxcsr(before | 0x8040); /* flush to zero, denormals are zero */
    return before;
#else
    return 0;
#endif
}

static inline void parallel_restore(unsigned before)
{
#ifdef __SSE2__
    __builtin_ia32_ldmxcsr(before);
#else
    (void)before;
#endif
}

/* The share [first, last) of `count` things that this thread has, in multiples of `grain`. */
static inline void parallel_share(int64_t count, int64_t grain, int64_t *first, int64_t *last)
{
    int64_t grains = (count + grain - 1) / grain, thread = parallel_thread(), threads = parallel_threads();

    *first = grains * thread / threads * grain;
    *last = grains * (thread + 1) / threads * grain;
    if (*last > count)
        *last = count;
}

#endif
