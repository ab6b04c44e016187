/* steps.c - the first steps of a training, from the start of the process: when the first one is done, and what the
 * weights are after the last.
 *
 *   steps BEGIN MODEL SIZE BATCH fp32|bf16 STEPS [deterministic]
 *
 * BEGIN: when the process was started, in seconds since 1970 ($EPOCHREALTIME). Prints one line of JSON: seconds from
 * then until main, until the net is open and until the first step is done, a hash of all weights, and what the backend
 * says of its libraries. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/backend.h"
#include "engine/net.h"

const struct backend cpu_backend = {.name = "cpu"};

enum { CLASSES = 37 };

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void fail(const char *what)
{
    fprintf(stderr, "steps: %s\n", what);
    exit(1);
}

/* FNV-1a over every parameter and buffer. */
static unsigned long long hash_weights(struct net *net)
{
    unsigned long long hash = 0xCBF29CE484222325u;
    struct state_dict *dict;
    struct err err;

    if (!net_save(net, &dict, &err))
        fail(err.message);
    for (size_t i = 0; i < state_dict_count(dict); i++) {
        const struct named_tensor *t = state_dict_at(dict, i);
        size_t bytes = (size_t)named_tensor_elements(t) * dtype_size(t->dtype);

        for (size_t k = 0; k < bytes; k++)
            hash = (hash ^ ((const unsigned char *)t->data)[k]) * 0x100000001B3u;
    }
    state_dict_free(dict);
    return hash;
}

/* Other pictures in each step, so that a step done twice or not at all shows. */
static void fill(uint8_t *images, size_t bytes, int32_t *labels, int batch, int step)
{
    unsigned state = (unsigned)step * 2654435761u + 1;

    for (size_t i = 0; i < bytes; i++) {
        state = state * 1664525u + 1013904223u;
        images[i] = (uint8_t)(state >> 24);
    }
    for (int i = 0; i < batch; i++)
        labels[i] = (i * 7 + step) % CLASSES;
}

int main(int argc, char **argv)
{
    struct net_config config = {
        .backend = "cuda", .mode = NET_TRAIN, .learning_rate = 1e-3, .num_classes = CLASSES, .seed = 7};
    double started = now(), begin, opened, first = 0;
    struct net_stats stats;
    struct net *net;
    struct err err;

    if (argc < 7)
        fail("usage: steps BEGIN MODEL SIZE BATCH fp32|bf16 STEPS [deterministic]");
    begin = strtod(argv[1], NULL);
    config.model = argv[2];
    config.image_size = atoi(argv[3]);
    config.batch_size = atoi(argv[4]);
    config.precision = strcmp(argv[5], "bf16") == 0 ? DTYPE_BF16 : DTYPE_F32;
    config.deterministic = argc > 7 && strcmp(argv[7], "deterministic") == 0;

    size_t bytes = (size_t)config.batch_size * (size_t)config.image_size * (size_t)config.image_size * 3;
    uint8_t *images = malloc(bytes);
    int32_t *labels = calloc((size_t)config.batch_size, sizeof *labels);

    if (!images || !labels)
        fail("no memory");
    fill(images, bytes, labels, config.batch_size, 0);
    if (!net_open(&config, &net, &err))
        fail(err.message);
    opened = now();
    for (int i = 0; i < atoi(argv[6]); i++) {
        if (!net_train(net, images, labels, config.batch_size, &err) || !net_stats(net, &stats, &err))
            fail(err.message);
        if (i == 0)
            first = now();
        fill(images, bytes, labels, config.batch_size, i + 1);
    }
    printf(
        "{\"model\": \"%s\", \"size\": %d, \"batch\": %d, \"precision\": \"%s\", \"main_s\": %.3f, \"open_s\": %.3f, "
        "\"first_step_s\": %.3f, \"loss\": %.6f, \"weights\": \"%016llx\", \"libraries\": \"%s\"}\n",
        config.model, config.image_size, config.batch_size, argv[5], started - begin, opened - begin, first - begin,
        stats.loss_sum, hash_weights(net), net_backend_version("cuda"));
    net_free(net);
    free(images);
    free(labels);
    return 0;
}
