/* random.h - counter-based random numbers: value i of stream (seed, stream) is a pure function of the three, so a
 * run is reproducible, resumable at any point, and independent of the number of threads.
 * Philox-4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. */
#ifndef RFUAV_BASE_RANDOM_H
#define RFUAV_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

struct random {
    uint64_t seed, stream, counter; /* counter: the next value's index; set it to resume */
    uint64_t block_end;             /* internal: `block` holds the four values before this index; 0: none */
    uint32_t block[4];
};

void random_init(struct random *random, uint64_t seed, uint64_t stream);
uint32_t random_u32(struct random *random);
double random_uniform(struct random *random);                        /* [0, 1), 32 bits */
double random_normal(struct random *random);                         /* mean 0, variance 1 (Box-Muller) */
uint32_t random_below(struct random *random, uint32_t n);            /* 0 ≤ x < n, without bias; n > 0 */
void random_shuffle(struct random *random, size_t *items, size_t n); /* Fisher-Yates */

/* A seed from the operating system. */
uint64_t random_seed(void);

#endif
