/* epochs.c - whole epochs from a folder of pictures, as a training has them: the loader's batches into the net's steps.
 *
 *   epochs [-c] FOLDER BACKEND MODEL BATCH PRECISION EPOCHS [SIZE [THREADS]]
 *
 * BACKEND none: the loader alone. Prints a JSON line for what was opened and one for each epoch: seconds, images a
 * second. The whole data set is kept in memory, as a training does where there is room. Everything is open and warm
 * when an epoch begins; with -c the first one counts from the start of the program, and as in a training its pictures
 * are decoded while the net is opened. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "engine/jpeg.h"
#include "engine/net.h"

struct run {
    bool cold;
    double started;
    struct jpeg_decoder *engines; /* NULL: none */
    struct picture_decoder decoder;
    struct picture_cache *disk;
    struct dataset *dataset;
    struct loader *loader;
    struct net *net; /* NULL: none */
};

static bool decode_on_device(void *arg, const struct jpeg_picture *picture, uint8_t *out)
{
    return jpeg_decoder_run(arg, picture, out);
}

static bool device_ready(void *arg)
{
    return jpeg_decoder_ready(arg);
}

/* One step before the clock runs, as the peer does it: first weights are drawn, kernels loaded. */
static bool warm_up(struct run *run, int batch, struct err *err)
{
    int32_t *labels = calloc((size_t)batch, sizeof *labels);
    struct net_stats stats;
    uint8_t *images;
    bool ok = (labels || err_set(err, ERR_MEMORY, "no memory")) && net_input_buffer(run->net, &images, err);

    for (int i = 0; ok && i < 3; i++)
        ok = net_train(run->net, images, labels, batch, err);
    ok = ok && net_stats(run->net, &stats, err);
    free(labels);
    return ok;
}

/* Loads a picture, so that the decoder is opened beside the net, as in a training, unless the disk cache has it. */
static bool open_decoder(struct run *run, int size, struct err *err)
{
    uint8_t *picture = malloc(3 * (size_t)size * (size_t)size);
    enum picture_origin origin;
    bool ok = (picture || err_set(err, ERR_MEMORY, "no memory")) &&
              picture_load(run->dataset->samples[0].path, size, run->disk, run->engines ? &run->decoder : NULL, picture,
                           &origin, err);

    free(picture);
    return ok;
}

static bool open_run(struct run *run, char **argv, int argc, struct err *err)
{
    int size = argc > 7 ? atoi(argv[7]) : 224, threads = argc > 8 ? atoi(argv[8]) : 0;
    bool has_net = strcmp(argv[2], "none") != 0;
    struct loader_config loader = {.image_size = size,
                                   .batch_size = atoi(argv[4]),
                                   .threads = threads,
                                   .cache_bytes = (size_t)8 << 30,
                                   .shuffle = true,
                                   .seed = 1};
    struct net_config net = {.model = argv[3],
                             .image_size = size,
                             .batch_size = atoi(argv[4]),
                             .mode = NET_TRAIN,
                             .precision = strcmp(argv[5], "bf16") == 0 ? DTYPE_BF16 : DTYPE_F32,
                             .backend = argv[2],
                             .threads = threads,
                             .seed = 1,
                             .learning_rate = 1e-4};

    run->engines = jpeg_decoder_open(argv[2], NULL, size);
    run->decoder = (struct picture_decoder){decode_on_device, device_ready, run->engines, JPEG_THREADS};
    loader.decoder = run->engines ? &run->decoder : NULL;
    loader.disk = run->disk = picture_cache_open(size);
    if (!dataset_open(argv[1], NULL, &run->dataset, err))
        return false;
    net.num_classes = (int)run->dataset->class_count;
    if (!loader_open(run->dataset, &loader, &run->loader, err))
        return false;
    if (run->cold)
        return loader_start(run->loader, 1, err) && (!has_net || net_open(&net, &run->net, err));
    return open_decoder(run, size, err) &&
           (!has_net || (net_open(&net, &run->net, err) && warm_up(run, net.batch_size, err)));
}

static bool epoch(struct run *run, uint64_t number, struct err *err)
{
    double started = clock_seconds(), seconds;
    struct net_stats stats = {0};
    struct batch batch;
    uint8_t *images = NULL;
    size_t count = 0;

    if (run->cold && number == 1)
        started = run->started;
    if (!loader_start(run->loader, number, err))
        return false;
    for (;;) {
        if ((run->net && !net_input_buffer(run->net, &images, err)) || !loader_next(run->loader, images, &batch, err))
            return false;
        if (batch.count == 0)
            break;
        count += (size_t)batch.count;
        if (run->net && !net_train(run->net, batch.images, batch.labels, batch.count, err))
            return false;
    }
    if (run->net && !net_stats(run->net, &stats, err))
        return false;
    seconds = clock_seconds() - started;
    printf("{\"epoch\": %d, \"images\": %zu, \"seconds\": %.4f, \"images_per_s\": %.1f, \"loss\": %.4f}\n", (int)number,
           count, seconds, (double)count / seconds, stats.batches ? stats.loss_sum / (double)stats.batches : 0.0);
    fflush(stdout);
    return true;
}

int main(int argc, char **argv)
{
    struct run run = {.started = clock_seconds()};
    struct err err;
    bool ok;

    if (argc > 1 && strcmp(argv[1], "-c") == 0) {
        run.cold = true;
        argv++;
        argc--;
    }
    if (argc < 7) {
        fprintf(stderr, "usage: epochs [-c] FOLDER BACKEND|none MODEL BATCH PRECISION EPOCHS [SIZE [THREADS]]\n");
        return 2;
    }
    ok = open_run(&run, argv, argc, &err);
    if (ok) {
        printf("{\"open\": %.4f}\n", clock_seconds() - run.started);
        fflush(stdout);
    }
    for (int e = 1; ok && e <= atoi(argv[6]); e++)
        ok = epoch(&run, (uint64_t)e, &err);
    if (!ok)
        fprintf(stderr, "%s\n", err.message);
    if (run.loader) {
        struct loader_counts counts = loader_counts(run.loader);

        printf("{\"decoded\": %zu, \"by_gpu\": %zu, \"from_disk\": %zu}\n", counts.decoded, counts.by_decoder,
               counts.from_disk);
    }
    loader_free(run.loader);
    jpeg_decoder_free(run.engines);
    picture_cache_free(run.disk);
    net_free(run.net);
    dataset_free(run.dataset);
    return ok ? 0 : 1;
}
