/* torch_class.c - see torch_class.h. The functions rebuild what torch._utils rebuilds, as descriptions. */
#include "formats/torch_class.h"

#include <string.h>

enum { MAX_ARGS = 8 };

typedef struct pickle_value *call(const struct pickle_value *const *args, struct arena *arena, struct err *err);

struct torch_class {
    const char *module, *name;
    enum { CLASS_STORAGE, CLASS_DTYPE, CLASS_CALL } kind;
    enum dtype dtype;            /* storages and dtypes */
    unsigned min_args, max_args; /* calls */
    call *call;
};

static struct pickle_value *out_of_memory(struct err *err)
{
    err_set(err, ERR_MEMORY, "data.pkl: takes more memory to read than a checkpoint may");
    return NULL;
}

static struct pickle_value *bad_tensor(struct err *err, const char *what)
{
    err_set(err, ERR_INVALID, "data.pkl: damaged tensor: %s", what);
    return NULL;
}

/* OrderedDict(), Counter(dict): a new dictionary, or the one given. */
static struct pickle_value *call_dict(const struct pickle_value *const *args, struct arena *arena, struct err *err)
{
    struct pickle_value *dict;

    if (args[0] && args[0]->type == PICKLE_DICT)
        return (struct pickle_value *)(uintptr_t)args[0];
    if (args[0] && (args[0]->type != PICKLE_LIST || args[0]->list.count)) {
        err_set(err, ERR_INVALID, "data.pkl: a dictionary made of %s", pickle_type_text(args[0]->type));
        return NULL;
    }
    dict = pickle_value_new(arena, PICKLE_DICT);
    return dict ? dict : out_of_memory(err);
}

/* torch.Size((2, 3)), set([2, 3]): stays the tuple, the list. */
static struct pickle_value *call_items(const struct pickle_value *const *args, struct arena *arena, struct err *err)
{
    (void)arena;
    if (args[0]->type == PICKLE_TUPLE || args[0]->type == PICKLE_LIST)
        return (struct pickle_value *)(uintptr_t)args[0];
    err_set(err, ERR_INVALID, "data.pkl: a collection made of %s", pickle_type_text(args[0]->type));
    return NULL;
}

/* Parameter(tensor, requires_grad, hooks): the tensor. */
static struct pickle_value *call_parameter(const struct pickle_value *const *args, struct arena *arena, struct err *err)
{
    (void)arena;
    if (args[0]->type == PICKLE_TENSOR)
        return (struct pickle_value *)(uintptr_t)args[0];
    err_set(err, ERR_INVALID, "data.pkl: a parameter made of %s", pickle_type_text(args[0]->type));
    return NULL;
}

/* Copies a tuple of non-negative integers; false when it is none. */
static bool read_extents(const struct pickle_value *tuple, int64_t extents[TENSOR_MAX_RANK])
{
    for (size_t i = 0; i < tuple->list.count; i++) {
        if (tuple->list.items[i]->type != PICKLE_INT || tuple->list.items[i]->integer < 0)
            return false;
        extents[i] = tuple->list.items[i]->integer;
    }
    return true;
}

/* Does the view lie inside its storage of `elements` elements of the tensor's type? */
static bool lies_inside(const struct pickle_tensor *tensor, int64_t elements)
{
    int64_t last = tensor->offset, step;

    for (int i = 0; i < tensor->rank; i++) {
        if (tensor->shape[i] == 0)
            return true;
        if (__builtin_mul_overflow(tensor->shape[i] - 1, tensor->stride[i], &step) ||
            __builtin_add_overflow(last, step, &last))
            return false;
    }
    return last < elements;
}

/* _rebuild_tensor_v2(storage, offset, shape, stride, requires_grad, hooks[, metadata]), and
 * _rebuild_tensor_v3(storage, offset, shape, stride, requires_grad, hooks, dtype[, metadata]) over bytes. */
static struct pickle_value *rebuild(const struct pickle_value *const *args, const struct torch_class *dtype,
                                    struct arena *arena, struct err *err)
{
    struct pickle_value *value = pickle_value_new(arena, PICKLE_TENSOR);
    struct pickle_tensor *tensor = arena_alloc(arena, sizeof *tensor);
    const struct pickle_value *shape = args[2], *stride = args[3];
    int64_t elements;

    if (!value || !tensor)
        return out_of_memory(err);
    if (args[0]->type != PICKLE_STORAGE || args[1]->type != PICKLE_INT || shape->type != PICKLE_TUPLE ||
        stride->type != PICKLE_TUPLE)
        return bad_tensor(err, "not made of a storage, an offset, a shape and strides");
    if (shape->list.count > TENSOR_MAX_RANK || shape->list.count != stride->list.count)
        return bad_tensor(err, "its shape and strides do not go together, or have more than 8 dimensions");
    *tensor = (struct pickle_tensor){.storage = args[0]->storage,
                                     .dtype = dtype ? dtype->dtype : args[0]->storage.dtype,
                                     .rank = (int)shape->list.count,
                                     .offset = args[1]->integer};
    if (tensor->offset < 0 || !read_extents(shape, tensor->shape) || !read_extents(stride, tensor->stride))
        return bad_tensor(err, "its offset, shape or strides are no natural numbers");
    elements = tensor->storage.elements;
    if (dtype)
        elements = elements * (int64_t)dtype_size(tensor->storage.dtype) / (int64_t)dtype_size(tensor->dtype);
    if (!lies_inside(tensor, elements))
        return bad_tensor(err, "it reaches beyond its storage");
    value->tensor = tensor;
    return value;
}

