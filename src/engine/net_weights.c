/* net_weights.c - a net's parameters: initial values, and in and out as a state_dict. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "base/random.h"
#include "engine/net_internal.h"

/* The next parameter or buffer of a graph from tensor *t on, in torchvision's order; NULL at the end. */
static const struct tensor *next_weight(const struct graph *graph, tensor_id *t)
{
    while (*t < graph->tensor_count) {
        const struct tensor *tensor = &graph->tensors[(*t)++];

        if (tensor->role == TENSOR_PARAM || tensor->role == TENSOR_BUFFER)
            return tensor;
    }
    return NULL;
}

/* A plan that is there: all have the same parameters. */
static struct plan *any_plan(const struct net *net)
{
    for (int i = 0; i < NET_PLANS; i++)
        if (net->plans[i].plan)
            return net->plans[i].plan;
    return NULL;
}

/* Has it values, single or half, that come and go as floats? Else it counts something. */
static bool is_float(const struct tensor *tensor)
{
    return tensor->dtype == DTYPE_F32 || tensor->dtype == DTYPE_BF16;
}

enum { HOST_BYTES = 8 }; /* for each number: an integer, or a float and a half */

/* Host memory for the largest tensor of a graph; NULL without memory. */
static void *host_buffer(const struct graph *graph, struct err *err)
{
    size_t most = 1;
    void *buffer;

    for (int t = 0; t < graph->tensor_count; t++)
        if (tensor_is_persistent(graph->tensors[t].role) && (size_t)tensor_elements(&graph->tensors[t]) > most)
            most = (size_t)tensor_elements(&graph->tensors[t]);
    buffer = calloc(most, HOST_BYTES);
    if (!buffer)
        err_set(err, ERR_MEMORY, "no memory for %zu weights", most);
    return buffer;
}

/* Hands over a tensor's values, floats in a host_buffer(); for a tensor of halves they are rounded on the way. */
static bool write_values(struct net *net, const struct tensor *tensor, void *buffer, struct err *err)
{
    int64_t count = tensor_elements(tensor);
    const float *values = buffer;
    uint16_t *halves = (void *)((float *)buffer + count);

    if (tensor->dtype != DTYPE_BF16)
        return net->backend->write(net->stream, tensor, buffer, err);
#pragma omp parallel for
    for (int64_t i = 0; i < count; i++)
        halves[i] = bf16_of_float(values[i]);
    return net->backend->write(net->stream, tensor, halves, err);
}

enum { DRAW_CHUNK = 1 << 14 };

/* Values [first, last) of parameter k's stream of the seed, whatever else the model has and whoever draws the others.
 */
static void draw_chunk(const struct tensor *tensor, uint64_t seed, int64_t first, int64_t last, float *values)
{
    bool normal = tensor->init.kind == INIT_NORMAL;
    struct random random;

    random_init(&random, seed, (uint64_t)tensor->slot);
    random.counter = (uint64_t)first * (normal ? 2 : 1); /* numbers that a value takes */
    for (int64_t i = first; i < last; i++)
        values[i] = (float)(tensor->init.scale * (normal ? random_normal(&random) : 2 * random_uniform(&random) - 1));
}

/* Draws initial values. */
static void draw(const struct tensor *tensor, uint64_t seed, void *data)
{
    int64_t count = tensor_elements(tensor);
    float *values = data;

    if (tensor->init.kind == INIT_VALUES)
        memcpy(data, tensor->values, tensor_plain_bytes(tensor));
    else if (tensor->init.kind == INIT_ZERO || !is_float(tensor))
        memset(data, 0, (size_t)count * HOST_BYTES);
    else if (tensor->init.kind == INIT_ONE || tensor->init.kind == INIT_CONSTANT)
        for (int64_t i = 0; i < count; i++)
            values[i] = tensor->init.kind == INIT_ONE ? 1 : (float)tensor->init.scale;
    else {
#pragma omp parallel for schedule(dynamic)
        for (int64_t first = 0; first < count; first += DRAW_CHUNK)
            draw_chunk(tensor, seed, first, first + DRAW_CHUNK < count ? first + DRAW_CHUNK : count, values);
    }
}

static bool is_head(const struct net *net, const struct tensor *tensor)
{
    size_t length = strlen(net->model->head);

    return strncmp(tensor->name, net->model->head, length) == 0 && tensor->name[length] == '.';
}

/* Drawing takes as long as half the start of an inference, so what a file will overwrite is left out. */
static bool is_drawn(const struct net *net, const struct tensor *tensor)
{
    return !net->config.load_follows || !is_float(tensor) || is_head(net, tensor);
}

