/* fuzz_model_cfg.c - YAML configurations. What is read and can be written (each class name once) comes back the same.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "formats/model_cfg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *a, const char *b)
{
    if (!a != !b || (a && strcmp(a, b) != 0))
        abort();
}

static void check_equal(const struct model_cfg *a, const struct model_cfg *b)
{
    check_text(a->model, b->model);
    check_text(a->train, b->train);
    check_text(a->val, b->val);
    check_text(a->save_path, b->save_path);
    check_text(a->weights, b->weights);
    check_text(a->device, b->device);
    if (a->num_classes != b->num_classes || a->image_size != b->image_size || a->batch_size != b->batch_size ||
        a->num_epochs != b->num_epochs || a->shuffle != b->shuffle || a->lr != b->lr)
        abort();
    for (int i = 0; i < a->num_classes; i++)
        check_text(a->class_names[i], b->class_names[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct model_cfg *cfg, *again;
    struct buf text;
    struct err err;

    if (!model_cfg_parse((const char *)data, size, &cfg, &err))
        return 0;
    buf_init(&text, 1 << 20);
    if (model_cfg_print(cfg, &text, &err)) {
        if (!model_cfg_parse(text.data, text.size, &again, &err))
            abort();
        check_equal(cfg, again);
        model_cfg_free(again);
    } else if (!strstr(err.message, "two classes")) {
        abort();
    }
    buf_release(&text);
    model_cfg_free(cfg);
    return 0;
}
