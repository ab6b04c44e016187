/* test_net_golden.c - networks against torchvision: logits, training losses, every parameter's gradient, running
 * statistics. net_<model>.txt come from make_net_golden.py; weights and images from the formulas that both have. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/net_internal.h"

/* What is held against the golden values; tests/gpu/golden.c holds others. */
static enum dtype precision = DTYPE_F32;
static double logits_limit = 1e-4, training_limit = 1e-3, worst_limit = 1e-3;

enum { CLASSES = 5, SIZE = 64, LOGITS_BATCH = 2, TRAIN_BATCH = 4, STEPS = 10, MAX_BATCH = 4 };

static const uint64_t FNV_BASIS = 0xCBF29CE484222325u;

/* FNV-1a, going on from a hash. */
static uint64_t fnv(uint64_t hash, const char *text)
{
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 0x100000001B3u;
    return hash;
}

/* Number i of a sequence, in [-1, 1): splitmix64 of seed + i. */
static double number(uint64_t seed, uint64_t i)
{
    uint64_t z = seed + i * 0x9E3779B97F4A7C15u;

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return (double)(z >> 40) * 0x1p-23 - 1;
}

static double noise(const char *name, uint64_t i)
{
    return number(fnv(FNV_BASIS, name), i);
}

static bool ends_with(const char *text, const char *end)
{
    size_t a = strlen(text), b = strlen(end);

    return a >= b && strcmp(text + a - b, end) == 0;
}

/* Weights are offset + scale * number. */
static void fill(const struct named_tensor *t, float *data)
{
    bool is_scale = t->rank < 2 && ends_with(t->name, ".weight"), is_var = ends_with(t->name, "running_var");
    double factor = is_scale && (strstr(t->name, ".bn2.") || strstr(t->name, ".bn3.")) ? 0.25 : 1;
    double offset = is_scale || is_var ? factor : 0;
    double scale = t->rank == 4   ? sqrt(6.0 / (double)(t->shape[1] * t->shape[2] * t->shape[3]))
                   : t->rank == 2 ? 1 / sqrt((double)t->shape[1])
                   : is_scale     ? 0.25 * factor
                                  : 0.5;
    int64_t count = named_tensor_elements(t);
    uint64_t seed = fnv(FNV_BASIS, t->name);

#pragma omp parallel for
    for (int64_t i = 0; i < count; i++)
        data[i] = (float)(offset + scale * number(seed, (uint64_t)i));
}

/* An 8 by 8 mosaic of random colours with finer noise. */
static const uint8_t *images(void)
{
    static uint8_t bytes[MAX_BATCH][SIZE][SIZE][3];
    uint64_t k = 0;

    for (int i = 0; i < MAX_BATCH; i++)
        for (int y = 0; y < SIZE; y++)
            for (int x = 0; x < SIZE; x++)
                for (int c = 0; c < 3; c++) {
                    int tile = ((i * 8 + y * 8 / SIZE) * 8 + x * 8 / SIZE) * 3 + c;
                    int mosaic = (int)((noise("mosaic", (uint64_t)tile) + 1) * 96);
                    int grain = (int)((noise("grain", k++) + 1) * 32);

                    bytes[i][y][x][c] = (uint8_t)(mosaic + grain);
                }
    return &bytes[0][0][0][0];
}

static struct net *open_net(const char *model, const char *backend, enum net_mode mode, bool torchvision)
{
    struct net_config config = {.model = model,
                                .num_classes = CLASSES,
                                .image_size = SIZE,
                                .batch_size = mode == NET_TRAIN ? TRAIN_BATCH : LOGITS_BATCH,
                                .mode = mode,
                                .precision = strcmp(backend, "ref") == 0 ? DTYPE_F32 : precision,
                                .backend = backend,
                                .threads = 2,
                                .torchvision_head = torchvision,
                                .no_dropout = true,
                                .load_follows = true,
                                .learning_rate = 1e-4};
    struct net *net;
    struct err err;

    if (!net_open(&config, &net, &err))
        fail_msg("%s on %s: %s", model, backend, err.message);
    return net;
}

/* The model's state_dict, values not set. From the reference: not every inference net can be saved. */
static struct state_dict *names_of(const char *model, bool torchvision)
{
    struct net *net = open_net(model, "ref", NET_INFER, torchvision);
    struct state_dict *dict;
    struct err err;

    assert_true(net_save(net, &dict, &err));
    net_free(net);
    return dict;
}

static void set_weights(struct net *net, const char *model, bool torchvision)
{
    struct state_dict *dict = names_of(model, torchvision);
    struct err err;

    for (size_t k = 0; k < state_dict_count(dict); k++) {
        const struct named_tensor *t = state_dict_at(dict, k);

        if (t->dtype == DTYPE_F32)
            fill(t, (float *)(uintptr_t)t->data);
    }
    if (!net_load(net, dict, false, NULL, &err))
        fail_msg("%s", err.message);
    state_dict_free(dict);
}

