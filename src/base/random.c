/* random.c - see random.h */
#include "base/random.h"

#include <math.h>
#include <sys/random.h>

#include "base/clock.h"

static void philox(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4])
{
    uint32_t c[4] = {(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)stream, (uint32_t)(stream >> 32)};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};

    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ key[0], (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ key[1],
                            (uint32_t)a};

        for (int i = 0; i < 4; i++)
            c[i] = next[i];
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    for (int i = 0; i < 4; i++)
        out[i] = c[i];
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
        philox(random->seed, random->stream, i / 4, random->block);
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
