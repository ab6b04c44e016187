/* model_cfg_read.c - the reading half of model_cfg.h. libyaml makes a tree of at most a megabyte of text, in which an
 * alias is a reference and not a copy; only the root's keys and the class names are looked at. What would cost libyaml
 * quadratic time is bounded before. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/arena.h"
#include "formats/model_cfg.h"
#include "formats/source.h"

enum {
    FILE_MAX = 1 << 20,  /* bytes */
    ANCHORS_MAX = 100,   /* libyaml looks each alias up among the anchors, */
    BRACKETS_MAX = 1000, /* and each token up among the open brackets */
    CLASSES_MAX = 65536,
    IMAGE_SIZE_MAX = 16384,
    IMAGE_SIZE_DEFAULT = 224,
};

struct owned_cfg {
    struct model_cfg cfg; /* first, so that a pointer to it is one to the whole */
    struct arena *arena;
};

struct reader {
    yaml_document_t *document;
    struct model_cfg *cfg;
    struct arena *arena;
    const yaml_node_t *class_names; /* NULL until seen */
    struct err *err;
};

/* --- scalars ------------------------------------------------------------------------------------------------------ */

static size_t line_of(const yaml_node_t *node)
{
    return node->start_mark.line + 1;
}

static const char *scalar_text(const yaml_node_t *node)
{
    return (const char *)node->data.scalar.value;
}

/* A text without NUL inside? */
static bool is_text(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE && strlen(scalar_text(node)) == node->data.scalar.length;
}

static bool is_one_of(const char *text, const char *const *words)
{
    for (; *words; words++)
        if (strcmp(text, *words) == 0)
            return true;
    return false;
}

/* Nothing, as YAML says it, or as str(None) does. */
static bool is_null(const yaml_node_t *node)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", "None", NULL};

    return is_text(node) && is_one_of(scalar_text(node), nulls);
}

/* A whole decimal number, and nothing after it but blanks. */
static bool parse_int(const char *text, const char **end, long min, long max, int *ret)
{
    char *stop;
    long value;

    errno = 0;
    value = strtol(text, &stop, 10);
    if (stop == text || errno || value < min || value > max)
        return false;
    *end = stop + strspn(stop, " ");
    *ret = (int)value;
    return true;
}

static bool scalar_int(const yaml_node_t *node, long min, long max, int *ret)
{
    const char *end;
    int value;

    if (!is_text(node) || !parse_int(scalar_text(node), &end, min, max, &value) || *end)
        return false;
    *ret = value;
    return true;
}

/* --- values of keys: false when the node makes no sense for the key ----------------------------------------------- */

static bool take_string(struct reader *r, const yaml_node_t *node, void *out)
{
    char *copy = is_text(node) ? arena_strdup(r->arena, scalar_text(node)) : NULL;

    if (copy)
        *(const char **)out = copy;
    return copy;
}

static bool take_count(struct reader *r, const yaml_node_t *node, void *out)
{
    (void)r;
    return scalar_int(node, 1, INT32_MAX, out);
}

static bool take_classes(struct reader *r, const yaml_node_t *node, void *out)
{
    (void)r;
    return scalar_int(node, 1, CLASSES_MAX, out);
}

static bool take_float(struct reader *r, const yaml_node_t *node, void *out)
{
    char *end;
    double value;

    (void)r;
    if (!is_text(node))
        return false;
    value = strtod(scalar_text(node), &end);
    if (*end || end == scalar_text(node) || !(value > 0 && value < 1e300))
        return false;
    *(double *)out = value;
    return true;
}

