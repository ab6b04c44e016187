/* pth_read.c - from a checkpoint's ZIP entries to a state_dict; see pth.h.
 *   {stem}/data.pkl    a pickle: names → tensors, each a view of a storage
 *   {stem}/data/{key}  the storages, raw little-endian numbers
 *   {stem}/byteorder   "little" (newer files)
 * and entries that do not matter here. A tensor that is its whole storage, as nearly all are, goes straight from the
 * file into the state_dict. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "formats/pickle.h"
#include "formats/pth.h"
#include "formats/zipfile.h"

enum {
    PICKLE_MAX = 16 << 20,  /* bytes of data.pkl; resnet152's has 100 KB, with optimizer state 300 KB */
    ARENA_MAX = 512 << 20,  /* bytes that its values may take */
    TENSORS_MAX = 100000,   /* tensors in the state_dict */
    WRAPPERS_MAX = 3,       /* dictionaries around it */
    ENTRY_NAME_MAX = 1024,  /* bytes */
    VIEWS_FACTOR = 16,      /* bytes of tensors may be so many times the file's: tied weights, expanded views */
    VIEWS_SPARE = 64 << 20, /* and so many more */
};

struct reader {
    struct zipfile zip;
    struct arena *arena;
    char root[ENTRY_NAME_MAX]; /* "stem" */
    struct state_dict *dict;
    uint64_t budget; /* bytes that may still be read or made */

    /* the storage that views were last taken from */
    const struct zip_entry *cached;
    char *cache;
    struct err *err;
};

/* --- the archive -------------------------------------------------------------------------------------------------- */

static const struct zip_entry *find_entry(const struct reader *r, const char *name)
{
    char path[2 * ENTRY_NAME_MAX];

    if (snprintf(path, sizeof path, "%s/%s", r->root, name) >= (int)sizeof path)
        return NULL;
    return zipfile_find(&r->zip, path);
}

/* The folder that all entries are in: the one with data.pkl. */
static bool find_root(struct reader *r)
{
    static const char pickle_name[] = "/data.pkl";

    for (size_t i = 0; i < r->zip.count; i++) {
        const char *name = r->zip.entries[i].name, *slash = strchr(name, '/');

        if (slash && strcmp(slash, pickle_name) == 0 && slash - name < ENTRY_NAME_MAX) {
            memcpy(r->root, name, (size_t)(slash - name));
            r->root[slash - name] = '\0';
            if (!find_entry(r, "constants.pkl"))
                return true;
            return err_set(r->err, ERR_INVALID,
                           "is a TorchScript archive (it has constants.pkl), not a state_dict; in Python: "
                           "torch.save(torch.jit.load(f).state_dict(), f)");
        }
    }
    return err_set(r->err, ERR_INVALID, "is a ZIP archive, but no PyTorch checkpoint: it has no data.pkl");
}

static bool check_byteorder(struct reader *r)
{
    const struct zip_entry *entry = find_entry(r, "byteorder");
    char order[16] = "";

    if (!entry)
        return true;
    if (entry->size < sizeof order && !zipfile_read(&r->zip, entry, order, r->err))
        return false;
    if (strcmp(order, "little") != 0)
        return err_set(r->err, ERR_INVALID,
                       "was written on a big-endian machine (byteorder \"%s\"); save it again on a little-endian one",
                       order);
    return true;
}

static bool read_pickle(struct reader *r, struct pickle_value **ret)
{
    const struct zip_entry *entry = find_entry(r, "data.pkl");
    void *data;

    if (entry->size > PICKLE_MAX)
        return err_set(r->err, ERR_INVALID, "data.pkl has %llu bytes; at most %d are read",
                       (unsigned long long)entry->size, PICKLE_MAX);
    data = arena_alloc(r->arena, (size_t)entry->size);
    if (!data)
        return err_set(r->err, ERR_MEMORY, "no memory for data.pkl");
    return zipfile_read(&r->zip, entry, data, r->err) && pickle_read(data, (size_t)entry->size, r->arena, ret, r->err);
}

/* --- the dictionary ----------------------------------------------------------------------------------------------- */

/* Goes through {"state_dict": {...}, "epoch": 7} and the like to the dictionary inside. */
static const struct pickle_value *unwrap(const struct pickle_value *value)
{
    static const char *const wrappers[] = {"state_dict", "model_state_dict", "model", "net", "module"};

    for (int depth = 0; depth < WRAPPERS_MAX && value->type == PICKLE_DICT; depth++) {
        const struct pickle_value *inner = NULL;

        for (size_t w = 0; w < sizeof wrappers / sizeof *wrappers && !inner; w++)
            for (size_t i = 0; i < value->list.count; i += 2)
                if (pickle_text_is(value->list.items[i], wrappers[w]) && value->list.items[i + 1]->type == PICKLE_DICT)
                    inner = value->list.items[i + 1];
        if (!inner)
            break;
        value = inner;
    }
    return value;
}

