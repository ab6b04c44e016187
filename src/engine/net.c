/* net.c - see net.h: opening a net, its plans, training steps and logits. Weights: net_weights.c; forecasts:
 * net_memory.c */
#include "engine/net.h"

#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "engine/autograd.h"
#include "engine/fuse.h"
#include "engine/net_internal.h"
#include "engine/nn.h"
#include "engine/optim.h"
#include "engine/precision.h"
#include "engine/recompute.h"

const char *const *net_models(void)
{
    return model_names();
}

const char *net_class_name(const char *model)
{
    const struct model *found = model_find(model);

    return found ? found->class_name : NULL;
}

struct graph *net_graph(const struct model *model, const struct net_config *config, const struct backend *backend,
                        int n, bool training)
{
    const int64_t shape[] = {n, config->image_size, config->image_size, 3};
    const void *size = config->torchvision_head && model->torchvision_size ? model->torchvision_size : model->size;
    bool lean = config->mode == NET_INFER && backend->recompute_bytes; /* where memory is scarcer than time */
    struct graph *graph = graph_new(training);
    tensor_id logits;

    if (!graph)
        return NULL;
    graph->seed = config->seed;
    graph->no_dropout = config->no_dropout;
    graph->input = graph_tensor(graph, TENSOR_INPUT, DTYPE_U8, 4, shape, "images");
    logits = model->build(graph, size, nn_image(graph, graph->input), config->num_classes);
    graph->logits = logits;
    if (training)
        nn_cross_entropy(graph, logits);
    else
        graph->tensors[logits].keep = true;
    graph_fuse(graph);
    if (lean)
        graph_fold_once(graph);
    if (training)
        graph_backward(graph, graph->loss, NO_TENSOR);
    graph_precision(graph, config->precision);
    if (lean)
        graph_halve_weights(graph, config->precision);
    if (training) {
        graph_recompute(graph, backend->recompute_bytes);
        graph_adam(graph, config->learning_rate, ADAM_BYTES, ADAM_PARTS);
    }
    if (config->keep_inputs) {
        graph->tensors[graph->input].keep = true;
        if (training)
            graph->tensors[graph->labels].keep = true;
    }
    return graph;
}

static void keep_gradients(struct graph *graph)
{
    for (tensor_id t = 0; t < graph->gradient_count; t++)
        if (graph->tensors[t].role == TENSOR_PARAM && graph->gradients[t] != NO_TENSOR)
            graph->tensors[graph->gradients[t]].keep = true;
}

/* Makes the arena large enough for the plan and tells every plan where it is. */
static bool bind_arena(struct net *net, struct plan *plan, struct err *err)
{
    size_t bytes = plan_memory(plan)->arena;
    void *arena;

    if (bytes <= net->arena_bytes) {
        plan_bind(plan, net->arena);
        return true;
    }
    net->backend->free(net->stream, net->arena); /* first, so that the two are never there together */
    net->arena = NULL;
    net->arena_bytes = 0;
    if (!plan_graph(plan)->fold_once)
        params_set_derived_valid(net->params, false);
    if (!net->backend->alloc(net->stream, bytes, &arena, err)) {
        for (int i = 0; i < NET_PLANS; i++) /* they have no memory any more */
            net->plans[i].plan = plan_free(net->plans[i].plan);
        return false;
    }
    net->arena = arena;
    net->arena_bytes = bytes;
    for (int i = 0; i < NET_PLANS; i++)
        if (net->plans[i].plan)
            plan_bind(net->plans[i].plan, arena);
    plan_bind(plan, arena);
    return true;
}

/* A free place for a plan: the one used longest ago, but never that of a full batch. */
static struct net_plan_slot *free_slot(struct net *net)
{
    struct net_plan_slot *oldest = NULL;

    for (int i = 0; i < NET_PLANS; i++) {
        struct net_plan_slot *slot = &net->plans[i];

        if (!slot->plan)
            return slot;
        if (slot->n != net->config.batch_size && (!oldest || slot->used < oldest->used))
            oldest = slot;
    }
    oldest->plan = plan_free(oldest->plan);
    return oldest;
}

