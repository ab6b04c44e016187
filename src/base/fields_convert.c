/* fields_convert.c - the lenient conversions of the contract, as pydantic 2 has them in its lax mode. */
#include "base/fields_convert.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { LONGEST_NUMBER = 400 };

static const double int64_end = FIELD_INT64_END;

static bool refuse(struct fault *fault, enum fault_kind kind, double bound)
{
    fault->kind = kind;
    fault->bound = bound;
    return false;
}

static bool no_memory(struct fault *fault)
{
    fault->no_memory = true;
    return false;
}

static void *member(const struct field *field, void *out)
{
    return (char *)out + field->offset;
}

/* Copies a number's text without the blanks around it and without single underscores between digits; false when an
 * underscore stands elsewhere or the text is too long for a number. */
static bool clean_number(const char *text, char clean[LONGEST_NUMBER])
{
    size_t length = strlen(text), n = 0;

    while (length && isspace((unsigned char)*text))
        text++, length--;
    while (length && isspace((unsigned char)text[length - 1]))
        length--;
    if (!length || length >= LONGEST_NUMBER)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (text[i] != '_')
            clean[n++] = text[i];
        else if (!i || i + 1 == length || !isdigit((unsigned char)text[i - 1]) || !isdigit((unsigned char)text[i + 1]))
            return false;
    }
    clean[n] = '\0';
    return true;
}

/* "4", "-4", "+4", "4.0", "1_000", blanks around. A number beyond int64 comes out as the nearest end of its range,
 * which every bound refuses. */
static bool parse_int(const char *text, int64_t *ret, bool *ret_too_large)
{
    char clean[LONGEST_NUMBER], *end;
    const char *digits = clean;
    size_t count;

    if (!clean_number(text, clean))
        return false;
    digits += *digits == '+' || *digits == '-';
    count = strspn(digits, "0123456789");
    if (!count)
        return false;
    if (digits[count] == '.' && digits[count + 1 + strspn(digits + count + 1, "0")] != '\0')
        return false;
    if (digits[count] != '.' && digits[count] != '\0')
        return false;
    errno = 0;
    *ret = strtoll(clean, &end, 10);
    *ret_too_large = errno == ERANGE;
    return true;
}

/* Decimal numbers as JSON and Rust know them; inf and nan are recognised so that they get an answer of their own. */
static enum fault_kind parse_float(const char *text, double *ret)
{
    char clean[LONGEST_NUMBER], *end;
    const char *word = clean;

    if (!clean_number(text, clean))
        return FAULT_float_parsing;
    word += *word == '+' || *word == '-';
    if (!strcasecmp(word, "inf") || !strcasecmp(word, "infinity") || !strcasecmp(word, "nan"))
        return FAULT_finite_number;
    if (word[strspn(word, "0123456789.eE+-")])
        return FAULT_float_parsing; /* strtod would read hexadecimal */
    *ret = strtod(clean, &end);
    if (end == clean || *end)
        return FAULT_float_parsing;
    return isfinite(*ret) ? FAULT_NONE : FAULT_finite_number;
}

static bool parse_bool(const char *text, bool *ret)
{
    static const char *const words[] = {"false", "true", "f", "t", "no", "yes", "n", "y", "off", "on", "0", "1"};

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcasecmp(text, words[i])) {
            *ret = i & 1;
            return true;
        }
    return false;
}

static bool check_bounds(const struct field *field, double value, struct fault *fault)
{
    if (field->flags & FIELD_HAS_MAX && value > field->max)
        return refuse(fault, FAULT_less_than_equal, field->max);
    if (field->flags & FIELD_HAS_MIN && field->flags & FIELD_EXCLUSIVE && value <= field->min)
        return refuse(fault, FAULT_greater_than, field->min);
    if (field->flags & FIELD_HAS_MIN && value < field->min)
        return refuse(fault, FAULT_greater_than_equal, field->min);
    return true;
}

static bool convert_int(const struct field *field, const json_t *value, void *out, struct fault *fault)
{
    int64_t number = 0;
    double real;
    bool too_large = false;

    switch (json_typeof(value)) {
    case JSON_INTEGER:
        number = json_integer_value(value);
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        number = json_is_true(value);
        break;
    case JSON_REAL:
        real = json_real_value(value);
        if (real != floor(real))
            return refuse(fault, FAULT_int_from_float, 0);
        too_large = !(real >= -int64_end && real < int64_end);
        number = too_large ? (real < 0 ? INT64_MIN : INT64_MAX) : (int64_t)real;
        break;
    case JSON_STRING:
        if (!parse_int(json_string_value(value), &number, &too_large))
            return refuse(fault, FAULT_int_parsing, 0);
        break;
    default:
        return refuse(fault, FAULT_int_type, 0);
    }
    if (!check_bounds(field, (double)number, fault))
        return false;
    if (too_large)
        return refuse(fault, number < 0 ? FAULT_greater_than_equal : FAULT_less_than_equal,
                      number < 0 ? -int64_end : int64_end);
    *(int64_t *)member(field, out) = number;
    return true;
}

