/* test_net.c - the facade net.h: weights in and out, batches of every size, forecasts, reproducibility. Small images,
 * so that it is quick; what the networks compute is held against torchvision in tests/golden. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bf16.h"
#include "engine/net_internal.h"

enum { SIZE = 32, BATCH = 4, CLASSES = 3 };

static const int32_t labels[BATCH] = {0, 1, 2, 1};

static struct net_config config_for(enum net_mode mode, const char *backend)
{
    return (struct net_config){.model = "resnet18",
                               .num_classes = CLASSES,
                               .image_size = SIZE,
                               .batch_size = BATCH,
                               .mode = mode,
                               .precision = DTYPE_F32,
                               .backend = backend,
                               .threads = 2,
                               .seed = 5,
                               .learning_rate = 1e-3};
}

static struct net *open_net(const struct net_config *config)
{
    struct net *net;
    struct err err;

    if (!net_open(config, &net, &err))
        fail_msg("%s", err.message);
    return net;
}

static const uint8_t *images(void)
{
    static uint8_t bytes[BATCH * SIZE * SIZE * 3];

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * i / 7 + i / 91);
    return bytes;
}

static void train(struct net *net, int n)
{
    struct err err;

    if (!net_train(net, images(), labels, n, &err))
        fail_msg("%s", err.message);
}

static void logits(struct net *net, int n, float *out)
{
    struct err err;

    if (!net_logits(net, images(), n, out, &err))
        fail_msg("%s", err.message);
}

static double farthest(const float *a, const float *b, int count)
{
    double most = 0;

    for (int i = 0; i < count; i++)
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
    return most;
}

static void test_models(void **state)
{
    static const char *const names[] = {"resnet18", "resnet34", "resnet50", "resnet101", "resnet152"};

    (void)state;
    for (int i = 0; i < 5; i++)
        assert_string_equal(net_models()[i], names[i]);
    assert_string_equal(net_class_name("resnet50"), "ResNet");
    assert_null(net_class_name("resnet19"));
    assert_non_null(strstr(net_version(), "rfuav "));
}

static void refused(struct net_config config, const char *word)
{
    struct err err;

    assert_false(net_check(&config, &err));
    if (!strstr(err.message, word))
        fail_msg("message \"%s\" does not name \"%s\"", err.message, word);
}

static void test_check_names_the_fault(void **state)
{
    struct net_config good = config_for(NET_TRAIN, "cpu"), bad;

    (void)state;
    assert_true(net_check(&good, NULL));
    bad = good, bad.model = "alexnet", refused(bad, "alexnet");
    bad = good, bad.backend = "tpu", refused(bad, "tpu");
    bad = good, bad.num_classes = 0, refused(bad, "num_classes");
    bad = good, bad.batch_size = 0, refused(bad, "batch_size");
    bad = good, bad.image_size = 0, refused(bad, "image_size");
    bad = good, bad.image_size = 1 << 20, refused(bad, "image_size");
    bad = good, bad.model = "vit_b_16", bad.image_size = 230, refused(bad, "multiples of 16: 224 or 240");
    bad = good, bad.model = "vit_l_32", bad.image_size = 16, refused(bad, "32 to 8192");
    bad = good, bad.precision = DTYPE_F16, refused(bad, "F16");
    bad = good, bad.learning_rate = NAN, refused(bad, "learning_rate");
}

static void test_cuda_can_be_forecast_but_not_opened(void **state)
{
    struct net_config config = config_for(NET_TRAIN, "cuda");
    struct net_memory memory;
    struct net *net;
    struct err err;

    (void)state;
    assert_true(net_plan(&config, &memory, &err));
    assert_true(memory.total > memory.weights + memory.optimizer + memory.libraries);
    assert_false(net_open(&config, &net, &err));
}

/* What was forecast is what is planned once the kernels have chosen. */
static void test_forecast(void **state)
{
    static const char *const backends[] = {"ref", "cpu", "cpu"};

    (void)state;
    for (int i = 0; i < 6; i++) {
        struct net_config config = config_for(i % 2 ? NET_TRAIN : NET_INFER, backends[i / 2]);
        struct net_memory forecast;
        struct net *net;
        double ratio;

        config.model = i < 4 ? "resnet18" : "vit_b_32";
        config.image_size = i < 4 ? 224 : 384; /* so large that training takes more than evaluation, not planned yet */
        net = open_net(&config);
        assert_true(net_plan(&config, &forecast, NULL));
        ratio = (double)net_memory(net)->total / (double)forecast.total;
        if (!(ratio > 0.95 && ratio < 1.02))
            fail_msg("%s on %s: %.4f of the forecast", config.model, config.backend, ratio);
        assert_int_equal(forecast.total, forecast.weights + forecast.gradients + forecast.optimizer +
                                             forecast.activations + forecast.workspace + forecast.inputs +
                                             forecast.libraries);
        net_free(net);
    }
}

