/* test_dropout.c - random ops: the share of what is dropped, and that a run can be repeated and taken up again. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/philox.h"
#include "engine/net.h"

enum { SIZE = 32, BATCH = 4, CLASSES = 3 };

static int kept(uint64_t seed, uint32_t number, int64_t step, float p, int count, uint8_t *mask)
{
    int sum = 0;

    for (int i = 0; i < count; i++) {
        uint32_t words[4];

        philox_dropout(seed, number, step, (uint64_t)i / 4, words);
        mask[i] = words[i % 4] >= philox_threshold(p);
        sum += mask[i];
    }
    return sum;
}

static int agreeing(const uint8_t *a, const uint8_t *b, int count)
{
    int sum = 0;

    for (int i = 0; i < count; i++)
        sum += a[i] == b[i];
    return sum;
}

/* Within four standard deviations of what chance gives, for the share and for how two masks agree. */
static void test_shares(void **state)
{
    enum { COUNT = 1 << 16 };
    static uint8_t mask[COUNT], other[COUNT];
    const float p = 0.2f;
    double sigma = sqrt(0.2 * 0.8 * COUNT), agree = (0.2 * 0.2 + 0.8 * 0.8) * COUNT;

    (void)state;
    assert_true(fabs(kept(1, 1, 0, p, COUNT, mask) - 0.8 * COUNT) < 4 * sigma);
    kept(1, 1, 1, p, COUNT, other); /* the next step */
    assert_true(fabs(agreeing(mask, other, COUNT) - agree) < 4 * sqrt(COUNT) / 2);
    kept(1, 2, 0, p, COUNT, other); /* another op */
    assert_true(fabs(agreeing(mask, other, COUNT) - agree) < 4 * sqrt(COUNT) / 2);
    kept(2, 1, 0, p, COUNT, other); /* another seed */
    assert_true(fabs(agreeing(mask, other, COUNT) - agree) < 4 * sqrt(COUNT) / 2);
    assert_int_equal(kept(1, 1, 0, 0, COUNT, other), COUNT);
}

static struct net *open_net(bool no_dropout, uint64_t seed)
{
    const struct net_config config = {.model = "mobilenet_v3_small",
                                      .num_classes = CLASSES,
                                      .image_size = SIZE,
                                      .batch_size = BATCH,
                                      .mode = NET_TRAIN,
                                      .precision = DTYPE_F32,
                                      .backend = "cpu",
                                      .threads = 1,
                                      .seed = seed,
                                      .no_dropout = no_dropout,
                                      .learning_rate = 1e-3};
    struct net *net;
    struct err err;

    if (!net_open(&config, &net, &err))
        fail_msg("%s", err.message);
    return net;
}

/* The losses of two steps. */
static void train(struct net *net, double losses[2])
{
    static uint8_t images[BATCH][SIZE][SIZE][3];
    static const int32_t labels[BATCH] = {0, 1, 2, 0};
    struct net_stats stats;
    struct err err;

    for (size_t i = 0; i < sizeof images; i++)
        (&images[0][0][0][0])[i] = (uint8_t)(i * 2654435761u >> 13);
    for (int step = 0; step < 2; step++) {
        assert_true(net_train(net, &images[0][0][0][0], labels, BATCH, &err));
        assert_true(net_stats(net, &stats, &err));
        losses[step] = stats.loss_sum;
    }
}

static void load(struct net *net, const struct state_dict *weights)
{
    struct err err;

    if (!net_load(net, weights, false, NULL, &err))
        fail_msg("%s", err.message);
}

static void test_runs(void **state)
{
    struct net *net = open_net(false, 5), *same = open_net(false, 5);
    struct net *other = open_net(false, 6), *none = open_net(true, 5);
    double first[2], again[2];
    struct state_dict *weights;
    struct err err;

    (void)state;
    assert_true(net_save(net, &weights, &err));
    train(net, first);
    train(same, again); /* the same seed: the same weights and draws */
    assert_memory_equal(first, again, sizeof first);
    load(net, weights); /* counts steps anew */
    train(net, again);
    assert_memory_equal(first, again, sizeof first);
    load(other, weights); /* other draws over the same weights */
    train(other, again);
    assert_true(first[0] != again[0]);
    load(none, weights);
    train(none, again);
    assert_true(first[0] != again[0]);
    state_dict_free(weights);
    net_free(net);
    net_free(same);
    net_free(other);
    net_free(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shares), cmocka_unit_test(test_runs)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