static bool take_bool(struct reader *r, const yaml_node_t *node, void *out)
{
    static const char *const yes[] = {"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "1", NULL};

    (void)r;
    if (!is_text(node))
        return false;
    *(int *)out = is_one_of(scalar_text(node), yes);
    return true;
}

/* 224, the text "(224, 224)", or the list [224, 224]. */
static bool take_image_size(struct reader *r, const yaml_node_t *node, void *out)
{
    int width, height;

    if (node->type == YAML_SEQUENCE_NODE) {
        const yaml_node_item_t *items = node->data.sequence.items.start;
        ptrdiff_t n = node->data.sequence.items.top - items;

        if (n < 1 || n > 2 || !scalar_int(yaml_document_get_node(r->document, items[0]), 1, IMAGE_SIZE_MAX, &width) ||
            !scalar_int(yaml_document_get_node(r->document, items[n - 1]), 1, IMAGE_SIZE_MAX, &height))
            return false;
    } else {
        const char *p = is_text(node) ? scalar_text(node) : "";
        const char *close = *p == '(' ? ")" : *p == '[' ? "]" : "";

        p += *close != '\0';
        if (!parse_int(p, &p, 1, IMAGE_SIZE_MAX, &width))
            return false;
        height = width;
        if (*p == ',' && p[1 + strspn(p + 1, " ")] != *close && !parse_int(p + 1, &p, 1, IMAGE_SIZE_MAX, &height))
            return false;
        if (*p == ',')
            p += 1 + strspn(p + 1, " ");
        if (strcmp(p, close) != 0)
            return false;
    }
    *(int *)out = width;
    return width == height;
}

static bool take_class_names(struct reader *r, const yaml_node_t *node, void *out)
{
    (void)out;
    r->class_names = node;
    return node->type == YAML_SEQUENCE_NODE || node->type == YAML_MAPPING_NODE;
}

#define KEY(name, member, take, expected)                                                                              \
    {                                                                                                                  \
        name, offsetof(struct model_cfg, member), take, expected                                                       \
    }
static const struct key {
    const char *name;
    size_t offset;
    bool (*take)(struct reader *r, const yaml_node_t *node, void *out);
    const char *expected; /* NULL: of no use to an inference, so that a value without sense is no error */
} keys[] = {
    KEY("model", model, take_string, "a name such as resnet18"),
    KEY("num_classes", num_classes, take_classes, "a whole number from 1 to 65536"),
    KEY("class_names", class_names, take_class_names, "a list of names, or a map of name: index"),
    KEY("image_size", image_size, take_image_size, "one whole number such as 224, or (224, 224); images are square"),
    KEY("train", train, take_string, NULL),
    KEY("val", val, take_string, NULL),
    KEY("save_path", save_path, take_string, NULL),
    KEY("weights", weights, take_string, NULL),
    KEY("device", device, take_string, NULL),
    KEY("batch_size", batch_size, take_count, NULL),
    KEY("num_epochs", num_epochs, take_count, NULL),
    KEY("epochs", num_epochs, take_count, NULL),
    KEY("shuffle", shuffle, take_bool, NULL),
    KEY("lr", lr, take_float, NULL),
};

/* What a node is, for a message. */
static const char *describe(const yaml_node_t *node)
{
    return node->type == YAML_SEQUENCE_NODE  ? "a list"
           : node->type == YAML_MAPPING_NODE ? "a map"
           : is_text(node)                   ? scalar_text(node)
                                             : "a text with NUL";
}

static bool read_key(struct reader *r, const yaml_node_t *name, const yaml_node_t *value)
{
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const struct key *key = &keys[i];

        if (!is_text(name) || strcmp(scalar_text(name), key->name) != 0)
            continue;
        if (is_null(value) || key->take(r, value, (char *)r->cfg + key->offset) || !key->expected)
            return true;
        return err_set(r->err, ERR_INVALID, "line %zu: %s must be %s, not %.100s", line_of(value), key->name,
                       key->expected, describe(value));
    }
    return true; /* other keys are none of ours */
}

/* --- class names -------------------------------------------------------------------------------------------------- */