static void test_largest_batch(void **state)
{
    struct net_config config = config_for(NET_TRAIN, "cuda");
    struct net_memory memory;
    int n;

    (void)state;
    config.image_size = 224;
    n = net_largest_batch(&config, 8ull << 30, 0);
    assert_true(n > 8);
    config.batch_size = n;
    assert_true(net_plan(&config, &memory, NULL) && memory.total <= 8ull << 30);
    config.batch_size = n + 1;
    assert_true(net_plan(&config, &memory, NULL) && memory.total > 8ull << 30);
    n = net_largest_batch(&config, 8ull << 30, 10 << 20);
    config.batch_size = n;
    assert_true(net_plan(&config, &memory, NULL) && memory.total + n * (10ull << 20) <= 8ull << 30);
    config.batch_size = n + 1;
    assert_true(net_plan(&config, &memory, NULL) && memory.total + (n + 1) * (10ull << 20) > 8ull << 30);
    assert_int_equal(net_largest_batch(&config, 1000, 0), 0);
}

static void test_same_seed_same_bits(void **state)
{
    struct net_config config = config_for(NET_TRAIN, "cpu");
    float first[BATCH * CLASSES], second[BATCH * CLASSES];

    (void)state;
    for (int run = 0; run < 3; run++) {
        struct net *net;

        config.seed = run < 2 ? 5 : 6;
        net = open_net(&config);
        train(net, BATCH);
        train(net, BATCH);
        logits(net, BATCH, run ? second : first);
        net_free(net);
        if (run == 1)
            assert_memory_equal(first, second, sizeof first);
        if (run == 2)
            assert_true(farthest(first, second, BATCH * CLASSES) > 1e-3);
    }
}

/* Evaluation sees the weights as they are: folded anew after each step, and only then. */
static void test_evaluation_between_steps(void **state)
{
    struct net_config config = config_for(NET_TRAIN, "cpu"), other_config = config_for(NET_INFER, "ref");
    struct net *net = open_net(&config), *other = open_net(&other_config);
    float before[BATCH * CLASSES], after[BATCH * CLASSES], again[BATCH * CLASSES], there[BATCH * CLASSES];
    struct state_dict *dict;
    struct err err;

    (void)state;
    train(net, BATCH);
    logits(net, BATCH, before);
    train(net, BATCH);
    logits(net, BATCH, after);
    assert_true(farthest(before, after, BATCH * CLASSES) > 1e-3);
    logits(net, 2, again); /* another plan, the same folded weights */
    assert_true(farthest(after, again, 2 * CLASSES) < 1e-4);
    logits(net, BATCH, again);
    assert_memory_equal(after, again, sizeof after);

    assert_true(net_save(net, &dict, &err)); /* and another net, on another backend, with these weights agrees */
    assert_true(net_load(other, dict, false, NULL, &err));
    logits(other, BATCH, there);
    assert_true(farthest(after, there, BATCH * CLASSES) < 1e-3);
    state_dict_free(dict);
    net_free(other);
    net_free(net);
}

/* More sizes than plans are kept, one image alone (one value a channel in the last stage) among them. */
static void test_every_batch_size(void **state)
{
    static const int sizes[] = {4, 1, 3, 2, 4, 1};
    struct net_config config = config_for(NET_TRAIN, "cpu");
    struct net *net = open_net(&config);
    float out[BATCH * CLASSES];
    struct net_stats stats;
    struct err err;

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        train(net, sizes[i]);
        logits(net, sizes[i], out);
        for (int k = 0; k < sizes[i] * CLASSES; k++)
            assert_true(isfinite(out[k]));
    }
    assert_true(net_stats(net, &stats, &err));
    assert_int_equal(stats.batches, 6);
    assert_int_equal(stats.images, 15);
    assert_true(stats.correct >= 0 && stats.correct <= 15 && isfinite(stats.loss_sum));
    assert_true(net_stats(net, &stats, &err));
    assert_int_equal(stats.batches, 0);
    net_free(net);
}