static bool draw_and_write(struct net *net, const struct tensor *tensor, void *buffer, struct err *err)
{
    draw(tensor, net->config.seed, buffer);
    return write_values(net, tensor, buffer, err);
}

/* Optimizer moments and step count begin anew. */
static bool reset_optimizer(struct net *net, const struct graph *graph, void *buffer, struct err *err)
{
    for (int t = 0; t < graph->tensor_count; t++) {
        const struct tensor *tensor = &graph->tensors[t];

        if (tensor->role != TENSOR_MOMENT && (tensor->role != TENSOR_COUNTER || tensor->dtype != DTYPE_I64))
            continue;
        memset(buffer, 0, tensor_plain_bytes(tensor));
        if (!net->backend->write(net->stream, tensor, buffer, err))
            return false;
    }
    return true;
}

static bool same_shape(const struct tensor *tensor, const struct named_tensor *named)
{
    return tensor->rank == named->rank &&
           memcmp(tensor->shape, named->shape, (size_t)tensor->rank * sizeof *tensor->shape) == 0;
}

/* Files from before 2018 have no num_batches_tracked; PyTorch takes them, counting from 0. */
static bool may_be_missing(const struct tensor *tensor)
{
    return tensor->role == TENSOR_BUFFER && tensor->dtype == DTYPE_I64 && tensor->rank == 0;
}

static void shape_text(char *text, size_t size, int rank, const int64_t *shape)
{
    size_t length = 0;

    text[0] = '\0';
    for (int i = 0; i < rank && length < size; i++)
        length += (size_t)snprintf(text + length, size - length, "%s%lld", i ? "x" : "", (long long)shape[i]);
}

/* The dictionary's tensor of this name, or of the one that it has in older files. */
static const struct named_tensor *find_named(const struct net *net, const struct state_dict *dict, const char *name)
{
    const struct named_tensor *named = state_dict_find(dict, name);
    char older[256];

    for (const char *const *pair = net->model->renamed; !named && pair && *pair; pair += 2) {
        const char *at = strstr(name, pair[0]);

        if (at && snprintf(older, sizeof older, "%.*s%s%s", (int)(at - name), name, pair[1], at + strlen(pair[0])) <
                      (int)sizeof older)
            named = state_dict_find(dict, older);
    }
    return named;
}

/* The dictionary's tensor for one of ours; NULL for one that is left as it is. false: it does not fit. */
static bool match(const struct net *net, const struct tensor *tensor, const struct state_dict *dict, bool skip_head,
                  const struct named_tensor **ret, bool *skipped, struct err *err)
{
    const struct named_tensor *named = find_named(net, dict, tensor->name);
    char have[128], want[128];

    *ret = NULL;
    if (!named && may_be_missing(tensor))
        return true;
    if (!named)
        return err_set(err, ERR_INVALID, "the weights have no %s: they are not a %s", tensor->name, net->model->name);
    if (!same_shape(tensor, named) && !(net->model->fit && net->model->fit(named, tensor, NULL))) {
        if (skip_head && is_head(net, tensor)) {
            *skipped = true;
            return true;
        }
        shape_text(have, sizeof have, named->rank, named->shape);
        shape_text(want, sizeof want, tensor->rank, tensor->shape);
        return err_set(err, ERR_INVALID, "%s has shape %s in the weights, %s in this %s%s", tensor->name, have, want,
                       net->model->name, is_head(net, tensor) ? " (another number of classes)" : "");
    }
    *ret = named;
    return true;
}

/* Is there a tensor of ours for every one in the dictionary? */
static bool check_extra(const struct net *net, const struct graph *graph, const struct state_dict *dict,
                        struct err *err)
{
    struct state_dict *names = state_dict_new();
    const struct tensor *tensor;
    bool ok = names;
    tensor_id t = 0;

    while (ok && (tensor = next_weight(graph, &t))) {
        const struct named_tensor *named = find_named(net, dict, tensor->name);

        ok = state_dict_add(names, named ? named->name : tensor->name, DTYPE_U8, 0, NULL, err);
    }
    for (size_t i = 0; ok && i < state_dict_count(dict); i++)
        if (!state_dict_find(names, state_dict_at(dict, i)->name))
            ok = err_set(err, ERR_INVALID, "the weights have %s, which a %s does not have",
                         state_dict_at(dict, i)->name, net->model->name);
    if (!names)
        err_set(err, ERR_MEMORY, "no memory for a table of names");
    state_dict_free(names);
    return ok;
}