bool net_plan_for(struct net *net, int n, bool training, struct plan **ret, struct err *err)
{
    struct net_plan_slot *slot;
    struct graph *graph;
    struct plan *plan;

    for (int i = 0; i < NET_PLANS; i++) {
        slot = &net->plans[i];
        if (slot->plan && slot->n == n && slot->training == training) {
            slot->used = ++net->clock;
            *ret = slot->plan;
            return true;
        }
    }
    graph = net_graph(net->model, &net->config, net->backend, n, training);
    if (!graph)
        return err_set(err, ERR_MEMORY, "no memory for a graph");
    if (net->keep_gradients)
        keep_gradients(graph);
    if (!plan_new(graph, net->backend, net->stream, net->params, &plan, err))
        return false;
    if (!bind_arena(net, plan, err)) {
        plan_free(plan);
        return false;
    }
    slot = free_slot(net);
    *slot = (struct net_plan_slot){.plan = plan, .n = n, .training = training, .used = ++net->clock};
    *ret = plan;
    return true;
}

bool net_open_on(const struct net_config *config, const struct backend *backend, struct net **ret, struct err *err)
{
    struct stream_config stream = {
        .device = config->device, .threads = config->threads, .deterministic = config->deterministic};
    struct plan *plan;
    struct net *net;

    net = calloc(1, sizeof *net);
    if (!net)
        return err_set(err, ERR_MEMORY, "no memory for a net");
    net->config = *config;
    net->config.model = net->config.backend = net->config.device = NULL;
    net->model = model_find(config->model);
    net->backend = backend;
    if (!net->backend->stream_open) {
        err_set(err, ERR_DEVICE, "backend %s is not part of this build", backend->name);
        goto fail;
    }
    if (!net->backend->stream_open(&stream, &net->stream, err))
        goto fail;
    net->params = params_new(net->backend, net->stream);
    if (!net->params) {
        err_set(err, ERR_MEMORY, "no memory for a net");
        goto fail;
    }
    if (!net_plan_for(net, config->batch_size, config->mode == NET_TRAIN, &plan, err))
        goto fail;
    net->memory = net_memory_of(plan_memory(plan), NULL, net->backend);
    *ret = net;
    return true;
fail:
    net_free(net);
    return false;
}

bool net_open(const struct net_config *config, struct net **ret, struct err *err)
{
    return net_check(config, err) && net_open_on(config, backend_find(config->backend), ret, err);
}

struct net *net_free(struct net *net)
{
    if (!net)
        return NULL;
    for (int i = 0; i < NET_PLANS; i++)
        plan_free(net->plans[i].plan);
    params_free(net->params);
    if (net->stream) {
        net->backend->free(net->stream, net->arena);
        net->backend->stream_close(net->stream);
    }
    free(net->input);
    free(net);
    return NULL;
}

static bool check_count(const struct net *net, int n, struct err *err)
{
    if (n < 1 || n > net->config.batch_size)
        return err_set(err, ERR_BUG, "%d images in one call, possible are 1 to %d", n, net->config.batch_size);
    return true;
}

bool net_train(struct net *net, const uint8_t *images, const int32_t *labels, int n, struct err *err)
{
    const struct graph *graph;
    struct plan *plan;

    if (net->config.mode != NET_TRAIN)
        return err_set(err, ERR_BUG, "this net was opened for inference");
    if (!check_count(net, n, err))
        return false;
    for (int i = 0; i < n; i++)
        if (labels[i] < 0 || labels[i] >= net->config.num_classes)
            return err_set(err, ERR_INVALID, "label %d of an image; the classes are 0 to %d", (int)labels[i],
                           net->config.num_classes - 1);
    if (!net_plan_for(net, n, true, &plan, err) || !net_need_weights(net, err))
        return false;
    graph = plan_graph(plan);
    return net->backend->write(net->stream, &graph->tensors[graph->input], images, err) &&
           net->backend->write(net->stream, &graph->tensors[graph->labels], labels, err) && plan_run(plan, err);
}

