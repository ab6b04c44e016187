/* parity.c - a network on the CUDA backend next to PyTorch: parity.py makes the inputs and compares.
 *
 *   parity FOLDER MODEL CLASSES SIZE BATCH fp32|bf16 STEPS
 *
 * Reads from FOLDER: weights (every parameter and buffer in torchvision's order as floats), images (BATCH, SIZE, SIZE,
 * 3) bytes, labels (BATCH) int32. Writes: logits in evaluation mode, gradients of the first step (every parameter in
 * order), losses (the mean loss and the right ones of each of STEPS steps, as doubles) and after (weights). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/net_internal.h"

const struct backend cpu_backend = {.name = "cpu"};

static const char *folder;

static void fail(const char *what)
{
    fprintf(stderr, "parity: %s\n", what);
    exit(1);
}

static FILE *open_file(const char *name, const char *mode)
{
    char path[512];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    file = fopen(path, mode);
    if (!file)
        fail(path);
    return file;
}

static void *read_all(const char *name, size_t bytes)
{
    FILE *file = open_file(name, "rb");
    void *data = malloc(bytes);

    if (!data || fread(data, 1, bytes, file) != bytes)
        fail(name);
    fclose(file);
    return data;
}

static void load_weights(struct net *net)
{
    FILE *file = open_file("weights", "rb");
    struct state_dict *old, *dict = state_dict_new();
    struct err err;

    if (!net_save(net, &old, &err))
        fail(err.message);
    for (size_t i = 0; i < state_dict_count(old); i++) {
        const struct named_tensor *t = state_dict_at(old, i);
        size_t count = (size_t)named_tensor_elements(t);

        if (fread(state_dict_add(dict, t->name, DTYPE_F32, t->rank, t->shape, &err), sizeof(float), count, file) !=
            count)
            fail("weights end too early");
    }
    if (!net_load(net, dict, false, NULL, &err))
        fail(err.message);
    state_dict_free(old);
    state_dict_free(dict);
    fclose(file);
}

static void write_weights(struct net *net)
{
    FILE *file = open_file("after", "wb");
    struct state_dict *dict;
    struct err err;

    if (!net_save(net, &dict, &err))
        fail(err.message);
    for (size_t i = 0; i < state_dict_count(dict); i++) {
        const struct named_tensor *t = state_dict_at(dict, i);
        size_t count = (size_t)named_tensor_elements(t);
        float *values = malloc(count * sizeof *values);

        named_tensor_to_f32(t, values);
        fwrite(values, sizeof *values, count, file);
        free(values);
    }
    state_dict_free(dict);
    fclose(file);
}

static void write_gradients(struct net *net, int batch)
{
    FILE *file = open_file("gradients", "wb");
    struct plan *plan;
    struct err err;

    if (!net_plan_for(net, batch, true, &plan, &err))
        fail(err.message);
    for (tensor_id t = 0; t < plan_graph(plan)->gradient_count; t++) {
        const struct tensor *tensor = &plan_graph(plan)->tensors[t];
        size_t count = (size_t)tensor_elements(tensor);
        float *values;

        if (tensor->role != TENSOR_PARAM)
            continue;
        values = malloc(count * sizeof *values);
        if (!net_gradient(net, batch, tensor->name, values, &err))
            fail(err.message);
        fwrite(values, sizeof *values, count, file);
        free(values);
    }
    fclose(file);
}

int main(int argc, char **argv)
{
    struct net_config config = {.backend = "cuda", .mode = NET_TRAIN, .learning_rate = 1e-4};
    struct net_stats stats;
    struct net *net;
    struct err err;
    float *logits;
    FILE *file;
    int steps;

    if (argc < 8)
        fail("usage: parity FOLDER MODEL CLASSES SIZE BATCH fp32|bf16 STEPS");
    folder = argv[1];
    config.model = argv[2];
    config.num_classes = atoi(argv[3]);
    config.image_size = atoi(argv[4]);
    config.batch_size = atoi(argv[5]);
    config.precision = strcmp(argv[6], "bf16") == 0 ? DTYPE_BF16 : DTYPE_F32;
    steps = atoi(argv[7]);

    size_t batch = (size_t)config.batch_size, size = (size_t)config.image_size;
    uint8_t *images = read_all("images", batch * size * size * 3);
    int32_t *labels = read_all("labels", batch * sizeof *labels);

    if (!net_open(&config, &net, &err))
        fail(err.message);
    if (!net_keep_gradients(net, &err))
        fail(err.message);
    load_weights(net);
    logits = malloc(batch * (size_t)config.num_classes * sizeof *logits);
    if (!net_logits(net, images, config.batch_size, logits, &err))
        fail(err.message);
    file = open_file("logits", "wb");
    fwrite(logits, sizeof *logits, batch * (size_t)config.num_classes, file);
    fclose(file);
    file = open_file("losses", "wb");
    for (int i = 0; i < steps; i++) {
        if (!net_train(net, images, labels, config.batch_size, &err))
            fail(err.message);
        if (i == 0)
            write_gradients(net, config.batch_size);
        if (!net_stats(net, &stats, &err))
            fail(err.message);
        fwrite((double[]){stats.loss_sum, (double)stats.correct}, sizeof(double), 2, file);
    }
    fclose(file);
    write_weights(net);
    net_free(net);
    free(images);
    free(labels);
    free(logits);
    return 0;
}
