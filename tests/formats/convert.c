/* convert.c - reads a checkpoint or a model_cfg and writes it again, for the Python tests beside it.
 *   convert IN OUT.pth|OUT.safetensors|OUT.json
 *   convert IN.yaml OUT.yaml|OUT.json
 * A checkpoint as JSON is {"name": {"dtype", "shape", "hex"}}, in order. Errors go to standard error, exit status 1. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/checkpoint.h"
#include "formats/model_cfg.h"
#include "formats/pth.h"
#include "formats/safetensors.h"

#include "base/buf.h"

static bool ends_in(const char *text, const char *ending)
{
    size_t size = strlen(text), n = strlen(ending);

    return size >= n && strcmp(text + size - n, ending) == 0;
}

static bool print(const char *path, struct buf *out, struct err *err)
{
    FILE *file = fopen(path, "wb");
    bool ok = file && !out->failed && fwrite(out->data, 1, out->size, file) == out->size;

    if (file && fclose(file) != 0)
        ok = false;
    buf_release(out);
    return ok || err_set(err, ERR_IO, "%s: cannot be written", path);
}

static bool print_dict(const char *path, const struct state_dict *dict, struct err *err)
{
    struct buf out;

    buf_init(&out, (size_t)1 << 30);
    buf_puts(&out, "{");
    for (size_t i = 0; i < state_dict_count(dict); i++) {
        const struct named_tensor *tensor = state_dict_at(dict, i);
        const unsigned char *data = tensor->data;
        size_t size = (size_t)named_tensor_elements(tensor) * dtype_size(tensor->dtype);

        buf_puts(&out, i ? ",\n" : "\n");
        buf_json_string(&out, tensor->name);
        buf_printf(&out, ": {\"dtype\": \"%s\", \"shape\": [", dtype_name(tensor->dtype));
        for (int d = 0; d < tensor->rank; d++)
            buf_printf(&out, "%s%lld", d ? ", " : "", (long long)tensor->shape[d]);
        buf_puts(&out, "], \"hex\": \"");
        for (size_t b = 0; b < size; b++)
            buf_printf(&out, "%02x", data[b]);
        buf_puts(&out, "\"}");
    }
    buf_puts(&out, "}\n");
    return print(path, &out, err);
}

static void put_string(struct buf *out, const char *name, const char *value)
{
    buf_printf(out, ", \"%s\": ", name);
    buf_json_string(out, value);
}

static bool print_cfg(const char *path, const struct model_cfg *cfg, struct err *err)
{
    struct buf out;

    buf_init(&out, (size_t)1 << 30);
    buf_printf(&out,
               "{\"num_classes\": %d, \"image_size\": %d, \"batch_size\": %d, \"num_epochs\": %d, \"shuffle\": %d, "
               "\"lr\": %.17g",
               cfg->num_classes, cfg->image_size, cfg->batch_size, cfg->num_epochs, cfg->shuffle, cfg->lr);
    put_string(&out, "model", cfg->model);
    put_string(&out, "train", cfg->train);
    put_string(&out, "val", cfg->val);
    put_string(&out, "save_path", cfg->save_path);
    put_string(&out, "weights", cfg->weights);
    put_string(&out, "device", cfg->device);
    buf_puts(&out, ", \"class_names\": [");
    for (int i = 0; i < cfg->num_classes; i++) {
        buf_puts(&out, i ? ", " : "");
        buf_json_string(&out, cfg->class_names[i]);
    }
    buf_puts(&out, "]}\n");
    return print(path, &out, err);
}

static bool convert_cfg(const char *in, const char *out, struct err *err)
{
    struct model_cfg *cfg = NULL;
    bool ok = model_cfg_read(in, &cfg, err) &&
              (ends_in(out, ".json") ? print_cfg(out, cfg, err) : model_cfg_write(out, cfg, err));

    model_cfg_free(cfg);
    return ok;
}

static bool convert_checkpoint(const char *in, const char *out, struct err *err)
{
    struct state_dict *dict = NULL;
    bool ok = checkpoint_read(in, &dict, err);

    if (ok && ends_in(out, ".pth"))
        ok = pth_write(out, dict, err);
    else if (ok && ends_in(out, ".safetensors"))
        ok = safetensors_write(out, dict, err);
    else if (ok)
        ok = print_dict(out, dict, err);
    state_dict_free(dict);
    return ok;
}

int main(int argc, char **argv)
{
    struct err err = {0};

    if (argc != 3)
        return 2;
    if (!(ends_in(argv[1], ".yaml") ? convert_cfg : convert_checkpoint)(argv[1], argv[2], &err)) {
        fprintf(stderr, "%s: %s\n", err_kind_name(err.kind), err.message);
        return 1;
    }
    return 0;
}