static bool take_class_name(struct reader *r, const yaml_node_t *node, const char **slot)
{
    if (!is_text(node) || node->data.scalar.length == 0)
        return err_set(r->err, ERR_INVALID, "line %zu: class_names: a name must be a text, not %.100s", line_of(node),
                       is_text(node) ? "empty" : describe(node));
    *slot = arena_strdup(r->arena, scalar_text(node));
    return *slot || err_set(r->err, ERR_MEMORY, "no memory for the class names");
}

static bool check_count(struct reader *r, ptrdiff_t count)
{
    if (count == r->cfg->num_classes)
        return true;
    return err_set(r->err, ERR_INVALID, "line %zu: class_names has %td names, but num_classes is %d",
                   line_of(r->class_names), count, r->cfg->num_classes);
}

static bool read_class_list(struct reader *r, const char **names)
{
    const yaml_node_item_t *items = r->class_names->data.sequence.items.start;

    if (!check_count(r, r->class_names->data.sequence.items.top - items))
        return false;
    for (int i = 0; i < r->cfg->num_classes; i++)
        if (!take_class_name(r, yaml_document_get_node(r->document, items[i]), &names[i]))
            return false;
    return true;
}

static bool read_class_map(struct reader *r, const char **names)
{
    const yaml_node_pair_t *pairs = r->class_names->data.mapping.pairs.start;

    if (!check_count(r, r->class_names->data.mapping.pairs.top - pairs))
        return false;
    for (int i = 0; i < r->cfg->num_classes; i++) {
        const yaml_node_t *name = yaml_document_get_node(r->document, pairs[i].key);
        const yaml_node_t *value = yaml_document_get_node(r->document, pairs[i].value);
        const char *text;
        int index;

        if (!take_class_name(r, name, &text))
            return false;
        if (!scalar_int(value, 0, r->cfg->num_classes - 1, &index))
            return err_set(r->err, ERR_INVALID,
                           "line %zu: class_names: \"%.100s\" must have an index from 0 to %d, not %.100s",
                           line_of(value), text, r->cfg->num_classes - 1, describe(value));
        if (names[index])
            return err_set(r->err, ERR_INVALID, "line %zu: class_names: index %d belongs to \"%.100s\" and \"%.100s\"",
                           line_of(value), index, names[index], text);
        names[index] = text;
    }
    return true;
}

static bool read_class_names(struct reader *r)
{
    const char **names = arena_alloc(r->arena, (size_t)r->cfg->num_classes * sizeof *names);

    if (!names)
        return err_set(r->err, ERR_MEMORY, "no memory for the class names");
    r->cfg->class_names = names;
    return r->class_names->type == YAML_SEQUENCE_NODE ? read_class_list(r, names) : read_class_map(r, names);
}

/* --- the document ------------------------------------------------------------------------------------------------- */

static bool read_root(struct reader *r)
{
    const yaml_node_t *root = yaml_document_get_root_node(r->document);

    if (!root)
        return err_set(r->err, ERR_INVALID, "is empty; expected keys such as model, num_classes, class_names");
    if (root->type != YAML_MAPPING_NODE)
        return err_set(r->err, ERR_INVALID, "line %zu: expected \"key: value\" lines (model, num_classes, class_names)",
                       line_of(root));
    for (const yaml_node_pair_t *pair = root->data.mapping.pairs.start; pair < root->data.mapping.pairs.top; pair++)
        if (!read_key(r, yaml_document_get_node(r->document, pair->key),
                      yaml_document_get_node(r->document, pair->value)))
            return false;
    if (!r->cfg->model)
        return err_set(r->err, ERR_INVALID, "model is missing, a name such as resnet18");
    if (!r->cfg->num_classes)
        return err_set(r->err, ERR_INVALID, "num_classes is missing, the number of classes");
    if (!r->class_names)
        return err_set(r->err, ERR_INVALID, "class_names is missing, a list of names or a map of name: index");
    if (!r->cfg->image_size)
        r->cfg->image_size = IMAGE_SIZE_DEFAULT;
    return read_class_names(r);
}

