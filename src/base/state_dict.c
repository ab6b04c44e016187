/* state_dict.c - see state_dict.h */
#include "base/state_dict.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"

struct state_dict {
    struct named_tensor *items;
    size_t count, capacity;
    size_t *slots; /* open hash of names: index + 1 into items, 0 empty */
    size_t slot_count;
};

size_t dtype_size(enum dtype dtype)
{
    static const unsigned char sizes[] = {
#define X(name, size) size,
        DTYPES(X)
#undef X
    };

    return sizes[dtype];
}

const char *dtype_name(enum dtype dtype)
{
    static const char *const names[] = {
#define X(name, size) #name,
        DTYPES(X)
#undef X
    };

    return names[dtype];
}

struct state_dict *state_dict_new(void)
{
    return calloc(1, sizeof(struct state_dict));
}

struct state_dict *state_dict_free(struct state_dict *dict)
{
    if (!dict)
        return NULL;
    for (size_t i = 0; i < dict->count; i++) {
        free((void *)(uintptr_t)dict->items[i].name);
        free((void *)(uintptr_t)dict->items[i].data);
    }
    free(dict->items);
    free(dict->slots);
    free(dict);
    return NULL;
}

/* The slot of a name, or the empty slot where it would go (FNV-1a). */
static size_t *slot_of(const struct state_dict *dict, const char *name)
{
    uint64_t hash = 0xCBF29CE484222325u;
    size_t i;

    for (const char *p = name; *p; p++)
        hash = (hash ^ (unsigned char)*p) * 0x100000001B3u;
    for (i = hash % dict->slot_count; dict->slots[i]; i = (i + 1) % dict->slot_count)
        if (strcmp(dict->items[dict->slots[i] - 1].name, name) == 0)
            break;
    return &dict->slots[i];
}

/* Keeps room for one more item, and the hash at most half full. */
static bool grow(struct state_dict *dict)
{
    size_t capacity = dict->capacity ? 2 * dict->capacity : 64;
    struct named_tensor *items;
    size_t *slots;

    if (dict->count < dict->capacity)
        return true;
    assert(dict->count == 0 || dict->items);
    items = realloc(dict->items, capacity * sizeof *items);
    if (!items)
        return false;
    dict->items = items;
    slots = calloc(2 * capacity, sizeof *slots);
    if (!slots)
        return false;
    free(dict->slots);
    dict->slots = slots;
    dict->slot_count = 2 * capacity;
    dict->capacity = capacity;
    for (size_t i = 0; i < dict->count; i++)
        *slot_of(dict, dict->items[i].name) = i + 1;
    return true;
}

void *state_dict_add(struct state_dict *dict, const char *name, enum dtype dtype, int rank, const int64_t *shape,
                     struct err *err)
{
    struct named_tensor tensor = {.dtype = dtype, .rank = rank};
    size_t bytes = dtype_size(dtype);
    char *copy;
    void *data;

    if (rank < 0 || rank > TENSOR_MAX_RANK) {
        err_set(err, ERR_INVALID, "%s: %d dimensions, at most %d are possible", name, rank, TENSOR_MAX_RANK);
        return NULL;
    }
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 0 || __builtin_mul_overflow(bytes, (size_t)shape[i], &bytes) || bytes > (size_t)1 << 40) {
            err_set(err, ERR_INVALID, "%s: impossible shape", name);
            return NULL;
        }
        tensor.shape[i] = shape[i];
    }
    if (dict->count && state_dict_find(dict, name)) {
        err_set(err, ERR_INVALID, "%s: there twice", name);
        return NULL;
    }
    copy = strdup(name);
    data = calloc(1, bytes ? bytes : 1);
    if (!copy || !data || !grow(dict)) {
        free(copy);
        free(data);
        err_set(err, ERR_MEMORY, "%s: no memory for %zu bytes", name, bytes);
        return NULL;
    }
    tensor.name = copy;
    tensor.data = data;
    assert(dict->items && dict->count < dict->capacity); /* grow() has seen to it */
    *slot_of(dict, copy) = dict->count + 1;
    dict->items[dict->count++] = tensor;
    return data;
}