static struct pickle_value *call_rebuild_v2(const struct pickle_value *const *args, struct arena *arena,
                                            struct err *err)
{
    return rebuild(args, NULL, arena, err);
}

static struct pickle_value *call_rebuild_v3(const struct pickle_value *const *args, struct arena *arena,
                                            struct err *err)
{
    if (args[6]->type != PICKLE_CLASS || args[6]->class->kind != CLASS_DTYPE)
        return bad_tensor(err, "its type is none");
    return rebuild(args, args[6]->class, arena, err);
}

#define STORAGE(name, dtype)                                                                                           \
    {                                                                                                                  \
        "torch", name "Storage", CLASS_STORAGE, DTYPE_##dtype, 0, 0, NULL                                              \
    }
#define TYPE(name, dtype)                                                                                              \
    {                                                                                                                  \
        "torch", name, CLASS_DTYPE, DTYPE_##dtype, 0, 0, NULL                                                          \
    }
#define CALL(module, name, min_args, max_args, call)                                                                   \
    {                                                                                                                  \
        module, name, CLASS_CALL, 0, min_args, max_args, call                                                          \
    }

static const struct torch_class classes[] = {
    CALL("torch._utils", "_rebuild_tensor_v2", 6, 7, call_rebuild_v2),
    CALL("torch._utils", "_rebuild_tensor_v3", 7, 8, call_rebuild_v3),
    CALL("torch._utils", "_rebuild_parameter", 1, 3, call_parameter),
    CALL("torch.nn.parameter", "Parameter", 1, 2, call_parameter),
    CALL("torch", "Size", 1, 1, call_items),
    CALL("collections", "OrderedDict", 0, 1, call_dict),
    CALL("collections", "Counter", 0, 1, call_dict), /* in the state of learning rate schedulers */
    CALL("__builtin__", "set", 1, 1, call_items),    /* sets as protocols 2 and 3 write them */
    CALL("builtins", "set", 1, 1, call_items),
    STORAGE("Float", F32),
    STORAGE("Double", F64),
    STORAGE("Half", F16),
    STORAGE("BFloat16", BF16),
    STORAGE("Long", I64),
    STORAGE("Int", I32),
    STORAGE("Short", I16),
    STORAGE("Char", I8),
    STORAGE("Byte", U8),
    STORAGE("Bool", BOOL),
    STORAGE("Untyped", U8),
    TYPE("float32", F32),
    TYPE("float64", F64),
    TYPE("float16", F16),
    TYPE("bfloat16", BF16),
    TYPE("int64", I64),
    TYPE("int32", I32),
    TYPE("int16", I16),
    TYPE("int8", I8),
    TYPE("uint8", U8),
    TYPE("bool", BOOL),
};

const struct torch_class *torch_class_find(const char *module, const char *name)
{
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        const struct torch_class *class = &classes[i];

        if (strcmp(class->name, name) != 0)
            continue;
        /* storages moved about: torch, torch.storage, and torch.cuda up to PyTorch 1.9 */
        if (strcmp(class->module, module) == 0 ||
            (class->kind == CLASS_STORAGE &&
             (strcmp(module, "torch.storage") == 0 || strcmp(module, "torch.cuda") == 0)))
            return class;
    }
    return NULL;
}

struct pickle_value *torch_class_call(const struct torch_class *class, const struct pickle_value *args,
                                      struct arena *arena, struct err *err)
{
    const struct pickle_value *list[MAX_ARGS] = {NULL};

    if (class->kind != CLASS_CALL || args->type != PICKLE_TUPLE || args->list.count < class->min_args ||
        args->list.count > class->max_args) {
        err_set(err, ERR_INVALID, "data.pkl: calls \"%s.%s\" in a way that torch.save does not write; refused",
                class->module, class->name);
        return NULL;
    }
    for (size_t i = 0; i < args->list.count; i++)
        list[i] = args->list.items[i];
    return class->call(list, arena, err);
}

struct pickle_value *torch_storage(const struct pickle_value *id, struct arena *arena, struct err *err)
{
    struct pickle_value *const *items = id->list.items, *value;
    const struct pickle_value *class, *key, *elements;

    if (id->type != PICKLE_TUPLE || id->list.count < 5 || !pickle_text_is(items[0], "storage")) {
        err_set(err, ERR_INVALID, "data.pkl: a persistent id that is no storage; refused");
        return NULL;
    }
    class = items[1];
    key = items[2];
    elements = items[4];
    if (class->type != PICKLE_CLASS || class->class->kind != CLASS_STORAGE || key->type != PICKLE_TEXT ||
        strlen(key->text.data) != key->text.size || elements->type != PICKLE_INT || elements->integer < 0 ||
        elements->integer > (int64_t)1 << 40) {
        err_set(err, ERR_INVALID, "data.pkl: damaged storage");
        return NULL;
    }
    value = pickle_value_new(arena, PICKLE_STORAGE);
    if (!value)
        return out_of_memory(err);
    value->storage =
        (struct pickle_storage){.key = key->text.data, .dtype = class->class->dtype, .elements = elements->integer};
    return value;
}
