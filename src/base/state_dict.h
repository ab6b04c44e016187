/* state_dict.h - named tensors on the host, as PyTorch's state_dict: what checkpoint files hold and networks take.
 * Names, shapes and element order are torchvision's (convolution weights O,I,H,W; linear weights out,in). */
#ifndef RFUAV_BASE_STATE_DICT_H
#define RFUAV_BASE_STATE_DICT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* dtype, bytes an element */
#define DTYPES(X) X(F32, 4) X(F64, 8) X(F16, 2) X(BF16, 2) X(I64, 8) X(I32, 4) X(I16, 2) X(I8, 1) X(U8, 1) X(BOOL, 1)

enum dtype {
#define X(name, size) DTYPE_##name,
    DTYPES(X)
#undef X
};
enum { DTYPE_COUNT = DTYPE_BOOL + 1 };

size_t dtype_size(enum dtype dtype);
const char *dtype_name(enum dtype dtype); /* "F32" */

enum { TENSOR_MAX_RANK = 8 };

struct named_tensor {
    const char *name;
    enum dtype dtype;
    int rank; /* 0: a scalar */
    int64_t shape[TENSOR_MAX_RANK];
    const void *data; /* dense, row-major, little-endian; owned by the dict */
};

struct state_dict;

struct state_dict *state_dict_new(void); /* NULL without memory */
struct state_dict *state_dict_free(struct state_dict *dict);

/* Adds a tensor at the end and returns where its bytes (zeroed) are to be written; NULL with *err set for a name that
 * is there already, a shape that overflows, or no memory. The name is copied. */
void *state_dict_add(struct state_dict *dict, const char *name, enum dtype dtype, int rank, const int64_t *shape,
                     struct err *err);

size_t state_dict_count(const struct state_dict *dict);
const struct named_tensor *state_dict_at(const struct state_dict *dict, size_t i);           /* in order of adding */
const struct named_tensor *state_dict_find(const struct state_dict *dict, const char *name); /* NULL: none */

int64_t named_tensor_elements(const struct named_tensor *tensor);

/* Copies all elements, named_tensor_elements() of them, as float or int64, converting from whatever type is stored.
 * To int64: fractions are cut off, NaN gives 0, what lies outside the range gives its nearest end. */
void named_tensor_to_f32(const struct named_tensor *tensor, float *out);
void named_tensor_to_i64(const struct named_tensor *tensor, int64_t *out);

#endif