size_t state_dict_count(const struct state_dict *dict)
{
    return dict->count;
}

const struct named_tensor *state_dict_at(const struct state_dict *dict, size_t i)
{
    return i < dict->count ? &dict->items[i] : NULL;
}

const struct named_tensor *state_dict_find(const struct state_dict *dict, const char *name)
{
    size_t found = dict->slot_count ? *slot_of(dict, name) : 0;

    return found ? &dict->items[found - 1] : NULL;
}

int64_t named_tensor_elements(const struct named_tensor *tensor)
{
    int64_t n = 1;

    for (int i = 0; i < tensor->rank; i++)
        n *= tensor->shape[i];
    return n;
}

static float bits_to_float(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

/* IEEE half precision, subnormals, infinities and NaN included. */
static float half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = half >> 10 & 0x1Fu, fraction = half & 0x3FFu;

    if (exponent == 0) {
        float value = (float)fraction * 0x1p-24f;

        return sign ? -value : value;
    }
    if (exponent == 31)
        return bits_to_float(sign | 0x7F800000u | fraction << 13);
    return bits_to_float(sign | (exponent + 112) << 23 | fraction << 13);
}

static int64_t double_to_i64(double value)
{
    if (isnan(value))
        return 0;
    return value >= 0x1p63 ? INT64_MAX : value < -0x1p63 ? INT64_MIN : (int64_t)value;
}

/* One loop for each stored type, so that each is a plain conversion the compiler can vectorise. */
#define CONVERT_CASE(DTYPE, stored_type, expression)                                                                   \
    case DTYPE_##DTYPE:                                                                                                \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            stored_type x = ((const stored_type *)tensor->data)[i];                                                    \
            out[i] = expression;                                                                                       \
        }                                                                                                              \
        break;

void named_tensor_to_f32(const struct named_tensor *tensor, float *out)
{
    int64_t n = named_tensor_elements(tensor);

    switch (tensor->dtype) {
    case DTYPE_F32:
        if (n)
            memcpy(out, tensor->data, (size_t)n * sizeof *out);
        break;
        CONVERT_CASE(F64, double, (float)x)
        CONVERT_CASE(F16, uint16_t, half_to_float(x))
        CONVERT_CASE(BF16, uint16_t, bf16_to_float(x))
        CONVERT_CASE(I64, int64_t, (float)x)
        CONVERT_CASE(I32, int32_t, (float)x)
        CONVERT_CASE(I16, int16_t, (float)x)
        CONVERT_CASE(I8, int8_t, (float)x)
        CONVERT_CASE(U8, uint8_t, (float)x)
        CONVERT_CASE(BOOL, uint8_t, x ? 1.0f : 0.0f)
    }
}

void named_tensor_to_i64(const struct named_tensor *tensor, int64_t *out)
{
    int64_t n = named_tensor_elements(tensor);

    switch (tensor->dtype) {
        CONVERT_CASE(F32, float, double_to_i64((double)x))
        CONVERT_CASE(F64, double, double_to_i64(x))
        CONVERT_CASE(F16, uint16_t, double_to_i64((double)half_to_float(x)))
        CONVERT_CASE(BF16, uint16_t, double_to_i64((double)bf16_to_float(x)))
        CONVERT_CASE(I64, int64_t, x)
        CONVERT_CASE(I32, int32_t, x)
        CONVERT_CASE(I16, int16_t, x)
        CONVERT_CASE(I8, int8_t, x) /* NOLINT(bugprone-signed-char-misuse): its sign is meant */
        CONVERT_CASE(U8, uint8_t, x)
        CONVERT_CASE(BOOL, uint8_t, x != 0)
    }
}
