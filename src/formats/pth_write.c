/* pth_write.c - a state_dict as torch.save writes it; see pth.h. The pickle is protocol 2 and uses only opcodes that
 * the restricted readers of PyTorch 1.13 and later (weights_only=True) know. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "formats/bytes.h"
#include "formats/file.h"
#include "formats/pth.h"
#include "formats/zipfile.h"

enum { PICKLE_MAX = 64 << 20, STEM_MAX = 255 };

/* What torch calls a storage of each type. */
static const char *const storage_names[] = {
    [DTYPE_F32] = "FloatStorage", [DTYPE_F64] = "DoubleStorage",    [DTYPE_F16] = "HalfStorage",
    [DTYPE_I64] = "LongStorage",  [DTYPE_BF16] = "BFloat16Storage", [DTYPE_I32] = "IntStorage",
    [DTYPE_I16] = "ShortStorage", [DTYPE_I8] = "CharStorage",       [DTYPE_U8] = "ByteStorage",
    [DTYPE_BOOL] = "BoolStorage",
};

/* BININT1, BININT2, BININT or LONG1, the shortest that holds it; value ≥ 0. */
static void put_int(struct buf *out, int64_t value)
{
    unsigned char code[10];

    put_u64(code + 1, (uint64_t)value);
    if (value <= UINT8_MAX) {
        code[0] = 'K';
        buf_append(out, code, 2);
    } else if (value <= UINT16_MAX) {
        code[0] = 'M';
        buf_append(out, code, 3);
    } else if (value <= INT32_MAX) {
        code[0] = 'J';
        buf_append(out, code, 5);
    } else {
        code[0] = 0x8a;
        code[1] = 8;
        put_u64(code + 2, (uint64_t)value);
        buf_append(out, code, 10);
    }
}

/* BINUNICODE */
static void put_text(struct buf *out, const char *text)
{
    unsigned char code[5] = {'X'};
    size_t size = strlen(text);

    put_u32(code + 1, (uint32_t)size);
    buf_append(out, code, sizeof code);
    buf_append(out, text, size);
}

/* A tuple of the shape, or of the strides of a dense tensor. */
static void put_shape(struct buf *out, const struct named_tensor *tensor)
{
    buf_puts(out, "(");
    for (int i = 0; i < tensor->rank; i++)
        put_int(out, tensor->shape[i]);
    buf_puts(out, "t");
}

static void put_strides(struct buf *out, const struct named_tensor *tensor)
{
    int64_t strides[TENSOR_MAX_RANK], stride = 1;

    for (int i = tensor->rank - 1; i >= 0; i--) {
        strides[i] = stride;
        stride *= tensor->shape[i] ? tensor->shape[i] : 1;
    }
    buf_puts(out, "(");
    for (int i = 0; i < tensor->rank; i++)
        put_int(out, strides[i]);
    buf_puts(out, "t");
}

/* "name": _rebuild_tensor_v2(storage(key), 0, shape, strides, False, OrderedDict()) */
static void put_tensor(struct buf *out, const struct named_tensor *tensor, const char *key)
{
    put_text(out, tensor->name);
    buf_puts(out, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_text(out, "storage");
    buf_printf(out, "ctorch\n%s\n", storage_names[tensor->dtype]);
    put_text(out, key);
    put_text(out, "cpu");
    put_int(out, named_tensor_elements(tensor));
    buf_puts(out, "tQ");
    put_int(out, 0);
    put_shape(out, tensor);
    put_strides(out, tensor);
    buf_puts(out, "\x89"
                  "ccollections\nOrderedDict\n)RtR");
}

static bool put_pickle(struct buf *out, const struct state_dict *dict, struct err *err)
{
    char key[24];

    buf_puts(out, "\x80\x02"
                  "ccollections\nOrderedDict\n)R(");
    for (size_t i = 0; i < state_dict_count(dict); i++) {
        snprintf(key, sizeof key, "%zu", i);
        put_tensor(out, state_dict_at(dict, i), key);
    }
    buf_puts(out, "u.");
    return !out->failed || err_set(err, ERR_MEMORY, "no memory for the names of %zu tensors", state_dict_count(dict));
}

static bool add(struct zip_writer *zip, const char *stem, const char *name, const void *data, size_t size,
                struct err *err)
{
    char path[STEM_MAX + 64];

    snprintf(path, sizeof path, "%s/%s", stem, name);
    return zip_writer_add(zip, path, data, size, err);
}

bool pth_encode(int fd, const char *stem, const struct state_dict *dict, struct err *err)
{
    struct zip_writer zip;
    struct buf pickle;
    bool ok;

    if (strlen(stem) > STEM_MAX)
        return err_set(err, ERR_INVALID, "name too long: %.80s...", stem);
    zip_writer_init(&zip, fd);
    buf_init(&pickle, PICKLE_MAX);
    ok = put_pickle(&pickle, dict, err) && add(&zip, stem, "data.pkl", pickle.data, pickle.size, err) &&
         add(&zip, stem, "byteorder", "little", 6, err);
    for (size_t i = 0; ok && i < state_dict_count(dict); i++) {
        const struct named_tensor *tensor = state_dict_at(dict, i);
        char name[32];

        snprintf(name, sizeof name, "data/%zu", i);
        ok =
            add(&zip, stem, name, tensor->data, (size_t)named_tensor_elements(tensor) * dtype_size(tensor->dtype), err);
    }
    ok = ok && add(&zip, stem, "version", "3\n", 2, err) && zip_writer_finish(&zip, err);
    buf_release(&pickle);
    zip_writer_release(&zip);
    return ok;
}

struct pth_content {
    const struct state_dict *dict;
    char stem[STEM_MAX + 1];
};

static bool write_content(int fd, const void *arg, struct err *err)
{
    const struct pth_content *content = arg;

    return pth_encode(fd, content->stem, content->dict, err);
}

/* The file's name without folder and ending, as torch.save names the archive. */
static void set_stem(struct pth_content *content, const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *dot = strrchr(name, '.');
    size_t size = dot && dot != name ? (size_t)(dot - name) : strlen(name);

    if (size == 0 || size > STEM_MAX || !text_is_utf8(name, size)) {
        name = "archive";
        size = strlen(name);
    }
    memcpy(content->stem, name, size);
    content->stem[size] = '\0';
}

bool pth_write(const char *path, const struct state_dict *dict, struct err *err)
{
    struct pth_content content = {.dict = dict};

    set_stem(&content, path);
    return file_replace(path, write_content, &content, err);
}
