/* fields_schema.c - a table as a JSON schema, in the form in which OpenAPI 3.1 documents of FastAPI have it. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/fields_convert.h"

/* "batch_size" → "Batch Size" */
static json_t *title_of(const char *name)
{
    char title[64];
    size_t n = 0;

    for (; n < sizeof title - 1 && name[n]; n++)
        title[n] = name[n] == '_'                 ? ' '
                   : n == 0 || name[n - 1] == '_' ? (char)toupper((unsigned char)name[n])
                                                  : name[n];
    return json_stringn(title, n);
}

static json_t *number_json(const struct field *field, double number)
{
    return field->type == FIELD_INT ? json_integer((json_int_t)number) : json_real(number);
}

/* The type with its bounds, null not considered. */
static json_t *type_schema(const struct field *field)
{
    static const char *const names[] = {
        [FIELD_STRING] = "string", [FIELD_INT] = "integer",       [FIELD_FLOAT] = "number",
        [FIELD_BOOL] = "boolean",  [FIELD_STRING_LIST] = "array", [FIELD_OBJECT] = "object",
    };
    json_t *schema = json_pack("{s:s}", "type", names[field->type]);
    const char *least = field->flags & FIELD_EXCLUSIVE ? "exclusiveMinimum" : "minimum";

    if (field->type == FIELD_STRING_LIST)
        json_object_set_new(schema, "items", json_pack("{s:s}", "type", "string"));
    if (field->type == FIELD_OBJECT)
        json_object_set_new(schema, "additionalProperties", json_true());
    if (field->flags & FIELD_HAS_MAX)
        json_object_set_new(schema, "maximum", number_json(field, field->max));
    if (field->flags & FIELD_HAS_MIN)
        json_object_set_new(schema, least, number_json(field, field->min));
    return schema;
}

/* The default as a value of the field's type; NULL: none to show. */
static json_t *default_json(const struct field *field)
{
    if (!field->initial || field->flags & FIELD_REQUIRED)
        return NULL;
    switch (field->type) {
    case FIELD_STRING:
        return json_string(field->initial);
    case FIELD_INT:
        return json_integer(strtoll(field->initial, NULL, 10));
    case FIELD_FLOAT:
        return json_real(strtod(field->initial, NULL));
    case FIELD_BOOL:
        return json_boolean(strcmp(field->initial, "true") == 0);
    case FIELD_STRING_LIST:
    case FIELD_OBJECT:
        return json_loads(field->initial, 0, NULL);
    }
    return NULL;
}

static json_t *property(const struct field *field)
{
    json_t *type = type_schema(field), *property = type, *initial = default_json(field);

    if (field->flags & FIELD_NULLABLE)
        property = json_pack("{s:[o,{s:s}]}", "anyOf", type, "type", "null");
    json_object_set_new(property, "title", title_of(field->name));
    if (field->doc)
        json_object_set_new(property, "description", json_string(field->doc));
    if (initial)
        json_object_set_new(property, "default", initial);
    return property;
}

json_t *fields_schema(const struct field_table *table)
{
    json_t *properties = json_object(), *required = json_array();
    json_t *schema = json_pack("{s:o, s:s}", "properties", properties, "type", "object");

    for (size_t i = 0; i < table->count; i++) {
        const struct field *field = &table->fields[i];

        json_object_set_new(properties, field->name, property(field));
        if (field->flags & FIELD_REQUIRED)
            json_array_append_new(required, json_string(field->name));
    }
    if (json_array_size(required))
        json_object_set(schema, "required", required);
    json_decref(required);
    json_object_set_new(schema, "title", json_string(table->title));
    return schema;
}
