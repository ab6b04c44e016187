/* net_file.c - a network's way through files, for test_checkpoints.py: takes weights, classifies, writes them again.
 *   net_file MODEL CLASSES SIZE IN.pth|IN.safetensors OUT.pth IMAGES N
 * IMAGES holds N pictures as SIZE x SIZE RGB bytes. Prints the logits, a line for each picture; for a network with
 * another last layer than the service's, add "torchvision" at the end. Errors go to standard error, exit status 1. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/net.h"
#include "formats/checkpoint.h"
#include "formats/pth.h"

static uint8_t *read_images(const char *path, size_t size)
{
    uint8_t *images = malloc(size);
    FILE *file = fopen(path, "rb");
    bool ok = images && file && fread(images, 1, size, file) == size;

    if (file)
        fclose(file);
    if (ok)
        return images;
    free(images);
    return NULL;
}

static bool load(struct net *net, const char *path, struct err *err)
{
    struct state_dict *dict;
    bool ok = checkpoint_read(path, &dict, err);

    if (ok) {
        ok = net_load(net, dict, false, NULL, err);
        state_dict_free(dict);
    }
    return ok;
}

static bool save(struct net *net, const char *path, struct err *err)
{
    struct state_dict *dict;
    bool ok = net_save(net, &dict, err);

    if (ok) {
        ok = pth_write(path, dict, err);
        state_dict_free(dict);
    }
    return ok;
}

static bool print_logits(struct net *net, const uint8_t *images, int n, int classes, struct err *err)
{
    float *logits = malloc((size_t)n * (size_t)classes * sizeof *logits);
    bool ok = logits && net_logits(net, images, n, logits, err);

    for (int i = 0; ok && i < n * classes; i++)
        printf("%.9g%c", (double)logits[i], i % classes == classes - 1 ? '\n' : ' ');
    free(logits);
    return ok;
}

int main(int argc, char **argv)
{
    struct net_config config = {.mode = NET_INFER, .precision = DTYPE_F32, .backend = "cpu", .load_follows = true};
    struct net *net = NULL;
    struct err err = {.message = "usage: net_file MODEL CLASSES SIZE IN OUT.pth IMAGES N [torchvision]"};
    uint8_t *images = NULL;
    bool ok = argc >= 8;

    if (ok) {
        config.model = argv[1];
        config.num_classes = atoi(argv[2]);
        config.image_size = atoi(argv[3]);
        config.batch_size = atoi(argv[7]);
        config.torchvision_head = argc > 8;
        images =
            read_images(argv[6], (size_t)config.batch_size * (size_t)config.image_size * (size_t)config.image_size * 3);
        ok = images || err_set(&err, ERR_IO, "%s: cannot be read", argv[6]);
    }
    ok = ok && net_open(&config, &net, &err) && load(net, argv[4], &err) &&
         print_logits(net, images, config.batch_size, config.num_classes, &err) && save(net, argv[5], &err);
    if (!ok)
        fprintf(stderr, "%s\n", err.message);
    net_free(net);
    free(images);
    return ok ? 0 : 1;
}