/* The golden file's text, to be freed. */
static char *read_golden(const char *model)
{
    char path[128], *text = calloc(1, 65536);
    FILE *f;

    snprintf(path, sizeof path, "tests/golden/net_%s.txt", model);
    f = fopen(path, "r");
    if (!f)
        fail_msg("cannot open %s (run from the repository's root)", path);
    assert_true(fread(text, 1, 65535, f) > 0);
    fclose(f);
    return text;
}

/* The numbers after `key` at a line's start; fails when there are fewer. */
static void golden(const char *text, const char *key, double *values, int count)
{
    const char *p = strstr(text, key);

    if (!p || (p != text && p[-1] != '\n'))
        fail_msg("no line %s", key);
    p += strlen(key);
    for (int i = 0; i < count; i++) {
        char *end;

        values[i] = strtod(p, &end);
        assert_true(end != p);
        p = end;
    }
}

/* Names and shapes of the state_dict, in order: how many, and the halves of a hash. */
static void check_keys(const char *model, bool torchvision, const char *text)
{
    struct state_dict *dict = names_of(model, torchvision);
    uint64_t hash = FNV_BASIS;
    double want[3];

    golden(text, torchvision ? "torchvision keys" : "keys", want, 3);
    for (size_t k = 0; k < state_dict_count(dict); k++) {
        const struct named_tensor *t = state_dict_at(dict, k);
        char line[256];
        int length = snprintf(line, sizeof line, "%s ", t->name);

        for (int i = 0; i < t->rank; i++)
            length += snprintf(line + length, sizeof line - (size_t)length, "%s%d", i ? "x" : "", (int)t->shape[i]);
        snprintf(line + length, sizeof line - (size_t)length, "\n");
        hash = fnv(hash, line);
    }
    assert_int_equal(state_dict_count(dict), (size_t)want[0]);
    assert_true(hash == ((uint64_t)want[1] << 32 | (uint64_t)want[2]));
    state_dict_free(dict);
}

/* torchvision: with its own last layers instead of the service's. */
static void check_logits(const char *model, const char *backend, bool torchvision)
{
    struct net *net = open_net(model, backend, NET_INFER, torchvision);
    char *text = read_golden(model);
    double want[LOGITS_BATCH * CLASSES], most = 0, off = 0;
    float logits[LOGITS_BATCH * CLASSES], again[CLASSES];
    struct err err;

    check_keys(model, torchvision, text);
    golden(text, torchvision ? "torchvision logits" : "logits", want, LOGITS_BATCH * CLASSES);
    set_weights(net, model, torchvision);
    assert_true(net_logits(net, images(), LOGITS_BATCH, logits, &err));
    for (int i = 0; i < LOGITS_BATCH * CLASSES; i++) {
        most = fmax(most, fabs(want[i]));
        off = fmax(off, fabs(want[i] - (double)logits[i]));
    }
    printf("  %s on %s: logits off by %.1e of the largest\n", model, backend, off / most);
    assert_true(off / most < logits_limit);

    /* a smaller batch is another plan over the same weights */
    assert_true(net_logits(net, images(), 1, again, &err));
    for (int i = 0; i < CLASSES; i++)
        assert_true(fabs((double)again[i] - (double)logits[i]) < logits_limit * most);
    free(text);
    net_free(net);
}

/* Norm of a parameter's gradient, or of a tensor of the state_dict. */
static double norm(const float *values, int64_t count)
{
    double sum = 0;

    for (int64_t i = 0; i < count; i++)
        sum += (double)values[i] * (double)values[i];
    return sqrt(sum);
}

static void check_gradients(struct net *net, const char *text)
{
    struct state_dict *dict;
    char worst_name[128] = "";
    double worst = 0, square = 0, whole = 0;
    struct err err;
    int count = 0;

    assert_true(net_save(net, &dict, &err));
    for (size_t k = 0; k < state_dict_count(dict); k++) {
        const struct named_tensor *t = state_dict_at(dict, k);
        float *gradient = calloc((size_t)named_tensor_elements(t), sizeof *gradient);
        char key[160];
        double want, have, off;

        if (!strstr(t->name, "running_") && !strstr(t->name, "num_batches") && !strstr(t->name, ".relative_")) {
            snprintf(key, sizeof key, "norm %s ", t->name);
            golden(text, key, &want, 1);
            assert_true(net_gradient(net, TRAIN_BATCH, t->name, gradient, &err));
            have = norm(gradient, named_tensor_elements(t));
            off = fabs(have - want) /
                  (want + 1e-3); /* what cancels out (a shift before another batch norm) leaves rounding */
            square += (have - want) * (have - want);
            whole += want * want;
            if (!(off < worst)) {
                worst = off;
                snprintf(worst_name, sizeof worst_name, "%s", t->name);
            }
            count++;
        }
        free(gradient);
    }
    printf("  gradient norms of %d parameters off by %.1e at most (%s), by %.1e together\n", count, worst, worst_name,
           sqrt(square / whole));
    if (!(worst < worst_limit))
        fail_msg("gradient of %s: norm off by %g", worst_name, worst);
    if (!(sqrt(square / whole) < training_limit))
        fail_msg("norms of gradients are off by %g", sqrt(square / whole));
    state_dict_free(dict);
}

