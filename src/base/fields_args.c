/* fields_args.c - a table as command-line options, environment variables and help. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fields_convert.h"
#include "base/text.h"

static const struct {
    const char *zh, *en;
} sentences[] = {{NULL, NULL},
#define X(name, msg, zh, en) {zh, en},
                 FAULTS(X)
#undef X
};

/* `a,b , c`, or a JSON array: a JSON array. */
static json_t *list_from_text(const char *text)
{
    json_t *list;

    if (text[strspn(text, " \t")] == '[')
        return json_loads(text, 0, NULL);
    list = json_array();
    while (*text) {
        size_t length = strcspn(text, ","), from = strspn(text, " \t"), to = length;

        while (to > from && (text[to - 1] == ' ' || text[to - 1] == '\t'))
            to--;
        if (to > from)
            json_array_append_new(list, json_stringn(text + from, to - from));
        text += length + (text[length] == ',');
    }
    return list;
}

static json_t *value_from_text(const struct field *field, const char *text)
{
    switch (field->type) {
    case FIELD_STRING_LIST:
        return list_from_text(text);
    case FIELD_OBJECT:
        return json_loads(text, 0, NULL);
    default:
        return json_string(text);
    }
}

static bool sentence(const struct field *field, const char *label, const struct fault *fault, const char *text,
                     struct err *err)
{
    const char *shown = field->flags & FIELD_SECRET ? "***" : text;
    char bound[32], must[128];

    field_bound_text(fault->bound, bound);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(must, sizeof must, tr(sentences[fault->kind].zh, sentences[fault->kind].en), bound);
#pragma GCC diagnostic pop
    return err_set(err, ERR_INVALID, tr("%s %s，而不是 \"%.200s\"", "%s %s, not \"%.200s\""), label, must, shown);
}

/* As fields_set_text(); `label` is what the error calls the field. */
static bool set_text(const struct field *field, const char *label, const char *text, void *out, struct arena *arena,
                     struct err *err)
{
    struct fault fault = {.index = SIZE_MAX};
    json_t *value;
    bool ok;

    if (!text_is_utf8(text, strlen(text)))
        return err_set(err, ERR_INVALID, tr("%s 必须是 UTF-8 文本", "%s must be UTF-8 text"), label);
    value = value_from_text(field, text);
    if (!value) {
        fault.kind = field->type == FIELD_OBJECT ? FAULT_dict_type : FAULT_list_type;
        return sentence(field, label, &fault, text, err);
    }
    ok = field_convert(field, value, out, arena, &fault);
    json_decref(value);
    if (!ok && fault.no_memory)
        return err_set(err, ERR_MEMORY, tr("%s: 内存不足", "%s: no memory"), label);
    return ok || sentence(field, label, &fault, text, err);
}

bool fields_set_text(const struct field *field, const char *text, void *out, struct arena *arena, struct err *err)
{
    return set_text(field, field->name, text, out, arena, err);
}

/* Does `option` (without its dashes, `length` bytes) name the field? '-' and '_' are the same. */
static bool names_field(const char *option, size_t length, const char *name)
{
    if (strlen(name) != length)
        return false;
    for (size_t i = 0; i < length; i++)
        if (name[i] != (option[i] == '-' ? '_' : option[i]))
            return false;
    return true;
}

static const struct field *find_field(const struct field_table *table, const char *option, size_t length)
{
    for (size_t i = 0; i < table->count; i++)
        if (names_field(option, length, table->fields[i].name))
            return &table->fields[i];
    return NULL;
}

/* Reads the option at argv[at]. *ret_used becomes the number of arguments that it took, 0 when it is not ours. */
static bool read_option(const struct field_table *table, int argc, char **argv, int at, void *out, struct arena *arena,
                        int *ret_used, struct err *err)
{
    const char *option = argv[at] + 2, *value = strchr(option, '=');
    size_t length = value ? (size_t)(value - option) : strlen(option);
    const struct field *field = find_field(table, option, length);

    char label[64];

    *ret_used = 0;
    snprintf(label, sizeof label, "--%.*s", (int)length, option);
    if (!field && !value && !strncmp(option, "no-", 3)) {
        field = find_field(table, option + 3, length - 3);
        if (!field || field->type != FIELD_BOOL)
            return true;
        *ret_used = 1;
        return set_text(field, label, "false", out, arena, err);
    }
    if (!field)
        return true;
    *ret_used = 1;
    if (value)
        return set_text(field, label, value + 1, out, arena, err);
    if (field->type == FIELD_BOOL)
        return set_text(field, label, "true", out, arena, err);
    if (at + 1 >= argc)
        return err_set(err, ERR_INVALID, tr("%s 后面缺少值", "%s needs a value after it"), label);
    *ret_used = 2;
    return set_text(field, label, argv[at + 1], out, arena, err);
}

bool fields_args(const struct field_table *table, int *argc, char **argv, void *out, struct arena *arena,
                 struct err *err)
{
    int kept = 0, i = 0;

    while (i < *argc) {
        int used = 0;

        if (!strcmp(argv[i], "--")) /* the rest are no options */
            break;
        if (!strncmp(argv[i], "--", 2) && !read_option(table, *argc, argv, i, out, arena, &used, err))
            return false;
        if (!used)
            argv[kept++] = argv[i++];
        i += used;
    }
    while (i < *argc)
        argv[kept++] = argv[i++];
    *argc = kept;
    return true;
}

void fields_help(const struct field_table *table, struct buf *out)
{
    static const char *const values[] = {
        [FIELD_STRING] = " TEXT",       [FIELD_INT] = " N",       [FIELD_FLOAT] = " X", [FIELD_BOOL] = "",
        [FIELD_STRING_LIST] = " A,B,…", [FIELD_OBJECT] = " JSON",
    };

    for (size_t i = 0; i < table->count; i++) {
        const struct field *field = &table->fields[i];
        char option[80];
        int pad;

        snprintf(option, sizeof option, "--%s%s%s", field->type == FIELD_BOOL ? "[no-]" : "", field->name,
                 values[field->type]);
        for (char *p = option + 2; *p && *p != ' '; p++)
            if (*p == '_')
                *p = '-';
        /* "…" is three bytes and one column */
        pad = 36 - (int)strlen(option) + (field->type == FIELD_STRING_LIST ? 2 : 0);
        buf_printf(out, "  %s%*s%s", option, pad > 1 ? pad : 1, "", field->doc ? field->doc : "");
        if (field->flags & FIELD_REQUIRED)
            buf_puts(out, tr(" (必需)", " (required)"));
        else if (field->initial && *field->initial)
            buf_printf(out, tr(" (默认 %s)", " (default %s)"), field->initial);
        buf_puts(out, "\n");
    }
}
