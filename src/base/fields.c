/* fields.c - JSON in and out by a table, and the 422 form of what is wrong. */
#include "base/fields.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fields_convert.h"

static const struct {
    const char *type, *msg;
} fault_texts[] = {{NULL, NULL},
#define X(name, msg, zh, en) {#name, msg},
                   FAULTS(X)
#undef X
};

static void append_fault(json_t *faults, const char *type, json_t *loc, const char *msg, const json_t *input,
                         json_t *ctx)
{
    json_t *fault = json_object();

    json_object_set_new(fault, "type", json_string(type));
    json_object_set_new(fault, "loc", loc);
    json_object_set_new(fault, "msg", json_string(msg));
    if (input)
        json_object_set(fault, "input", (json_t *)input);
    else
        json_object_set_new(fault, "input", json_null());
    if (ctx)
        json_object_set(fault, "ctx", ctx);
    json_array_append_new(faults, fault);
}

static json_t *location(const char *where, const char *name)
{
    json_t *loc = json_array();

    json_array_append_new(loc, json_string(where));
    if (name)
        json_array_append_new(loc, json_string(name));
    return loc;
}

void fields_fault(json_t *faults, const char *type, const char *where, const char *name, const char *msg,
                  const json_t *input, json_t *ctx)
{
    append_fault(faults, type, location(where, name), msg, input, ctx);
}

/* Float fields show their bound as a float, the others as an integer. */
static json_t *bound_json(const struct field *field, double bound)
{
    if (field->type == FIELD_FLOAT)
        return json_real(bound);
    return json_integer(bound >= FIELD_INT64_END   ? INT64_MAX
                        : bound < -FIELD_INT64_END ? INT64_MIN
                                                   : (json_int_t)bound);
}

static void report(json_t *faults, const struct field *field, const char *where, const struct fault *fault)
{
    json_t *loc = location(where, field->name), *ctx = NULL;
    char bound[32], msg[128];

    if (fault->index != SIZE_MAX)
        json_array_append_new(loc, json_integer((json_int_t)fault->index));
    field_bound_text(fault->bound, bound);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(msg, sizeof msg, fault_texts[fault->kind].msg, bound);
#pragma GCC diagnostic pop
    if (fault->kind == FAULT_greater_than_equal)
        ctx = json_pack("{s:o}", "ge", bound_json(field, fault->bound));
    else if (fault->kind == FAULT_greater_than)
        ctx = json_pack("{s:o}", "gt", bound_json(field, fault->bound));
    else if (fault->kind == FAULT_less_than_equal)
        ctx = json_pack("{s:o}", "le", bound_json(field, fault->bound));
    append_fault(faults, fault_texts[fault->kind].type, loc, msg, fault->input, ctx);
    json_decref(ctx);
}

/* The wrong items of a list after the first wrong one. */
static void report_items(json_t *faults, const struct field *field, const char *where, const json_t *list, size_t first)
{
    enum { MOST = 100 };
    struct fault fault = {.kind = FAULT_string_type};
    int reported = 1;

    if (first == SIZE_MAX)
        return;
    for (size_t i = first + 1; i < json_array_size(list) && reported < MOST; i++) {
        fault.index = i;
        fault.input = json_array_get(list, i);
        if (!json_is_string(fault.input)) {
            report(faults, field, where, &fault);
            reported++;
        }
    }
}

bool fields_read(const struct field_table *table, const json_t *in, const char *where, void *out, struct arena *arena,
                 json_t *faults)
{
    size_t before = json_array_size(faults);

    if (!in || json_is_null(in)) {
        fields_fault(faults, "missing", where, NULL, "Field required", NULL, NULL);
        return false;
    }
    if (!json_is_object(in)) {
        fields_fault(faults, "model_attributes_type", where, NULL,
                     "Input should be a valid dictionary or object to extract fields from", in, NULL);
        return false;
    }
    if (!fields_defaults(table, out, arena))
        goto no_memory;
    for (size_t i = 0; i < table->count; i++) {
        const struct field *field = &table->fields[i];
        const json_t *value = json_object_get(in, field->name);
        struct fault fault;

        if (!value) {
            if (field->flags & FIELD_REQUIRED)
                fields_fault(faults, "missing", where, field->name, "Field required", in, NULL);
            continue;
        }
        if (field_convert(field, value, out, arena, &fault))
            continue;
        if (fault.no_memory)
            goto no_memory;
        report(faults, field, where, &fault);
        report_items(faults, field, where, value, fault.index);
    }
    return json_array_size(faults) == before;

no_memory:
    fields_fault(faults, "too_large", where, NULL, "The request needs more memory than the service may use for one",
                 NULL, NULL);
    return false;
}

bool fields_defaults(const struct field_table *table, void *out, struct arena *arena)
{
    json_t *null = json_null();
    struct fault fault;

    memset(out, 0, table->size);
    for (size_t i = 0; i < table->count; i++) {
        struct field nullable = table->fields[i];

        nullable.flags |= FIELD_NULLABLE;
        field_convert(&nullable, null, out, arena, &fault);
        if (nullable.initial && !fields_set_text(&table->fields[i], nullable.initial, out, arena, NULL))
            return false;
    }
    return true;
}

static json_t *list_json(const struct string_list *list)
{
    json_t *array = json_array();

    for (size_t i = 0; i < list->count; i++)
        json_array_append_new(array, json_string(list->items[i]));
    return array;
}

static json_t *value_json(const struct field *field, const void *in)
{
    const void *member = (const char *)in + field->offset;
    const char *text;
    json_t *object;

    switch (field->type) {
    case FIELD_STRING:
        text = *(const char *const *)member;
        if (text && *text && field->flags & FIELD_SECRET)
            text = "***";
        return text ? json_string(text) : json_null();
    case FIELD_INT:
        return json_integer(*(const int64_t *)member);
    case FIELD_FLOAT:
        return isfinite(*(const double *)member) ? json_real(*(const double *)member) : json_null();
    case FIELD_BOOL:
        return json_boolean(*(const bool *)member);
    case FIELD_STRING_LIST:
        /* a nullable list without items pointer was null */
        if (field->flags & FIELD_NULLABLE && !((const struct string_list *)member)->items)
            return json_null();
        return list_json(member);
    case FIELD_OBJECT:
        object = *(json_t *const *)member;
        return object ? json_incref(object) : json_null();
    }
    return NULL;
}

json_t *fields_write(const struct field_table *table, const void *in)
{
    json_t *object = json_object();

    for (size_t i = 0; i < table->count; i++)
        if (json_object_set_new(object, table->fields[i].name, value_json(&table->fields[i], in)) < 0) {
            json_decref(object);
            return NULL;
        }
    return object;
}
