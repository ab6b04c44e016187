/* fields_convert.h - inside fields: from one JSON value to one member, and what can be wrong with it. */
#ifndef RFUAV_BASE_FIELDS_CONVERT_H
#define RFUAV_BASE_FIELDS_CONVERT_H

#include "base/fields.h"

/* name, message of the 422 form, what a command line says in Chinese and in English.
 * A %s is the bound in question. */
#define FAULTS(X)                                                                                                      \
    X(int_type, "Input should be a valid integer", "必须是整数", "must be a whole number")                             \
    X(int_parsing, "Input should be a valid integer, unable to parse string as an integer", "必须是整数",              \
      "must be a whole number")                                                                                        \
    X(int_from_float, "Input should be a valid integer, got a number with a fractional part", "必须是整数",            \
      "must be a whole number")                                                                                        \
    X(float_type, "Input should be a valid number", "必须是数字", "must be a number")                                  \
    X(float_parsing, "Input should be a valid number, unable to parse string as a number", "必须是数字",               \
      "must be a number")                                                                                              \
    X(finite_number, "Input should be a finite number", "必须是有限的数字", "must be a finite number")                 \
    X(string_type, "Input should be a valid string", "必须是文本", "must be text")                                     \
    X(bool_type, "Input should be a valid boolean", "必须是 true 或 false", "must be true or false")                   \
    X(bool_parsing, "Input should be a valid boolean, unable to interpret input", "必须是 true 或 false",              \
      "must be true or false")                                                                                         \
    X(list_type, "Input should be a valid list", "必须是列表", "must be a list")                                       \
    X(dict_type, "Input should be a valid dictionary", "必须是 JSON 对象", "must be a JSON object")                    \
    X(path_not_relative, "Input should be a relative path without '..'", "必须是不含 \"..\" 的相对路径",               \
      "must be a relative path without \"..\"")                                                                        \
    X(greater_than_equal, "Input should be greater than or equal to %s", "必须大于或等于 %s", "must be at least %s")   \
    X(greater_than, "Input should be greater than %s", "必须大于 %s", "must be greater than %s")                       \
    X(less_than_equal, "Input should be less than or equal to %s", "必须小于或等于 %s", "must be at most %s")

/* 2^63: the first number past int64_t */
#define FIELD_INT64_END 9223372036854775808.0

enum fault_kind {
    FAULT_NONE,
#define X(name, msg, zh, en) FAULT_##name,
    FAULTS(X)
#undef X
};

struct fault {
    enum fault_kind kind;
    double bound;        /* of the last three kinds */
    size_t index;        /* of the item in a list, SIZE_MAX: the value itself */
    const json_t *input; /* what is wrong: the value or the item */
    bool no_memory;      /* then kind is FAULT_NONE */
};

/* Converts `value` leniently and stores it in the field's member of *out. */
bool field_convert(const struct field *field, const json_t *value, void *out, struct arena *arena, struct fault *fault);

/* The bound as messages show it: 1, 0.1. */
void field_bound_text(double bound, char text[32]);

#endif
