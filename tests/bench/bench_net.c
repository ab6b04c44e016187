/* bench_net.c - times a net's steps on request, so that a script can alternate it with another program.
 *
 *   bench_net train|infer MODEL BATCH THREADS [BACKEND [SIZE]]
 *
 * Prints one JSON line with the seconds to open and to do the first step, and what the plan says of memory. Then, for
 * each number n read from standard input, does n steps and prints a JSON line with the milliseconds of each and the
 * process's peak resident memory so far. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/net.h"

struct bench {
    struct net *net;
    bool train;
    int batch;
    uint8_t *images;
    int32_t *labels;
    float *logits;
};

static double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* VmHWM of this process in bytes; 0 where it is not known. */
static long long peak_memory(void)
{
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    long long kib = 0;

    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %lld kB", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib * 1024;
}

static bool step(struct bench *bench, struct err *err)
{
    struct net_stats stats;

    if (!bench->train)
        return net_logits(bench->net, bench->images, bench->batch, bench->logits, err);
    return net_train(bench->net, bench->images, bench->labels, bench->batch, err) &&
           net_stats(bench->net, &stats, err); /* which waits for the device */
}

static bool open_bench(struct bench *bench, const struct net_config *config, struct err *err)
{
    size_t bytes = (size_t)config->batch_size * (size_t)config->image_size * (size_t)config->image_size * 3;

    bench->batch = config->batch_size;
    bench->images = malloc(bytes);
    bench->labels = malloc((size_t)bench->batch * sizeof *bench->labels);
    bench->logits = malloc((size_t)bench->batch * (size_t)config->num_classes * sizeof *bench->logits);
    if (!bench->images || !bench->labels || !bench->logits)
        return err_set(err, ERR_MEMORY, "no memory");
    srand(1);
    for (size_t i = 0; i < bytes; i++)
        bench->images[i] = (uint8_t)(rand() >> 8);
    for (int i = 0; i < bench->batch; i++)
        bench->labels[i] = i % config->num_classes;
    return net_open(config, &bench->net, err);
}

static bool serve(struct bench *bench, struct err *err)
{
    int steps;

    while (scanf("%d", &steps) == 1) {
        printf("{\"ms\": [");
        for (int i = 0; i < steps; i++) {
            double begin = seconds_now();

            if (!step(bench, err))
                return false;
            printf("%s%.4f", i ? ", " : "", 1e3 * (seconds_now() - begin));
        }
        printf("], \"peak\": %lld}\n", peak_memory());
        fflush(stdout);
    }
    return true;
}

int main(int argc, char **argv)
{
    struct net_config config = {.num_classes = 37, .precision = DTYPE_F32, .learning_rate = 1e-4, .backend = "cpu"};
    struct bench bench = {0};
    struct err err = {0};
    double begin = seconds_now(), opened;
    bool ok;

    if (argc < 5) {
        fprintf(stderr, "usage: %s train|infer MODEL BATCH THREADS [BACKEND [SIZE]]\n", argv[0]);
        return 2;
    }
    bench.train = strcmp(argv[1], "train") == 0;
    config.mode = bench.train ? NET_TRAIN : NET_INFER;
    config.model = argv[2];
    config.batch_size = atoi(argv[3]);
    config.threads = atoi(argv[4]);
    config.backend = argc > 5 ? argv[5] : "cpu";
    config.image_size = argc > 6 ? atoi(argv[6]) : 224;
    ok = open_bench(&bench, &config, &err);
    opened = seconds_now();
    ok = ok && step(&bench, &err);
    if (ok) {
        const struct net_memory *memory = net_memory(bench.net);

        printf("{\"open\": %.4f, \"first\": %.4f, \"plan\": %llu, \"workspace\": %llu, \"activations\": %llu}\n",
               opened - begin, seconds_now() - opened, (unsigned long long)memory->total,
               (unsigned long long)memory->workspace, (unsigned long long)memory->activations);
        fflush(stdout);
        ok = serve(&bench, &err);
    }
    if (!ok)
        fprintf(stderr, "bench_net: %s\n", err.message);
    net_free(bench.net);
    free(bench.images);
    free(bench.labels);
    free(bench.logits);
    return ok ? 0 : 1;
}
