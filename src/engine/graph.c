/* graph.c - see graph.h */
#include "engine/graph.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct graph *graph_new(bool training)
{
    struct graph *graph = calloc(1, sizeof *graph);

    if (!graph)
        return NULL;
    graph->arena = arena_new(0);
    if (!graph->arena) {
        free(graph);
        return NULL;
    }
    graph->training = training;
    graph->input = graph->labels = graph->logits = graph->loss = graph->step = NO_TENSOR;
    graph_tensor(graph, TENSOR_STATE, DTYPE_F32, 0, NULL, NULL); /* tensor 0, see graph.h */
    return graph->failed ? graph_free(graph) : graph;
}

struct graph *graph_free(struct graph *graph)
{
    if (!graph)
        return NULL;
    free(graph->tensors);
    free(graph->ops);
    arena_free(graph->arena);
    free(graph);
    return NULL;
}

void graph_fail(struct graph *graph, enum err_kind kind, const char *fmt, ...)
{
    char message[sizeof graph->err.message];
    va_list args;

    if (graph->failed)
        return;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    err_set(&graph->err, kind, "%s", message);
    graph->failed = true;
}

void *graph_alloc(struct graph *graph, size_t size)
{
    void *memory = arena_alloc(graph->arena, size);

    if (!memory)
        graph_fail(graph, ERR_MEMORY, "no memory for %zu bytes of a graph", size);
    return memory;
}

/* The array with room for one more item (twice the room when full); NULL and failed without memory. */
static void *with_room(struct graph *graph, void *items, int count, int *capacity, size_t size)
{
    int more = *capacity ? 2 * *capacity : 256;
    void *grown;

    if (count < *capacity)
        return items;
    grown = realloc(items, (size_t)more * size);
    if (!grown) {
        graph_fail(graph, ERR_MEMORY, "no memory for a graph of %d items", more);
        return NULL;
    }
    *capacity = more;
    return grown;
}

/* The checkpoint's name of a parameter is its scopes and its own name; others keep theirs as it is. */
static const char *full_name(struct graph *graph, enum tensor_role role, const char *name)
{
    const char *text;

    if (!name)
        return NULL;
    text = role == TENSOR_PARAM || role == TENSOR_BUFFER ? arena_printf(graph->arena, "%s%s", graph->scope, name)
                                                         : arena_strdup(graph->arena, name);
    if (!text)
        graph_fail(graph, ERR_MEMORY, "no memory for the name %s", name);
    return text;
}

tensor_id graph_tensor(struct graph *graph, enum tensor_role role, enum dtype dtype, int rank, const int64_t *shape,
                       const char *name)
{
    struct tensor tensor = {.dtype = dtype, .role = role, .rank = rank, .of = NO_TENSOR};
    size_t bytes = dtype_size(dtype);
    void *grown;

    for (int i = 0; i < rank; i++) {
        if (shape[i] < 1 || __builtin_mul_overflow(bytes, (size_t)shape[i], &bytes) || bytes > (size_t)1 << 40) {
            graph_fail(graph, ERR_INVALID, "%s%s: dimension %d of a tensor would be %lld", graph->scope,
                       name ? name : "", i, (long long)shape[i]);
            return 0;
        }
        tensor.shape[i] = shape[i];
    }
    tensor.name = full_name(graph, role, name);
    grown = with_room(graph, graph->tensors, graph->tensor_count, &graph->tensor_capacity, sizeof tensor);
    if (!grown)
        return 0;
    graph->tensors = grown;
    tensor.slot = graph->slots[role]++;
    graph->tensors[graph->tensor_count] = tensor;
    return graph->tensor_count++;
}

tensor_id graph_like(struct graph *graph, enum tensor_role role, tensor_id other)
{
    struct tensor like = graph->tensors[other]; /* a copy: the table may move */

    return graph_tensor(graph, role, like.dtype, like.rank, like.shape, NULL);
}

tensor_id graph_step(struct graph *graph)
{
    if (graph->step == NO_TENSOR)
        graph->step = graph_tensor(graph, TENSOR_COUNTER, DTYPE_I64, 0, NULL, "step");
    return graph->step;
}

static tensor_id *copy_list(struct graph *graph, int *count, const tensor_id *list)
{
    tensor_id *copy;

    while (*count > 0 && list[*count - 1] == NO_TENSOR)
        --*count;
    copy = graph_alloc(graph, (size_t)*count * sizeof *copy);
    if (copy && *count)
        memcpy(copy, list, (size_t)*count * sizeof *copy);
    return copy;
}

struct op *graph_op(struct graph *graph, enum op_type type, const struct op_attrs *attrs, int input_count,
                    const tensor_id *inputs, int output_count, const tensor_id *outputs)
{
    struct op op = {.type = type};
    struct op *grown;

    if (attrs)
        op.attrs = *attrs;
    op.inputs = copy_list(graph, &input_count, inputs);
    op.outputs = copy_list(graph, &output_count, outputs);
    op.input_count = input_count;
    op.output_count = output_count;
    grown = graph->failed ? NULL : with_room(graph, graph->ops, graph->op_count, &graph->op_capacity, sizeof op);
    if (!grown)
        return NULL;
    graph->ops = grown;
    graph->ops[graph->op_count] = op;
    return &graph->ops[graph->op_count++];
}

size_t graph_push(struct graph *graph, const char *fmt, ...)
{
    size_t length = strlen(graph->scope);
    va_list args;
    int added;

    va_start(args, fmt);
    added = vsnprintf(graph->scope + length, sizeof graph->scope - length, fmt, args);
    va_end(args);
    if (added < 0 || length + (size_t)added + 2 > sizeof graph->scope) {
        graph_fail(graph, ERR_BUG, "scope too long: %s", graph->scope);
        graph->scope[length] = '\0';
        return length;
    }
    graph->scope[length + (size_t)added] = '.';
    graph->scope[length + (size_t)added + 1] = '\0';
    return length;
}

void graph_pop(struct graph *graph, size_t scope)
{
    graph->scope[scope] = '\0';
}

bool tensor_is_persistent(enum tensor_role role)
{
    return role == TENSOR_PARAM || role == TENSOR_BUFFER || role == TENSOR_MOMENT || role == TENSOR_COUNTER;
}

bool graph_keeps(const struct graph *graph, const struct tensor *tensor)
{
    return tensor->role == TENSOR_DERIVED ? graph->fold_once : tensor_is_persistent(tensor->role) && !tensor->passing;
}

int64_t tensor_elements(const struct tensor *tensor)
{
    int64_t n = 1;

    for (int i = 0; i < tensor->rank; i++)
        n *= tensor->shape[i];
    return n;
}

size_t tensor_plain_bytes(const struct tensor *tensor)
{
    return (size_t)tensor_elements(tensor) * dtype_size(tensor->dtype);
}

bool tensor_same_shape(const struct tensor *a, const struct tensor *b)
{
    return a->rank == b->rank && memcmp(a->shape, b->shape, (size_t)a->rank * sizeof a->shape[0]) == 0;
}

int64_t tensor_channels(const struct tensor *tensor)
{
    return tensor->rank ? tensor->shape[tensor->rank - 1] : 1;
}

int64_t tensor_rows(const struct tensor *tensor)
{
    return tensor_elements(tensor) / tensor_channels(tensor);
}