static bool convert_float(const struct field *field, const json_t *value, void *out, struct fault *fault)
{
    enum fault_kind kind;
    double number;

    switch (json_typeof(value)) {
    case JSON_INTEGER:
    case JSON_REAL:
        number = json_number_value(value);
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        number = json_is_true(value);
        break;
    case JSON_STRING:
        kind = parse_float(json_string_value(value), &number);
        if (kind)
            return refuse(fault, kind, 0);
        break;
    default:
        return refuse(fault, FAULT_float_type, 0);
    }
    if (!isfinite(number))
        return refuse(fault, FAULT_finite_number, 0);
    if (!check_bounds(field, number, fault))
        return false;
    *(double *)member(field, out) = number;
    return true;
}

static bool convert_bool(const struct field *field, const json_t *value, void *out, struct fault *fault)
{
    double number;
    bool truth;

    switch (json_typeof(value)) {
    case JSON_TRUE:
    case JSON_FALSE:
        truth = json_is_true(value);
        break;
    case JSON_INTEGER:
    case JSON_REAL:
        number = json_number_value(value);
        if (number != floor(number))
            return refuse(fault, FAULT_bool_type, 0);
        if (number != 0 && number != 1)
            return refuse(fault, FAULT_bool_parsing, 0);
        truth = number == 1;
        break;
    case JSON_STRING:
        if (!parse_bool(json_string_value(value), &truth))
            return refuse(fault, FAULT_bool_parsing, 0);
        break;
    default:
        return refuse(fault, FAULT_bool_type, 0);
    }
    *(bool *)member(field, out) = truth;
    return true;
}

/* Does a ".." stand among the path's parts, or is it absolute? */
static bool leaves_folder(const char *path)
{
    const char *part = path;

    if (*path == '/')
        return true;
    for (;;) {
        size_t length = strcspn(part, "/");

        if (length == 2 && part[0] == '.' && part[1] == '.')
            return true;
        if (!part[length])
            return false;
        part += length + 1;
    }
}

static bool convert_string(const struct field *field, const json_t *value, void *out, struct arena *arena,
                           struct fault *fault)
{
    const char *copy;

    if (!json_is_string(value))
        return refuse(fault, FAULT_string_type, 0);
    if (field->flags & FIELD_RELATIVE && leaves_folder(json_string_value(value)))
        return refuse(fault, FAULT_path_not_relative, 0);
    copy = arena_strdup(arena, json_string_value(value));
    if (!copy)
        return no_memory(fault);
    *(const char **)member(field, out) = copy;
    return true;
}

static bool convert_string_list(const struct field *field, const json_t *value, void *out, struct arena *arena,
                                struct fault *fault)
{
    struct string_list *list = member(field, out);
    size_t count = json_array_size(value);
    const char **items;

    if (!json_is_array(value))
        return refuse(fault, FAULT_list_type, 0);
    items = arena_alloc(arena, (count ? count : 1) * sizeof *items);
    if (!items)
        return no_memory(fault);
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(value, i);

        if (!json_is_string(item)) {
            fault->index = i;
            fault->input = item;
            return refuse(fault, FAULT_string_type, 0);
        }
        items[i] = arena_strdup(arena, json_string_value(item));
        if (!items[i])
            return no_memory(fault);
    }
    *list = (struct string_list){count, items};
    return true;
}

static void release_json(void *value)
{
    json_decref(value);
}

static bool convert_object(const struct field *field, const json_t *value, void *out, struct arena *arena,
                           struct fault *fault)
{
    json_t *kept = (json_t *)value;

    if (!json_is_object(value))
        return refuse(fault, FAULT_dict_type, 0);
    if (!arena_defer(arena, release_json, json_incref(kept)))
        return no_memory(fault);
    *(json_t **)member(field, out) = kept;
    return true;
}

static void store_null(const struct field *field, void *out)
{
    switch (field->type) {
    case FIELD_STRING:
        *(const char **)member(field, out) = NULL;
        break;
    case FIELD_INT:
        *(int64_t *)member(field, out) = 0;
        break;
    case FIELD_FLOAT:
        *(double *)member(field, out) = NAN;
        break;
    case FIELD_BOOL:
        *(bool *)member(field, out) = false;
        break;
    case FIELD_STRING_LIST:
        *(struct string_list *)member(field, out) = (struct string_list){0, NULL};
        break;
    case FIELD_OBJECT:
        *(json_t **)member(field, out) = NULL;
        break;
    }
}

bool field_convert(const struct field *field, const json_t *value, void *out, struct arena *arena, struct fault *fault)
{
    *fault = (struct fault){.index = SIZE_MAX, .input = value};
    if (json_is_null(value) && field->flags & FIELD_NULLABLE) {
        store_null(field, out);
        return true;
    }
    switch (field->type) {
    case FIELD_STRING:
        return convert_string(field, value, out, arena, fault);
    case FIELD_INT:
        return convert_int(field, value, out, fault);
    case FIELD_FLOAT:
        return convert_float(field, value, out, fault);
    case FIELD_BOOL:
        return convert_bool(field, value, out, fault);
    case FIELD_STRING_LIST:
        return convert_string_list(field, value, out, arena, fault);
    case FIELD_OBJECT:
        return convert_object(field, value, out, arena, fault);
    }
    return no_memory(fault);
}

void field_bound_text(double bound, char text[32])
{
    if (bound == floor(bound) && fabs(bound) < 0x1p53)
        snprintf(text, 32, "%.0f", bound);
    else if (fabs(bound) >= int64_end)
        snprintf(text, 32, "%lld", bound < 0 ? (long long)INT64_MIN : (long long)INT64_MAX);
    else
        snprintf(text, 32, "%.12g", bound);
}
