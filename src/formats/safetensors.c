/* safetensors.c - see safetensors.h
 *   8 bytes N, N bytes JSON {"name": {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, ...}, the data.
 * The format: huggingface/safetensors, README "Format". Its rules are checked: the tensors cover the data without
 * holes or overlaps. */
#include "formats/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "formats/bytes.h"
#include "formats/file.h"

enum { HEADER_MAX = 16 << 20, TENSORS_MAX = 100000 };

struct tensor {
    const char *name;
    enum dtype dtype;
    int rank;
    int64_t shape[TENSOR_MAX_RANK];
    uint64_t begin, end; /* bytes, from the start of the data */
};

/* --- reading ------------------------------------------------------------------------------------------------------ */

static bool parse_dtype(const char *text, enum dtype *ret)
{
    for (int i = 0; i < DTYPE_COUNT; i++)
        if (text && strcmp(text, dtype_name(i)) == 0) {
            *ret = i;
            return true;
        }
    return false;
}

/* Reads a JSON array of at most `max` natural numbers. */
static bool parse_numbers(const json_t *array, int64_t *numbers, size_t max, size_t *count)
{
    *count = json_array_size(array);
    if (!json_is_array(array) || *count > max)
        return false;
    for (size_t i = 0; i < *count; i++) {
        const json_t *item = json_array_get(array, i);

        if (!json_is_integer(item) || json_integer_value(item) < 0)
            return false;
        numbers[i] = json_integer_value(item);
    }
    return true;
}

static bool parse_tensor(const char *name, const json_t *json, struct tensor *ret, struct err *err)
{
    const char *dtype = json_string_value(json_object_get(json, "dtype"));
    size_t rank, offsets_count;
    uint64_t bytes;
    int64_t offsets[2];

    ret->name = name;
    if (!parse_dtype(dtype, &ret->dtype))
        return err_set(err, ERR_INVALID, "%.200s: type %.40s is not supported", name, dtype ? dtype : "missing");
    if (!parse_numbers(json_object_get(json, "shape"), ret->shape, TENSOR_MAX_RANK, &rank))
        return err_set(err, ERR_INVALID, "%.200s: its shape is no list of at most %d natural numbers", name,
                       TENSOR_MAX_RANK);
    if (!parse_numbers(json_object_get(json, "data_offsets"), offsets, 2, &offsets_count) || offsets_count != 2 ||
        offsets[0] > offsets[1])
        return err_set(err, ERR_INVALID, "%.200s: its data_offsets are not [begin, end]", name);
    ret->rank = (int)rank;
    ret->begin = (uint64_t)offsets[0];
    ret->end = (uint64_t)offsets[1];
    bytes = dtype_size(ret->dtype);
    for (size_t i = 0; i < rank; i++)
        if (__builtin_mul_overflow(bytes, (uint64_t)ret->shape[i], &bytes))
            return err_set(err, ERR_INVALID, "%.200s: impossible shape", name);
    if (bytes != ret->end - ret->begin)
        return err_set(err, ERR_INVALID, "%.200s: its shape takes %llu bytes, its data_offsets give %llu", name,
                       (unsigned long long)bytes, (unsigned long long)(ret->end - ret->begin));
    return true;
}

static int by_begin(const void *a, const void *b)
{
    const struct tensor *const *x = a, *const *y = b;

    if ((*x)->begin != (*y)->begin)
        return (*x)->begin < (*y)->begin ? -1 : 1;
    return ((*x)->end > (*y)->end) - ((*x)->end < (*y)->end);
}

/* Do the tensors cover the data exactly? */
static bool check_cover(const struct tensor *tensors, size_t count, uint64_t data_size, struct err *err)
{
    const struct tensor **order = malloc((count + 1) * sizeof *order);
    uint64_t at = 0;
    bool ok = true;

    if (!order)
        return err_set(err, ERR_MEMORY, "no memory for %zu tensors", count);
    for (size_t i = 0; i < count; i++)
        order[i] = &tensors[i];
    qsort(order, count, sizeof *order, by_begin);
    for (size_t i = 0; ok && i < count; at = order[i++]->end)
        if (order[i]->begin != at)
            ok = err_set(err, ERR_INVALID, "%.200s: its data %s", order[i]->name,
                         order[i]->begin < at ? "overlap another tensor's" : "follow a hole");
    free(order);
    if (ok && at != data_size)
        ok = err_set(err, ERR_INVALID, "has %llu bytes of data, its tensors take %llu", (unsigned long long)data_size,
                     (unsigned long long)at);
    return ok;
}

/* `tensors` has room for all entries of the header. */
static bool parse_header(json_t *header, uint64_t data_size, struct tensor *tensors, size_t *count, struct err *err)
{
    const char *name;
    json_t *value;

    *count = 0;
    json_object_foreach(header, name, value) if (strcmp(name, "__metadata__") != 0 &&
                                                 !parse_tensor(name, value, &tensors[(*count)++], err)) return false;
    return check_cover(tensors, *count, data_size, err);
}

static bool read_tensors(const struct source *source, uint64_t start, const struct tensor *tensors, size_t count,
                         struct state_dict *dict, struct err *err)
{
    for (size_t i = 0; i < count; i++) {
        const struct tensor *t = &tensors[i];
        void *out = state_dict_add(dict, t->name, t->dtype, t->rank, t->shape, err);

        if (!out || !source_read(source, start + t->begin, (size_t)(t->end - t->begin), out, err))
            return false;
    }
    return true;
}