bool net_logits(struct net *net, const uint8_t *images, int n, float *logits, struct err *err)
{
    const struct graph *graph;
    struct plan *plan;

    if (!check_count(net, n, err) || !net_plan_for(net, n, false, &plan, err) || !net_need_weights(net, err))
        return false;
    graph = plan_graph(plan);
    return net->backend->write(net->stream, &graph->tensors[graph->input], images, err) && plan_run(plan, err) &&
           net->backend->read(net->stream, &graph->tensors[graph->logits], logits, err);
}

bool net_input_buffer(struct net *net, uint8_t **ret, struct err *err)
{
    const struct net_config *config = &net->config;
    size_t bytes = (size_t)config->batch_size * (size_t)config->image_size * (size_t)config->image_size * 3;
    void *buffer = net->input;

    if (net->backend->input_buffer) {
        if (!net->backend->input_buffer(net->stream, bytes, &buffer, err))
            return false;
    } else if (!buffer && !(buffer = net->input = malloc(bytes))) {
        return err_set(err, ERR_MEMORY, "no memory for a batch of %d images", config->batch_size);
    }
    *ret = buffer;
    return true;
}

/* The COUNTER tensor of this name in the training plan of a full batch. */
static const struct tensor *counter(struct net *net, const char *name)
{
    for (int i = 0; i < NET_PLANS; i++) {
        const struct graph *graph =
            net->plans[i].plan && net->plans[i].training ? plan_graph(net->plans[i].plan) : NULL;

        for (int t = 0; graph && t < graph->tensor_count; t++)
            if (graph->tensors[t].role == TENSOR_COUNTER && strcmp(graph->tensors[t].name, name) == 0)
                return &graph->tensors[t];
    }
    return NULL;
}

bool net_stats(struct net *net, struct net_stats *ret, struct err *err)
{
    const struct tensor *stats = counter(net, "stats");
    double sums[4];

    if (!stats)
        return err_set(err, ERR_BUG, "this net was opened for inference");
    if (!net->backend->read(net->stream, stats, sums, err) ||
        !net->backend->write(net->stream, stats, (const double[4]){0}, err))
        return false;
    *ret = (struct net_stats){sums[0], (int64_t)sums[1], (int64_t)sums[2], (int64_t)sums[3]};
    return true;
}

bool net_keep_gradients(struct net *net, struct err *err)
{
    struct plan *plan;

    net->keep_gradients = true;
    for (int i = 0; i < NET_PLANS; i++)
        net->plans[i].plan = plan_free(net->plans[i].plan);
    return net_plan_for(net, net->config.batch_size, true, &plan, err);
}

/* Values as floats, whatever the precision. */
static bool read_floats(struct net *net, const struct tensor *tensor, float *ret, struct err *err)
{
    int64_t count = tensor_elements(tensor);
    void *second =
        (char *)ret + count * (int64_t)sizeof(uint16_t); /* they are read into the second half of the memory */
    const uint16_t *half = second;

    if (tensor->dtype != DTYPE_BF16)
        return net->backend->read(net->stream, tensor, ret, err);
    if (!net->backend->read(net->stream, tensor, second, err))
        return false;
    for (int64_t i = 0; i < count; i++) {
        float value = bf16_to_float(half[i]);

        memcpy(&ret[i], &value, sizeof value);
    }
    return true;
}

bool net_gradient(struct net *net, int n, const char *name, float *ret, struct err *err)
{
    const struct graph *graph;
    struct plan *plan;

    if (!net_plan_for(net, n, true, &plan, err))
        return false;
    graph = plan_graph(plan);
    for (tensor_id t = 0; t < graph->gradient_count; t++)
        if (graph->tensors[t].role == TENSOR_PARAM && strcmp(graph->tensors[t].name, name) == 0)
            return read_floats(net, &graph->tensors[graph->gradients[t]], ret, err);
    return err_set(err, ERR_NOT_FOUND, "no parameter %s", name);
}

const struct net_memory *net_memory(const struct net *net)
{
    return &net->memory;
}