/* Says what libyaml found, and what people mostly mean. */
static bool syntax_error(const yaml_parser_t *parser, struct err *err)
{
    const char *problem = parser->problem ? parser->problem : "cannot be read", *hint = "";

    if (parser->error == YAML_MEMORY_ERROR)
        return err_set(err, ERR_MEMORY, "no memory to read it");
    if (parser->error == YAML_READER_ERROR)
        return err_set(err, ERR_INVALID, "byte %zu: %s; save the file as UTF-8", parser->problem_offset, problem);
    if (strstr(problem, "escape"))
        hint = "; write a Windows path without quotes";
    else if (strstr(problem, "cannot start any token"))
        hint = "; a tab? indent with blanks";
    return err_set(err, ERR_INVALID, "line %zu: %s%s", parser->problem_mark.line + 1, problem, hint);
}

static bool parse_yaml(const char *data, size_t size, yaml_document_t *document, struct err *err)
{
    yaml_parser_t parser;
    size_t anchors = 0, brackets = 0;
    bool ok;

    if (size > FILE_MAX)
        return err_set(err, ERR_TOO_LARGE, "has %zu bytes; at most %d are read", size, FILE_MAX);
    for (size_t i = 0; i < size; i++) {
        anchors += data[i] == '&';
        brackets += data[i] == '[' || data[i] == '{';
    }
    if (anchors > ANCHORS_MAX || brackets > BRACKETS_MAX)
        return err_set(err, ERR_INVALID, "has more than %d %s; no model configuration has",
                       anchors > ANCHORS_MAX ? ANCHORS_MAX : BRACKETS_MAX,
                       anchors > ANCHORS_MAX ? "anchors (&)" : "brackets ([ or {)");
    if (!yaml_parser_initialize(&parser))
        return err_set(err, ERR_MEMORY, "no memory to read it");
    yaml_parser_set_input_string(&parser, (const unsigned char *)data, size);
    ok = yaml_parser_load(&parser, document) || syntax_error(&parser, err);
    yaml_parser_delete(&parser);
    return ok;
}

bool model_cfg_parse(const char *data, size_t size, struct model_cfg **ret, struct err *err)
{
    struct arena *arena = arena_new(0);
    struct owned_cfg *owned = arena ? arena_alloc(arena, sizeof *owned) : NULL;
    struct reader r = {.arena = arena, .err = err};
    yaml_document_t document;
    bool ok;

    if (!owned) {
        arena_free(arena);
        return err_set(err, ERR_MEMORY, "no memory to read it");
    }
    owned->arena = arena;
    r.cfg = &owned->cfg;
    r.document = &document;
    ok = parse_yaml(data, size, &document, err);
    if (ok) {
        ok = read_root(&r);
        yaml_document_delete(&document);
    }
    if (ok)
        *ret = r.cfg;
    else
        arena_free(arena);
    return ok;
}

bool model_cfg_read(const char *path, struct model_cfg **ret, struct err *err)
{
    struct source source;
    char *data = NULL;
    bool ok = false;

    if (!source_open(&source, path, err))
        return err_prefix(err, "%s", path);
    if (source.size > FILE_MAX)
        err_set(err, ERR_TOO_LARGE, "has %llu bytes; no model configuration has more than %d",
                (unsigned long long)source.size, FILE_MAX);
    else if (!(data = malloc((size_t)source.size + 1)))
        err_set(err, ERR_MEMORY, "no memory to read it");
    else
        ok = source_read(&source, 0, (size_t)source.size, data, err) &&
             model_cfg_parse(data, (size_t)source.size, ret, err);
    free(data);
    source_close(&source);
    return ok || err_prefix(err, "%s", path);
}

struct model_cfg *model_cfg_free(struct model_cfg *cfg)
{
    if (cfg)
        arena_free(((struct owned_cfg *)cfg)->arena);
    return NULL;
}
