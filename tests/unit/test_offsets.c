/* test_offsets.c - offsets_assign() on random spans: no two that live together overlap, and the arena is near its lower
 * bound, the most that is alive at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/random.h"
#include "engine/offsets.h"

enum { SPANS = 300, STEPS = 200 };

static bool meet(const struct span *a, const struct span *b)
{
    return a->birth <= b->death && b->birth <= a->death;
}

static void draw(struct span *spans, struct random *random)
{
    for (int i = 0; i < SPANS; i++) {
        spans[i].birth = (int)random_below(random, STEPS);
        spans[i].death = spans[i].birth + (int)random_below(random, 1 + random_below(random, 60));
        spans[i].bytes = random_below(random, 8) == 0 ? 0 : 1 + random_below(random, 1u << random_below(random, 20));
    }
}

static size_t most_alive(const struct span *spans)
{
    size_t most = 0;

    for (int step = 0; step < 2 * STEPS; step++) {
        size_t sum = 0;

        for (int i = 0; i < SPANS; i++)
            if (spans[i].birth <= step && step <= spans[i].death)
                sum += offset_round(spans[i].bytes);
        most = sum > most ? sum : most;
    }
    return most;
}

static void check(const struct span *spans, size_t arena, size_t base)
{
    for (int i = 0; i < SPANS; i++) {
        if (!spans[i].bytes)
            continue;
        assert_true(spans[i].offset % OFFSET_ALIGNMENT == 0);
        assert_true(spans[i].offset >= base && spans[i].offset + spans[i].bytes <= arena);
        for (int j = 0; j < i; j++)
            if (spans[j].bytes && meet(&spans[i], &spans[j]))
                assert_true(spans[i].offset >= spans[j].offset + spans[j].bytes ||
                            spans[j].offset >= spans[i].offset + spans[i].bytes);
    }
}

static void test_random_spans(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct span spans[SPANS] = {0};
        int order[SPANS];
        struct random random;
        size_t arena, base = seed % 2 ? 4096 : 0;

        random_init(&random, 3, seed);
        draw(spans, &random);
        arena = offsets_assign(spans, SPANS, base, order);
        check(spans, arena, base);
        assert_true(arena - base >= most_alive(spans));
        assert_true((double)(arena - base) < 1.3 * (double)most_alive(spans));
    }
}

/* A chain, each alive with its neighbour: two places suffice. */
static void test_chain(void **state)
{
    struct span spans[50];
    int order[50];

    (void)state;
    for (int i = 0; i < 50; i++)
        spans[i] = (struct span){.bytes = 1000, .birth = i, .death = i + 1};
    assert_int_equal(offsets_assign(spans, 50, 0, order), 2 * 1024);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_spans), cmocka_unit_test(test_chain)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
