/* philox.h - the generator under all random numbers, for the host and for GPUs: four words as a pure function of a key
 * and a counter. Philox-4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. */
#ifndef RFUAV_BASE_PHILOX_H
#define RFUAV_BASE_PHILOX_H

#include <stdint.h>

#ifdef __CUDACC__
#define PHILOX_INLINE static __host__ __device__ __forceinline__
#else
#define PHILOX_INLINE static inline
#endif

/* counter: in; the four words: out. */
PHILOX_INLINE void philox(uint64_t key, uint32_t words[4])
{
    uint32_t key0 = (uint32_t)key, key1 = (uint32_t)(key >> 32);

    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * words[0], b = (uint64_t)0xCD9E8D57u * words[2];

        words[0] = (uint32_t)(b >> 32) ^ words[1] ^ key0;
        words[1] = (uint32_t)b;
        words[2] = (uint32_t)(a >> 32) ^ words[3] ^ key1;
        words[3] = (uint32_t)a;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
}

/* The words of block `block` (four elements) for random op `number` of a network at optimizer step `step`: the draw of
 * dropout, the same on every backend. number > 0 keeps it apart from the streams of random.h, whose numbers stay below
 * 2^32. */
PHILOX_INLINE void philox_dropout(uint64_t seed, uint32_t number, int64_t step, uint64_t block, uint32_t words[4])
{
    words[0] = (uint32_t)block;
    words[1] = (uint32_t)(block >> 32);
    words[2] = (uint32_t)step;
    words[3] = number;
    philox(seed, words);
}

/* A word below it is dropped. 0 ≤ p < 1 */
PHILOX_INLINE uint32_t philox_threshold(float p)
{
    return (uint32_t)((double)p * 4294967296.0);
}

#endif