/* Images written to the net's own buffer give what images anywhere else give. */
static void test_input_buffer(void **state)
{
    struct net_config config = config_for(NET_INFER, "cpu");
    struct net *net = open_net(&config);
    float expected[BATCH * CLASSES], found[BATCH * CLASSES];
    struct err err;

    (void)state;
    for (int n = BATCH; n >= 1; n--) {
        uint8_t *buffer;

        logits(net, n, expected);
        assert_true(net_input_buffer(net, &buffer, &err));
        memcpy(buffer, images(), (size_t)n * SIZE * SIZE * 3);
        assert_true(net_logits(net, buffer, n, found, &err));
        assert_memory_equal(found, expected, (size_t)n * CLASSES * sizeof *found);
    }
    net_free(net);
}

/* An inference net where memory is scarce keeps only what it reads in each run: it computes the same, drawn or loaded,
 * in plans of every size, in the memory that was forecast. Swin has tables in its prologue. */
static void check_folded_once(const char *model)
{
    struct net_config config = config_for(NET_INFER, "ref");
    struct backend scarce = *backend_find("ref");
    float expected[BATCH * CLASSES], found[BATCH * CLASSES];
    struct net *plain, *net;
    struct state_dict *dict;
    struct err err;

    scarce.recompute_bytes = 1;
    config.model = model;
    config.image_size = 32;
    plain = open_net(&config);
    assert_true(net_open_on(&config, &scarce, &net, &err));
    assert_true(net_memory(net)->total < net_memory(plain)->total);
    for (int n = BATCH; n > BATCH - 3; n--) {
        logits(plain, n, expected);
        logits(net, n, found);
        assert_memory_equal(found, expected, (size_t)n * CLASSES * sizeof *found);
    }
    net_free(plain);

    config.seed = 6;
    plain = open_net(&config);
    logits(plain, BATCH, expected);
    assert_true(net_save(plain, &dict, &err));
    assert_true(net_load(net, dict, false, NULL, &err));
    logits(net, BATCH, found);
    assert_memory_equal(found, expected, sizeof found);
    net_free(net);

    config.load_follows = true;
    assert_true(net_open_on(&config, &scarce, &net, &err));
    assert_false(net_logits(net, images(), BATCH, found, &err));
    assert_true(net_load(net, dict, false, NULL, &err));
    logits(net, 1, found); /* another plan comes before the one that was there when the weights came */
    logits(net, BATCH, found);
    assert_memory_equal(found, expected, sizeof found);
    state_dict_free(dict);
    assert_false(net_save(net, &dict, &err));
    net_free(net);
    net_free(plain);
}

static void test_folded_once(void **state)
{
    (void)state;
    check_folded_once("resnet18");
    check_folded_once("mobilenet_v3_small");
    check_folded_once("swin_v2_t");
}

/* In half precision weights of linear layers are halves alone; batch norms are folded away. */
static void test_half_weights_in_forecast(void **state)
{
    static const char *const models[] = {"resnet50", "vit_b_16", "swin_v2_t", "mobilenet_v3_large"};

    (void)state;
    for (int i = 0; i < 4; i++) {
        struct net_config config = config_for(NET_INFER, "cuda");
        struct net_memory single, half;
        struct net_info info;

        config.model = models[i];
        config.image_size = 224;
        assert_true(net_describe(&config, &info, NULL) && net_plan(&config, &single, NULL));
        config.precision = DTYPE_BF16;
        assert_true(net_plan(&config, &half, NULL));
        assert_true(single.weights < (uint64_t)info.parameters * 4 + (2 << 20));
        assert_true(half.weights < (uint64_t)info.parameters * 2 + (2 << 20));
    }
}