/* The header's JSON object, NULL with *err set. The caller gives it back. */
static json_t *read_header(const struct source *source, uint64_t *data_start, struct err *err)
{
    unsigned char length[8];
    json_error_t error;
    json_t *header;
    uint64_t size;
    char *text;

    if (!source_read(source, 0, sizeof length, length, err))
        return NULL;
    size = get_u64(length);
    if (size > HEADER_MAX || size > source->size - sizeof length) {
        err_set(err, ERR_INVALID, "is not safetensors: a header of %llu bytes", (unsigned long long)size);
        return NULL;
    }
    text = malloc((size_t)size + 1);
    if (!text) {
        err_set(err, ERR_MEMORY, "no memory for its header");
        return NULL;
    }
    header = NULL;
    if (source_read(source, sizeof length, (size_t)size, text, err)) {
        header = json_loadb(text, (size_t)size, JSON_REJECT_DUPLICATES, &error);
        if (!header)
            err_set(err, ERR_INVALID, "is not safetensors: its header: %s", error.text);
    }
    free(text);
    if (header && (!json_is_object(header) || json_object_size(header) > TENSORS_MAX)) {
        err_set(err, ERR_INVALID, "is not safetensors: its header is no object of at most %d tensors", TENSORS_MAX);
        json_decref(header);
        header = NULL;
    }
    *data_start = sizeof length + size;
    return header;
}

bool safetensors_read_source(const struct source *source, struct state_dict **ret, struct err *err)
{
    uint64_t start;
    json_t *header = read_header(source, &start, err);
    struct state_dict *dict;
    struct tensor *tensors;
    size_t count;
    bool ok;

    if (!header)
        return false;
    dict = state_dict_new();
    tensors = calloc(json_object_size(header) + 1, sizeof *tensors);
    if (!dict || !tensors)
        ok = err_set(err, ERR_MEMORY, "no memory for %zu tensors", json_object_size(header));
    else
        ok = parse_header(header, source->size - start, tensors, &count, err) &&
             read_tensors(source, start, tensors, count, dict, err);
    free(tensors);
    json_decref(header);
    if (ok)
        *ret = dict;
    else
        state_dict_free(dict);
    return ok;
}

bool safetensors_decode(const void *data, size_t size, struct state_dict **ret, struct err *err)
{
    struct source source = source_memory(data, size);

    return safetensors_read_source(&source, ret, err);
}

bool safetensors_read(const char *path, struct state_dict **ret, struct err *err)
{
    struct source source;
    bool ok;

    if (!source_open(&source, path, err))
        return err_prefix(err, "%s", path);
    ok = safetensors_read_source(&source, ret, err);
    source_close(&source);
    return ok || err_prefix(err, "%s", path);
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

static size_t tensor_bytes(const struct named_tensor *tensor)
{
    return (size_t)named_tensor_elements(tensor) * dtype_size(tensor->dtype);
}

/* Largest elements first, so that all are aligned; otherwise in the dict's order. */
static int by_element_size(const void *a, const void *b)
{
    const struct named_tensor *const *x = a, *const *y = b;
    size_t x_size = dtype_size((*x)->dtype), y_size = dtype_size((*y)->dtype);

    if (x_size != y_size)
        return x_size > y_size ? -1 : 1;
    return (*x > *y) - (*x < *y);
}

static void put_header(struct buf *out, const struct named_tensor *const *tensors, size_t count)
{
    size_t at = 0;

    buf_puts(out, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < count; i++) {
        const struct named_tensor *tensor = tensors[i];

        buf_puts(out, ",");
        buf_json_string(out, tensor->name);
        buf_printf(out, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(tensor->dtype));
        for (int d = 0; d < tensor->rank; d++)
            buf_printf(out, "%s%lld", d ? "," : "", (long long)tensor->shape[d]);
        buf_printf(out, "],\"data_offsets\":[%zu,%zu]}", at, at + tensor_bytes(tensor));
        at += tensor_bytes(tensor);
    }
    buf_puts(out, "}");
    while (out->size % 8 && !out->failed)
        buf_puts(out, " ");
}

static bool write_all(int fd, const struct named_tensor *const *tensors, size_t count, struct err *err)
{
    struct iovec *pieces = calloc(count + 2, sizeof *pieces);
    unsigned char length[8];
    struct buf header;
    bool ok;

    buf_init(&header, HEADER_MAX);
    put_header(&header, tensors, count);
    if (!pieces || header.failed) {
        ok = err_set(err, ERR_MEMORY, "no memory for the names of %zu tensors", count);
    } else {
        put_u64(length, header.size);
        pieces[0] = (struct iovec){length, sizeof length};
        pieces[1] = (struct iovec){header.data, header.size};
        for (size_t i = 0; i < count; i++)
            pieces[i + 2] = (struct iovec){(void *)(uintptr_t)tensors[i]->data, tensor_bytes(tensors[i])};
        ok = file_write_pieces(fd, pieces, (int)count + 2, err);
    }
    buf_release(&header);
    free(pieces);
    return ok;
}

bool safetensors_encode(int fd, const struct state_dict *dict, struct err *err)
{
    size_t count = state_dict_count(dict);
    const struct named_tensor **tensors = malloc((count + 1) * sizeof *tensors);
    bool ok;

    if (!tensors)
        return err_set(err, ERR_MEMORY, "no memory for %zu tensors", count);
    for (size_t i = 0; i < count; i++)
        tensors[i] = state_dict_at(dict, i);
    qsort(tensors, count, sizeof *tensors, by_element_size);
    ok = write_all(fd, tensors, count, err);
    free(tensors);
    return ok;
}

static bool write_content(int fd, const void *arg, struct err *err)
{
    return safetensors_encode(fd, arg, err);
}

bool safetensors_write(const char *path, const struct state_dict *dict, struct err *err)
{
    return file_replace(path, write_content, dict, err);
}