/* A name that can be printed and compared. */
static bool is_name(const struct pickle_value *value)
{
    return value->type == PICKLE_TEXT && value->text.size > 0 && value->text.size < ENTRY_NAME_MAX &&
           text_is_utf8(value->text.data, value->text.size);
}

static bool check_dictionary(const struct pickle_value *dict, struct err *err)
{
    if (dict->type != PICKLE_DICT)
        return err_set(err, ERR_INVALID, "holds %s, not a dictionary of tensors", pickle_type_text(dict->type));
    if (dict->list.count == 0)
        return err_set(err, ERR_INVALID, "holds an empty dictionary, no tensors");
    if (dict->list.count / 2 > TENSORS_MAX)
        return err_set(err, ERR_INVALID, "holds %zu tensors; at most %d are read", dict->list.count / 2, TENSORS_MAX);
    for (size_t i = 0; i < dict->list.count; i += 2) {
        const struct pickle_value *name = dict->list.items[i], *value = dict->list.items[i + 1];

        if (!is_name(name))
            return err_set(err, ERR_INVALID, "has a dictionary with %s as a name, where a tensor's name should be",
                           name->type == PICKLE_TEXT ? "an empty, long or broken string"
                                                     : pickle_type_text(name->type));
        if (value->type != PICKLE_TENSOR)
            return err_set(
                err, ERR_INVALID,
                "entry \"%.200s\" is %s, not a tensor, and there is no \"state_dict\" or \"model\" beside it",
                name->text.data, pickle_type_text(value->type));
    }
    return true;
}

/* The length of what wrappers of a module put before every name; 0 unless all have it. */
static size_t common_prefix(const struct pickle_value *dict)
{
    static const char *const prefixes[] = {"module.", "_orig_mod."}; /* DataParallel, torch.compile */
    size_t length = 0;

    for (size_t p = 0; p < sizeof prefixes / sizeof *prefixes; p++) {
        size_t step = strlen(prefixes[p]);
        bool all = true;

        for (size_t i = 0; all && i < dict->list.count; i += 2)
            all = dict->list.items[i]->text.size > length + step &&
                  strncmp(dict->list.items[i]->text.data + length, prefixes[p], step) == 0;
        if (all) {
            length += step;
            p = (size_t)-1; /* they may be nested, in any order */
        }
    }
    return length;
}

/* --- the tensors -------------------------------------------------------------------------------------------------- */

static bool spend(struct reader *r, uint64_t bytes)
{
    if (bytes > r->budget)
        return err_set(r->err, ERR_INVALID,
                       "its tensors are views that add up to far more than the file holds; refused");
    r->budget -= bytes;
    return true;
}

/* Do the elements lie one after the other, row-major? */
static bool is_contiguous(const struct pickle_tensor *tensor)
{
    int64_t expected = 1;

    for (int i = tensor->rank - 1; i >= 0; i--) {
        if (tensor->shape[i] != 1 && tensor->stride[i] != expected)
            return false;
        expected *= tensor->shape[i];
    }
    return true;
}

/* Copies the elements of a view, row-major, from its storage. */
static void gather(const struct pickle_tensor *tensor, const char *storage, char *out, int64_t elements)
{
    size_t size = dtype_size(tensor->dtype);
    int64_t index[TENSOR_MAX_RANK] = {0}, at = tensor->offset;

    if (is_contiguous(tensor)) {
        memcpy(out, storage + (size_t)at * size, (size_t)elements * size);
        return;
    }
    for (int64_t n = 0; n < elements; n++) {
        memcpy(out + (size_t)n * size, storage + (size_t)at * size, size);
        for (int i = tensor->rank - 1; i >= 0; i--) {
            at += tensor->stride[i];
            if (++index[i] < tensor->shape[i])
                break;
            at -= tensor->stride[i] * tensor->shape[i];
            index[i] = 0;
        }
    }
}

/* The whole storage in memory; kept for the views that follow. */
static const char *cached_storage(struct reader *r, const struct zip_entry *entry)
{
    if (r->cached == entry)
        return r->cache;
    if (!spend(r, entry->size))
        return NULL;
    free(r->cache);
    r->cached = NULL;
    r->cache = malloc(entry->size ? (size_t)entry->size : 1);
    if (!r->cache) {
        err_set(r->err, ERR_MEMORY, "no memory for the %llu bytes of %s", (unsigned long long)entry->size, entry->name);
        return NULL;
    }
    if (!zipfile_read(&r->zip, entry, r->cache, r->err))
        return NULL;
    r->cached = entry;
    return r->cache;
}