static void test_rounding_to_bf16(void **state)
{
    static const struct {
        float value;
        uint16_t half;
    } cases[] = {{0, 0},
                 {-0.0f, 0x8000},
                 {1, 0x3F80},
                 {-2.5f, 0xC020},
                 {0x1.01p0f, 0x3F80},
                 {0x1.03p0f, 0x3F82},
                 {0x1.010002p0f, 0x3F81},
                 {0x1.FFFFFEp0f, 0x4000},
                 {INFINITY, 0x7F80},
                 {FLT_MAX, 0x7F80}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(bf16_of_float(cases[i].value), cases[i].half);
    assert_true(isnan(bf16_to_float(bf16_of_float(NAN))));
    for (uint32_t half = 0; half <= UINT16_MAX; half++)
        if (!isnan(bf16_to_float((uint16_t)half)))
            assert_int_equal(bf16_of_float(bf16_to_float((uint16_t)half)), half);
}

static void test_bad_calls_are_errors(void **state)
{
    struct net_config config = config_for(NET_TRAIN, "cpu");
    struct net *net = open_net(&config);
    float out[BATCH * CLASSES];
    struct err err;

    (void)state;
    assert_false(net_train(net, images(), (const int32_t[]){0, 3}, 2, &err));
    assert_non_null(strstr(err.message, "label 3"));
    assert_false(net_train(net, images(), labels, BATCH + 1, &err));
    assert_false(net_logits(net, images(), 0, out, &err));
    train(net, BATCH);
    net_free(net);
}

/* The weights of a fresh net with `classes`, without the tensor `without`, with an extra one named `with`. */
static struct state_dict *weights(int classes, const char *without, const char *with)
{
    struct net_config config = config_for(NET_INFER, "ref");
    struct state_dict *all, *ret = state_dict_new();
    struct net *net;
    struct err err;

    config.num_classes = classes;
    net = open_net(&config);
    assert_true(net_save(net, &all, &err));
    for (size_t i = 0; i < state_dict_count(all); i++) {
        const struct named_tensor *t = state_dict_at(all, i);
        size_t bytes = (size_t)named_tensor_elements(t) * dtype_size(t->dtype);

        if (!without || strcmp(t->name, without) != 0)
            memcpy(state_dict_add(ret, t->name, t->dtype, t->rank, t->shape, &err), t->data, bytes);
    }
    if (with)
        state_dict_add(ret, with, DTYPE_F32, 0, NULL, &err);
    state_dict_free(all);
    net_free(net);
    return ret;
}

static bool load(struct state_dict *dict, bool skip_head, bool *skipped, struct err *err)
{
    struct net_config config = config_for(NET_TRAIN, "cpu");
    struct net *net = open_net(&config);
    bool ok = net_load(net, dict, skip_head, skipped, err);

    state_dict_free(dict);
    net_free(net);
    return ok;
}

static void test_loading_is_strict(void **state)
{
    bool skipped = true;
    struct err err;

    (void)state;
    assert_true(load(weights(CLASSES, NULL, NULL), false, &skipped, &err));
    assert_false(skipped);
    assert_false(load(weights(CLASSES, "layer2.0.bn1.bias", NULL), false, &skipped, &err));
    assert_non_null(strstr(err.message, "layer2.0.bn1.bias"));
    assert_false(load(weights(CLASSES, NULL, "layer9.weight"), false, &skipped, &err));
    assert_non_null(strstr(err.message, "layer9.weight"));
    assert_false(load(weights(1000, NULL, NULL), false, &skipped, &err));
    assert_non_null(strstr(err.message, "fc.weight has shape 1000x512"));
    assert_true(load(weights(1000, NULL, NULL), true, &skipped, &err));
    assert_true(skipped);
    assert_true(load(weights(CLASSES, "bn1.num_batches_tracked", NULL), false, &skipped, &err)); /* as old files are */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_check_names_the_fault),
        cmocka_unit_test(test_cuda_can_be_forecast_but_not_opened),
        cmocka_unit_test(test_forecast),
        cmocka_unit_test(test_largest_batch),
        cmocka_unit_test(test_same_seed_same_bits),
        cmocka_unit_test(test_evaluation_between_steps),
        cmocka_unit_test(test_every_batch_size),
        cmocka_unit_test(test_input_buffer),
        cmocka_unit_test(test_folded_once),
        cmocka_unit_test(test_half_weights_in_forecast),
        cmocka_unit_test(test_rounding_to_bf16),
        cmocka_unit_test(test_bad_calls_are_errors),
        cmocka_unit_test(test_loading_is_strict),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
