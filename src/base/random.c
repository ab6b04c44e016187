/* random.c - see random.h */
#include "base/random.h"

#include <math.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/philox.h"

static void draw_block(const struct random *random, uint64_t index, uint32_t out[4])
{
    out[0] = (uint32_t)index;
    out[1] = (uint32_t)(index >> 32);
    out[2] = (uint32_t)random->stream;
    out[3] = (uint32_t)(random->stream >> 32);
    philox(random->seed, out);
}

void random_init(struct random *random, uint64_t seed, uint64_t stream)
{
    *random = (struct random){.seed = seed, .stream = stream};
}

uint32_t random_u32(struct random *random)
{
    uint64_t i = random->counter++, end = i - i % 4 + 4;

    /* a stream that was set to another index begins anywhere in a block */
    if (random->block_end != end) {
        draw_block(random, i / 4, random->block);
        random->block_end = end;
    }
    return random->block[i % 4];
}

double random_uniform(struct random *random)
{
    return random_u32(random) * 0x1p-32;
}

double random_normal(struct random *random)
{
    double radius = sqrt(-2.0 * log((random_u32(random) + 1.0) * 0x1p-32));

    return radius * cos(2.0 * M_PI * random_uniform(random));
}

uint32_t random_below(struct random *random, uint32_t n)
{
    uint32_t reject = (0u - n) % n, value;

    do
        value = random_u32(random);
    while (value < reject);
    return value % n;
}

void random_shuffle(struct random *random, size_t *items, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = random_below(random, (uint32_t)i), swap = items[i - 1];

        items[i - 1] = items[j];
        items[j] = swap;
    }
}

uint64_t random_seed(void)
{
    uint64_t seed;

    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        seed = (uint64_t)clock_unix_us();
    return seed;
}
