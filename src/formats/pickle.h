/* pickle.h - a reader of Python pickles that can only build data.
 * It knows the opcodes of protocols 2 to 5 that torch.save uses, and calls nothing but the rows of one table
 * (torch_class.h): dictionaries, and torch's tensors, sizes and storages. Any other class or function is refused by
 * name before anything is done with it. Tensors are described, not read: their bytes are elsewhere in the checkpoint.
 */
#ifndef RFUAV_FORMATS_PICKLE_H
#define RFUAV_FORMATS_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/state_dict.h"

/* type, how a message calls it */
#define PICKLE_TYPES(X)                                                                                                \
    X(NONE, "None")                                                                                                    \
    X(BOOL, "a boolean")                                                                                               \
    X(INT, "an integer")                                                                                               \
    X(FLOAT, "a number")                                                                                               \
    X(TEXT, "a string")                                                                                                \
    X(BYTES, "bytes")                                                                                                  \
    X(TUPLE, "a tuple")                                                                                                \
    X(LIST, "a list")                                                                                                  \
    X(SET, "a set")                                                                                                    \
    X(DICT, "a dictionary")                                                                                            \
    X(CLASS, "a class")                                                                                                \
    X(STORAGE, "a storage")                                                                                            \
    X(TENSOR, "a tensor")

enum pickle_type {
#define X(name, text) PICKLE_##name,
    PICKLE_TYPES(X)
#undef X
};

/* A run of numbers, in the entry data/{key} of the checkpoint. */
struct pickle_storage {
    const char *key;
    enum dtype dtype;
    int64_t elements;
};

/* A view of a storage; everything in elements, and checked: the view lies inside its storage. */
struct pickle_tensor {
    struct pickle_storage storage;
    enum dtype dtype; /* the storage's, or of another type in a storage of bytes */
    int rank;
    int64_t offset, shape[TENSOR_MAX_RANK], stride[TENSOR_MAX_RANK];
};

struct torch_class;

struct pickle_value {
    enum pickle_type type;
    union {
        bool boolean;
        int64_t integer; /* larger ones are cut to the nearest int64 */
        double number;
        struct {
            const char *data; /* followed by a NUL; may contain others */
            size_t size;
        } text; /* and bytes */
        struct {
            struct pickle_value **items; /* a dict: key, value, key, value, ... */
            size_t count, capacity;
        } list; /* tuple, list, set, dict */
        const struct torch_class *class;
        struct pickle_storage storage;
        struct pickle_tensor *tensor;
    };
};

const char *pickle_type_text(enum pickle_type type); /* "a dictionary" */

/* Reads one pickle. Everything lives in the arena, whose limit bounds the memory. Values may refer to each other in
 * circles, as in Python. */
bool pickle_read(const void *data, size_t size, struct arena *arena, struct pickle_value **ret, struct err *err);

/* A new value of a type in the arena, NULL past its limit. */
struct pickle_value *pickle_value_new(struct arena *arena, enum pickle_type type);

/* Is it exactly this string? */
bool pickle_text_is(const struct pickle_value *value, const char *text);

#endif
