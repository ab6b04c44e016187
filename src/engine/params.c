/* params.c - see params.h. One table per role, indexed by tensor->slot. */
#include "engine/params.h"

#include <stdlib.h>
#include <string.h>

#include "engine/offsets.h"

struct entry {
    const void *layout;
    size_t bytes, extra;
    void *data; /* inside one of the blocks; NULL for what lives in the arena */
    bool known;
};

struct params {
    const struct backend *backend;
    struct stream *stream;
    struct {
        struct entry *entries;
        int count;
        size_t bytes;
    } roles[TENSOR_ROLE_COUNT];
    void **blocks; /* one for each params_take() that brought something new */
    size_t block_count;
    bool derived_valid;
};

static bool is_kept(enum tensor_role role)
{
    return tensor_is_persistent(role) || role == TENSOR_DERIVED;
}

struct params *params_new(const struct backend *backend, struct stream *stream)
{
    struct params *params = calloc(1, sizeof *params);

    if (params) {
        params->backend = backend;
        params->stream = stream;
    }
    return params;
}

struct params *params_free(struct params *params)
{
    if (!params)
        return NULL;
    for (size_t i = 0; i < params->block_count; i++)
        params->backend->free(params->stream, params->blocks[i]);
    for (int role = 0; role < TENSOR_ROLE_COUNT; role++)
        free(params->roles[role].entries);
    free(params->blocks);
    free(params);
    return NULL;
}

static struct entry *entry_of(const struct params *params, const struct tensor *tensor)
{
    return tensor->slot < params->roles[tensor->role].count ? &params->roles[tensor->role].entries[tensor->slot] : NULL;
}

void params_offer(const struct params *params, struct graph *graph)
{
    for (int t = 0; t < graph->tensor_count; t++) {
        struct tensor *tensor = &graph->tensors[t];
        const struct entry *entry = is_kept(tensor->role) ? entry_of(params, tensor) : NULL;

        if (entry && entry->known) {
            tensor->layout = entry->layout;
            tensor->bytes = entry->bytes;
            tensor->extra = entry->extra;
            tensor->fixed = true;
        }
    }
}

/* Room in the tables for every slot of the graph. */
static bool grow(struct params *params, const struct graph *graph)
{
    for (int role = 0; role < TENSOR_ROLE_COUNT; role++) {
        int count = graph->slots[role], had = params->roles[role].count;
        struct entry *entries;

        if (!is_kept((enum tensor_role)role) || count <= had)
            continue;
        entries = realloc(params->roles[role].entries, (size_t)count * sizeof *entries);
        if (!entries)
            return false;
        memset(entries + had, 0, (size_t)(count - had) * sizeof *entries);
        params->roles[role].entries = entries;
        params->roles[role].count = count;
    }
    return true;
}

static bool new_block(struct params *params, size_t size, void **ret, struct err *err)
{
    void **blocks = realloc(params->blocks, (params->block_count + 1) * sizeof *blocks);

    if (!blocks)
        return err_set(err, ERR_MEMORY, "no memory for a table of parameters");
    params->blocks = blocks;
    if (!params->backend->alloc(params->stream, size, ret, err))
        return false;
    params->blocks[params->block_count++] = *ret;
    return true;
}

bool params_take(struct params *params, struct graph *graph, struct err *err)
{
    size_t size = 0;
    void *block = NULL;

    if (!grow(params, graph))
        return err_set(err, ERR_MEMORY, "no memory for a table of parameters");
    for (int t = 0; t < graph->tensor_count; t++)
        if (graph_keeps(graph, &graph->tensors[t]) && !entry_of(params, &graph->tensors[t])->known)
            size += offset_round(graph->tensors[t].bytes);
    if (size && !new_block(params, size, &block, err))
        return false;
    size = 0;
    for (int t = 0; t < graph->tensor_count; t++) {
        struct tensor *tensor = &graph->tensors[t];
        struct entry *entry;

        if (!is_kept(tensor->role))
            continue;
        entry = entry_of(params, tensor);
        if (!entry->known) {
            *entry = (struct entry){tensor->layout, tensor->bytes, tensor->extra, NULL, true};
            params->roles[tensor->role].bytes += offset_round(tensor->bytes);
            if (graph_keeps(graph, tensor)) {
                entry->data = (char *)block + size;
                size += offset_round(tensor->bytes);
            }
        }
        tensor->data = entry->data;
    }
    return true;
}

size_t params_bytes(const struct params *params, enum tensor_role role)
{
    return params->roles[role].bytes;
}

bool params_derived_valid(const struct params *params)
{
    return params->derived_valid;
}

void params_set_derived_valid(struct params *params, bool valid)
{
    params->derived_valid = valid;
}