bool net_has_torchvision_head(const char *model, const struct state_dict *dict)
{
    const struct model *found = model_find(model);
    const struct named_tensor *probe = found && found->probe ? state_dict_find(dict, found->probe) : NULL;

    return probe && probe->rank > 0 && probe->shape[0] == found->probe_rows;
}

static bool write_weight(struct net *net, const struct tensor *tensor, const struct named_tensor *named, void *buffer,
                         struct err *err)
{
    if (!same_shape(tensor, named)) {
        if (!net->model->fit(named, tensor, buffer))
            return err_set(err, ERR_MEMORY, "no memory for another size of %s", tensor->name);
    } else if (tensor->dtype == DTYPE_I64)
        named_tensor_to_i64(named, buffer);
    else
        named_tensor_to_f32(named, buffer);
    return write_values(net, tensor, buffer, err);
}

/* Where what passes through the prologue comes from. */
struct source {
    struct net *net;
    const struct state_dict *dict; /* NULL: drawn */
    void *buffer;
};

static bool write_passing(void *arg, const struct tensor *tensor, struct err *err)
{
    const struct source *source = arg;
    const struct named_tensor *named = source->dict ? find_named(source->net, source->dict, tensor->name) : NULL;

    return named ? write_weight(source->net, tensor, named, source->buffer, err)
                 : draw_and_write(source->net, tensor, source->buffer, err);
}

static bool fold(struct net *net, const struct state_dict *dict, void *buffer, struct err *err)
{
    struct source source = {net, dict, buffer};
    struct plan *plan = any_plan(net);

    return !plan_graph(plan)->fold_once || plan_fold(plan, write_passing, &source, err);
}

bool net_need_weights(struct net *net, struct err *err)
{
    const struct graph *graph = plan_graph(any_plan(net));
    const struct tensor *tensor;
    tensor_id t = 0;
    void *buffer;
    bool ok;

    if (net->has_weights)
        return true;
    buffer = host_buffer(graph, err);
    ok = buffer;

    while (ok && (tensor = next_weight(graph, &t))) {
        if (is_drawn(net, tensor) && !tensor->passing)
            ok = draw_and_write(net, tensor, buffer, err);
    }
    if (ok && !net->config.load_follows)
        ok = fold(net, NULL, buffer, err);
    free(buffer);
    net->has_weights = ok;
    return ok;
}

bool net_load(struct net *net, const struct state_dict *dict, bool skip_head, bool *skipped, struct err *err)
{
    const struct graph *graph = plan_graph(any_plan(net));
    const struct named_tensor *named;
    const struct tensor *tensor;
    bool ok = true, left = false;
    void *buffer;

    for (tensor_id t = 0; (tensor = next_weight(graph, &t));) /* all of it, before anything changes */
        if (!match(net, tensor, dict, skip_head, &named, &left, err))
            return false;
    if (!check_extra(net, graph, dict, err) || (left && !net_need_weights(net, err)))
        return false;
    buffer = host_buffer(graph, err);
    if (!buffer)
        return false;
    for (tensor_id t = 0; ok && (tensor = next_weight(graph, &t));) {
        match(net, tensor, dict, skip_head, &named, &left, NULL);
        if (named && !tensor->passing && !(left && is_head(net, tensor)))
            ok = write_weight(net, tensor, named, buffer, err);
    }
    params_set_derived_valid(net->params, false);
    ok = ok && fold(net, dict, buffer, err) && reset_optimizer(net, graph, buffer, err);
    net->has_weights = net->has_weights || ok;
    free(buffer);
    if (ok && skipped)
        *skipped = left;
    return ok;
}

bool net_save(struct net *net, struct state_dict **ret, struct err *err)
{
    const struct graph *graph = plan_graph(any_plan(net));
    const struct tensor *tensor;
    struct state_dict *dict;
    tensor_id t = 0;

    if (graph->fold_once)
        return err_set(err, ERR_BUG, "an inference net on %s keeps its weights folded and rounded", net->backend->name);
    if (!net_need_weights(net, err))
        return false;
    dict = state_dict_new();
    if (!dict)
        return err_set(err, ERR_MEMORY, "no memory for a dictionary of weights");
    while ((tensor = next_weight(graph, &t))) {
        void *data = state_dict_add(dict, tensor->name, tensor->dtype, tensor->rank, tensor->shape, err);

        if (!data || !net->backend->read(net->stream, tensor, data, err)) {
            state_dict_free(dict);
            return false;
        }
    }
    *ret = dict;
    return true;
}
