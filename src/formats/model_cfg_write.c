/* model_cfg_write.c - the writing half of model_cfg.h, through libyaml's emitter: texts always in quotes, so that a
 * class called "yes", "007" or "#1: ä" comes back as that in any YAML reader. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/text.h"
#include "formats/file.h"
#include "formats/model_cfg.h"

enum { TEXT_MAX = 16 << 20 };

static int append(void *out, unsigned char *data, size_t size)
{
    buf_append(out, data, size);
    return !((struct buf *)out)->failed;
}

static bool emit(yaml_emitter_t *emitter, yaml_event_t *event, int made)
{
    return made && yaml_emitter_emit(emitter, event);
}

static bool put_scalar(yaml_emitter_t *emitter, const char *text, yaml_scalar_style_t style)
{
    bool plain = style == YAML_PLAIN_SCALAR_STYLE;
    yaml_event_t event;

    return emit(emitter, &event,
                yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text, (int)strlen(text), plain,
                                             !plain, style));
}

static bool put_plain(yaml_emitter_t *emitter, const char *text)
{
    return put_scalar(emitter, text, YAML_PLAIN_SCALAR_STYLE);
}

static bool put_string(yaml_emitter_t *emitter, const char *key, const char *value)
{
    return !value || (put_plain(emitter, key) && put_scalar(emitter, value, YAML_SINGLE_QUOTED_SCALAR_STYLE));
}

static bool put_int(yaml_emitter_t *emitter, const char *key, int value)
{
    char text[16];

    snprintf(text, sizeof text, "%d", value);
    return !value || (put_plain(emitter, key) && put_plain(emitter, text));
}

/* The shortest decimal that reads back as the same number. YAML 1.1 wants a point in it: 1.0e-05. */
static bool put_float(yaml_emitter_t *emitter, const char *key, double value)
{
    char text[40], *exponent;
    int digits = 1;

    if (value == 0 || !isfinite(value))
        return true;
    do
        snprintf(text, sizeof text, "%.*g", digits, value);
    while (strtod(text, NULL) != value && ++digits <= 17);
    exponent = strchr(text, 'e');
    if (!strchr(text, '.')) {
        char tail[8] = "";

        if (exponent) {
            snprintf(tail, sizeof tail, "%s", exponent);
            *exponent = '\0';
        }
        snprintf(text + strlen(text), sizeof text - strlen(text), ".0%s", tail);
    }
    return put_plain(emitter, key) && put_plain(emitter, text);
}

static bool put_class_names(yaml_emitter_t *emitter, const struct model_cfg *cfg)
{
    yaml_event_t event;
    char index[16];

    if (!put_plain(emitter, "class_names") ||
        !emit(emitter, &event, yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE)))
        return false;
    for (int i = 0; i < cfg->num_classes; i++) {
        snprintf(index, sizeof index, "%d", i);
        if (!put_scalar(emitter, cfg->class_names[i], YAML_SINGLE_QUOTED_SCALAR_STYLE) || !put_plain(emitter, index))
            return false;
    }
    return emit(emitter, &event, yaml_mapping_end_event_initialize(&event));
}

static bool put_document(yaml_emitter_t *emitter, const struct model_cfg *cfg)
{
    yaml_event_t event;

    return emit(emitter, &event, yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING)) &&
           emit(emitter, &event, yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1)) &&
           emit(emitter, &event,
                yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE)) &&
           put_string(emitter, "model", cfg->model) && put_int(emitter, "num_classes", cfg->num_classes) &&
           put_class_names(emitter, cfg) && put_int(emitter, "image_size", cfg->image_size) &&
           put_string(emitter, "device", cfg->device) && put_int(emitter, "batch_size", cfg->batch_size) &&
           (!cfg->shuffle || (put_plain(emitter, "shuffle") && put_plain(emitter, "true"))) &&
           put_int(emitter, "num_epochs", cfg->num_epochs) && put_float(emitter, "lr", cfg->lr) &&
           put_string(emitter, "train", cfg->train) && put_string(emitter, "val", cfg->val) &&
           put_string(emitter, "save_path", cfg->save_path) && put_string(emitter, "weights", cfg->weights) &&
           emit(emitter, &event, yaml_mapping_end_event_initialize(&event)) &&
           emit(emitter, &event, yaml_document_end_event_initialize(&event, 1)) &&
           emit(emitter, &event, yaml_stream_end_event_initialize(&event));
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Are the names such that a map of name: index holds them all? */
static bool check_class_names(const struct model_cfg *cfg, struct err *err)
{
    size_t n = (size_t)cfg->num_classes;
    const char **sorted = malloc((n + 1) * sizeof *sorted);
    bool ok = true;

    if (!sorted)
        return err_set(err, ERR_MEMORY, "no memory for %zu class names", n);
    for (size_t i = 0; ok && i < n; i++) {
        sorted[i] = cfg->class_names[i];
        if (!*sorted[i] || !text_is_utf8(sorted[i], strlen(sorted[i])))
            ok = err_set(err, ERR_INVALID, "the name of class %zu is empty or not UTF-8", i);
    }
    if (ok)
        qsort(sorted, n, sizeof *sorted, by_text);
    for (size_t i = 1; ok && i < n; i++)
        if (strcmp(sorted[i - 1], sorted[i]) == 0)
            ok = err_set(err, ERR_INVALID, "two classes have the name \"%.100s\"", sorted[i]);
    free(sorted);
    return ok;
}

bool model_cfg_print(const struct model_cfg *cfg, struct buf *out, struct err *err)
{
    yaml_emitter_t emitter;
    bool ok;

    if (!check_class_names(cfg, err))
        return false;
    if (!yaml_emitter_initialize(&emitter))
        return err_set(err, ERR_MEMORY, "no memory to write it");
    yaml_emitter_set_output(&emitter, append, out);
    yaml_emitter_set_unicode(&emitter, 1);
    yaml_emitter_set_width(&emitter, -1);
    ok = put_document(&emitter, cfg);
    if (!ok)
        err_set(err, ERR_INVALID, "cannot be written as YAML: %s", emitter.problem ? emitter.problem : "no memory");
    yaml_emitter_delete(&emitter);
    return ok;
}

static bool write_content(int fd, const void *arg, struct err *err)
{
    struct iovec piece;
    struct buf text;
    bool ok;

    buf_init(&text, TEXT_MAX);
    ok = model_cfg_print(arg, &text, err);
    piece = (struct iovec){text.data, text.size};
    ok = ok && file_write_pieces(fd, &piece, 1, err);
    buf_release(&text);
    return ok;
}

bool model_cfg_write(const char *path, const struct model_cfg *cfg, struct err *err)
{
    return file_replace(path, write_content, cfg, err);
}
