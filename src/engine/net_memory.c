/* net_memory.c - what a net will take, before there is one: for admission in the daemon. */
#include <math.h>
#include <stdio.h>

#include "base/version.h"
#include "engine/net_internal.h"

enum { MAX_CLASSES = 1 << 20, MAX_IMAGE_SIZE = 8192, MAX_BATCH = 65536 };

bool net_check(const struct net_config *config, struct err *err)
{
    const struct model *model = config->model ? model_find(config->model) : NULL;

    if (!model)
        return err_set(err, ERR_INVALID, "unknown model \"%s\"", config->model ? config->model : "");
    if (!config->backend || !backend_find(config->backend))
        return err_set(err, ERR_INVALID, "unknown backend \"%s\"; there are cpu, cuda and ref",
                       config->backend ? config->backend : "");
    if (config->precision != DTYPE_F32 && config->precision != DTYPE_BF16)
        return err_set(err, ERR_INVALID, "precision %s is not possible; there are F32 and BF16",
                       dtype_name(config->precision));
    if (config->precision != DTYPE_F32 && !backend_find(config->backend)->half_precision)
        return err_set(err, ERR_INVALID, "precision %s is not possible on %s, only F32", dtype_name(config->precision),
                       config->backend);
    if (config->num_classes < 1 || config->num_classes > MAX_CLASSES)
        return err_set(err, ERR_INVALID, "num_classes is %d; possible are 1 to %d", config->num_classes, MAX_CLASSES);
    if (config->batch_size < 1 || config->batch_size > MAX_BATCH)
        return err_set(err, ERR_INVALID, "batch_size is %d; possible are 1 to %d", config->batch_size, MAX_BATCH);
    if (config->image_size < model->min_image_size || config->image_size > MAX_IMAGE_SIZE)
        return err_set(err, ERR_INVALID, "image_size is %d; possible with %s are %d to %d", config->image_size,
                       model->name, model->min_image_size, MAX_IMAGE_SIZE);
    if (model->image_step && config->image_size % model->image_step) {
        int below = config->image_size / model->image_step * model->image_step;

        return err_set(err, ERR_INVALID, "image_size is %d; %s takes multiples of %d: %d or %d are the nearest",
                       config->image_size, model->name, model->image_step, below, below + model->image_step);
    }
    if (config->mode == NET_TRAIN && !(config->learning_rate > 0 && isfinite(config->learning_rate)))
        return err_set(err, ERR_INVALID, "learning_rate is %g; it must be above 0", config->learning_rate);
    return true;
}

struct net_memory net_memory_of(const struct plan_memory *main, const struct plan_memory *evaluation,
                                const struct backend *backend)
{
    struct net_memory memory = {
        .weights = main->persistent[TENSOR_PARAM] + main->persistent[TENSOR_BUFFER] + main->persistent[TENSOR_COUNTER] +
                   main->persistent[TENSOR_DERIVED] + main->live[TENSOR_DERIVED],
        .gradients = main->live[TENSOR_GRADIENT],
        .optimizer = main->persistent[TENSOR_MOMENT],
        .activations = main->live[TENSOR_ACTIVATION] + main->live[TENSOR_STATE],
        .workspace = main->scratch + main->gaps,
        .inputs = main->live[TENSOR_INPUT] + main->inputs * (uint64_t)backend->input_copies,
        .libraries = backend->library_bytes,
    };

    if (evaluation && evaluation->arena > main->arena) /* they share the arena */
        memory.activations += evaluation->arena - main->arena;
    memory.total = memory.weights + memory.gradients + memory.optimizer + memory.activations + memory.workspace +
                   memory.inputs + memory.libraries;
    return memory;
}

static bool forecast(const struct net_config *config, const struct backend *backend, bool training,
                     struct plan_memory *ret, struct err *err)
{
    struct graph *graph = net_graph(model_find(config->model), config, backend, config->batch_size, training);
    bool ok;

    if (!graph)
        return err_set(err, ERR_MEMORY, "no memory for a graph");
    ok = plan_forecast(graph, backend, ret, err);
    graph_free(graph);
    return ok;
}

bool net_plan(const struct net_config *config, struct net_memory *ret, struct err *err)
{
    bool training = config->mode == NET_TRAIN;
    struct plan_memory main = {0}, evaluation = {0};
    const struct backend *backend;

    if (!net_check(config, err))
        return false;
    backend = backend_find(config->backend);
    if (!forecast(config, backend, training, &main, err) ||
        (training && !forecast(config, backend, false, &evaluation, err)))
        return false;
    *ret = net_memory_of(&main, training ? &evaluation : NULL, backend);
    return true;
}

/* The forecast of a batch of n; UINT64_MAX when there is none. */
static uint64_t total_of(const struct net_config *config, int n, uint64_t each)
{
    struct net_config with_n = *config;
    struct net_memory memory;

    with_n.batch_size = n;
    return net_plan(&with_n, &memory, NULL) ? memory.total + (uint64_t)n * each : UINT64_MAX;
}

/* Memory grows almost in proportion to the batch, so that the line through two sizes leads to the answer in a few
 * forecasts; halving guards against the steps in it. */
int net_largest_batch(const struct net_config *config, uint64_t bytes, uint64_t each)
{
    int low = 1, high = MAX_BATCH + 1, next = 2; /* low fits, high does not */
    uint64_t low_total = total_of(config, low, each), first = low_total;

    if (low_total > bytes)
        return 0;
    for (int round = 0; high - low > 1; round++) {
        uint64_t total = total_of(config, next, each);

        if (total <= bytes) {
            low = next;
            low_total = total;
        } else {
            high = next;
        }
        if (round % 4 == 3 || low == 1) {
            next = low + (high - low) / 2;
        } else {
            double slope = (double)(low_total - first) / (low - 1);
            double more = slope > 0 ? (double)(bytes - low_total) / slope : high;

            next = more < high - low ? low + (int)more : high - 1;
        }
        next = next <= low ? low + 1 : next >= high ? high - 1 : next;
    }
    return low;
}

const char *net_version(void)
{
    static char text[96];
    const struct backend *cpu = backend_find("cpu");

    if (!text[0])
        snprintf(text, sizeof text, "rfuav %s%s%s", RFUAV_VERSION, cpu->version ? ", " : "",
                 cpu->version ? cpu->version() : "");
    return text;
}

const char *net_backend_version(const char *name)
{
    const struct backend *backend = backend_find(name);

    return backend && backend->version ? backend->version() : "";
}