/* Every line "buffer NAME norm". */
static void check_buffers(struct net *net, const char *text)
{
    struct state_dict *dict;
    struct err err;
    int count = 0;

    assert_true(net_save(net, &dict, &err));
    for (const char *line = strstr(text, "\nbuffer "); line; line = strstr(line + 1, "\nbuffer ")) {
        const struct named_tensor *t;
        char name[128];
        float *values;
        double want;

        assert_int_equal(sscanf(line, " buffer %127s %lf", name, &want), 2);
        t = state_dict_find(dict, name);
        assert_non_null(t);
        values = calloc((size_t)named_tensor_elements(t), sizeof *values);
        named_tensor_to_f32(t, values);
        if (!(fabs(norm(values, named_tensor_elements(t)) / want - 1) < training_limit))
            fail_msg("%s: norm %g, torch has %g", name, norm(values, named_tensor_elements(t)), want);
        free(values);
        count++;
    }
    assert_true(count > 3 || !strstr(text, "running_"));
    state_dict_free(dict);
}

static void check_training(const char *model, const char *backend, int steps)
{
    static const int32_t labels[TRAIN_BATCH] = {0, 2, 4, 1};
    struct net *net = open_net(model, backend, NET_TRAIN, false);
    char *text = read_golden(model);
    double want[STEPS], worst = 0;
    struct err err;

    golden(text, "losses", want, STEPS);
    assert_true(net_keep_gradients(net, &err));
    set_weights(net, model, false);
    for (int step = 0; step < steps; step++) {
        struct net_stats stats;
        double off;

        if (!net_train(net, images(), labels, TRAIN_BATCH, &err) || !net_stats(net, &stats, &err))
            fail_msg("%s", err.message);
        off = fabs(stats.loss_sum / want[step] - 1);
        if (!(off < training_limit))
            fail_msg("%s on %s: loss of step %d is %g, torch has %g", model, backend, step, stats.loss_sum, want[step]);
        worst = fmax(worst, off);
        assert_int_equal(stats.images, TRAIN_BATCH);
        if (step == 0)
            check_gradients(net, text);
    }
    printf("  %s on %s: losses of %d steps off by %.1e at most\n", model, backend, steps, worst);
    if (steps == STEPS)
        check_buffers(net, text);
    free(text);
    net_free(net);
}

static void test_logits_cpu(void **state)
{
    (void)state;
    for (const char *const *model = net_models(); *model; model++)
        check_logits(*model, "cpu", false);
}

static void test_torchvision_head(void **state)
{
    (void)state;
    check_logits("mobilenet_v3_large", "cpu", true);
    check_logits("mobilenet_v3_small", "cpu", true);
}

/* One image of another size, from the first bytes of images(). */
static void check_other_size(const char *model, const char *backend, int size)
{
    struct net_config config = {.model = model,
                                .num_classes = CLASSES,
                                .image_size = size,
                                .batch_size = 1,
                                .mode = NET_INFER,
                                .precision = precision,
                                .backend = backend,
                                .threads = 2};
    char *text = read_golden(model);
    double want[CLASSES], most = 0, off = 0;
    float logits[CLASSES];
    struct net *net;
    struct err err;

    golden(text, "other", want, CLASSES);
    assert_true(net_open(&config, &net, &err));
    set_weights(net, model, false);
    assert_true(net_logits(net, images(), 1, logits, &err));
    for (int i = 0; i < CLASSES; i++) {
        most = fmax(most, fabs(want[i]));
        off = fmax(off, fabs(want[i] - (double)logits[i]));
    }
    printf("  %s on %s at %d: logits off by %.1e of the largest\n", model, backend, size, off / most);
    assert_true(off / most < logits_limit);
    free(text);
    net_free(net);
}

static void test_other_size(void **state)
{
    (void)state;
    check_other_size("swin_v2_t", "cpu", 84);
    check_other_size("swin_v2_t", "ref", 84);
}

static void test_logits_ref(void **state)
{
    (void)state;
    check_logits("resnet18", "ref", false);
    check_logits("resnet50", "ref", false);
    check_logits("mobilenet_v3_small", "ref", false);
    check_logits("swin_v2_t", "ref", false);
}

static void test_training_cpu(void **state)
{
    (void)state;
    check_training("resnet18", "cpu", STEPS);
    check_training("resnet50", "cpu", STEPS);
    check_training("vit_b_32", "cpu", STEPS);
    check_training("mobilenet_v3_large", "cpu", STEPS);
    check_training("mobilenet_v3_small", "cpu", STEPS);
    check_training("swin_v2_t", "cpu", STEPS);
}

static void test_training_ref(void **state)
{
    (void)state;
    check_training("resnet18", "ref", STEPS);
    check_training("resnet50", "ref", 2);
    check_training("mobilenet_v3_small", "ref", STEPS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_cpu), cmocka_unit_test(test_torchvision_head), cmocka_unit_test(test_logits_ref),
        cmocka_unit_test(test_other_size), cmocka_unit_test(test_training_cpu),     cmocka_unit_test(test_training_ref),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