/* The entry that holds a tensor's storage, large enough for it. */
static const struct zip_entry *find_storage(const struct reader *r, const struct pickle_storage *storage)
{
    uint64_t bytes = (uint64_t)storage->elements * dtype_size(storage->dtype);
    const struct zip_entry *entry = NULL;
    char name[ENTRY_NAME_MAX];

    if (snprintf(name, sizeof name, "data/%s", storage->key) < (int)sizeof name)
        entry = find_entry(r, name);
    if (!entry)
        err_set(r->err, ERR_INVALID, "entry data/%.100s is missing", storage->key);
    else if (entry->size < bytes) {
        err_set(r->err, ERR_INVALID, "entry %s has %llu bytes, %llu are needed", entry->name,
                (unsigned long long)entry->size, (unsigned long long)bytes);
        entry = NULL;
    }
    return entry;
}

/* The bytes of a tensor's own elements; views with stride 0 can have more than their storage. */
static bool count_bytes(struct reader *r, const struct pickle_tensor *tensor, int64_t *elements, uint64_t *bytes)
{
    *elements = 1;
    for (int i = 0; i < tensor->rank; i++)
        if (__builtin_mul_overflow(*elements, tensor->shape[i], elements))
            return spend(r, UINT64_MAX);
    if (__builtin_mul_overflow((uint64_t)*elements, (uint64_t)dtype_size(tensor->dtype), bytes))
        return spend(r, UINT64_MAX);
    return spend(r, *bytes);
}

static bool read_tensor(struct reader *r, const char *name, const struct pickle_tensor *tensor)
{
    const struct zip_entry *entry = find_storage(r, &tensor->storage);
    const char *storage;
    int64_t elements = 0;
    uint64_t bytes = 0;
    void *out;

    if (!entry || !count_bytes(r, tensor, &elements, &bytes))
        return false;
    out = state_dict_add(r->dict, name, tensor->dtype, tensor->rank, tensor->shape, r->err);
    if (!out || elements == 0)
        return out != NULL;
    if (bytes == entry->size && tensor->offset == 0 && is_contiguous(tensor))
        return zipfile_read(&r->zip, entry, out, r->err);
    storage = cached_storage(r, entry);
    if (!storage)
        return false;
    gather(tensor, storage, out, elements);
    return true;
}

static bool read_tensors(struct reader *r, const struct pickle_value *dict)
{
    size_t prefix = common_prefix(dict);

    for (size_t i = 0; i < dict->list.count; i += 2) {
        const char *name = dict->list.items[i]->text.data + prefix;

        if (!read_tensor(r, name, dict->list.items[i + 1]->tensor))
            return err_prefix(r->err, "%.200s", name);
    }
    return true;
}

bool pth_read_source(const struct source *source, struct state_dict **ret, struct err *err)
{
    struct reader r = {.arena = arena_new(ARENA_MAX),
                       .dict = state_dict_new(),
                       .budget = VIEWS_SPARE + VIEWS_FACTOR * source->size,
                       .err = err};
    const struct pickle_value *dict;
    struct pickle_value *root = NULL;
    enum file_kind kind;
    const char *what;
    bool ok = false;

    if (!r.arena || !r.dict) {
        err_set(err, ERR_MEMORY, "no memory to read it");
        goto out;
    }
    if (!source_sniff(source, &kind, &what, err))
        goto out;
    if (kind != FILE_ZIP) {
        err_set(err, ERR_INVALID, "not a PyTorch checkpoint, but %s", what);
        goto out;
    }
    if (!zipfile_open(&r.zip, source, r.arena, err) || !find_root(&r) || !check_byteorder(&r) ||
        !read_pickle(&r, &root))
        goto out;
    assert(root); /* read_pickle() has set it */
    dict = unwrap(root);
    if (!check_dictionary(dict, err) || !read_tensors(&r, dict))
        goto out;
    *ret = r.dict;
    r.dict = NULL;
    ok = true;
out:
    free(r.cache);
    state_dict_free(r.dict);
    arena_free(r.arena);
    return ok;
}

bool pth_decode(const void *data, size_t size, struct state_dict **ret, struct err *err)
{
    struct source source = source_memory(data, size);

    return pth_read_source(&source, ret, err);
}

bool pth_read(const char *path, struct state_dict **ret, struct err *err)
{
    struct source source;
    bool ok;

    if (!source_open(&source, path, err))
        return err_prefix(err, "%s", path);
    ok = pth_read_source(&source, ret, err);
    source_close(&source);
    return ok || err_prefix(err, "%s", path);
}
