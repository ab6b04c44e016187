/* fields.h - one table per request (or message, or set of settings) that reads JSON, reports every fault in the API's
 * 422 form, writes JSON, makes the OpenAPI schema, and reads the command line and the environment.
 *
 *   struct train_request { const char *model; int64_t batch_size; double learning_rate; bool shuffle; };
 *   static const struct field train_fields[] = {
 *       FIELD(train_request, model,         STRING, .flags = FIELD_REQUIRED, .doc = "model name"),
 *       FIELD(train_request, batch_size,    INT,    .initial = "8", .min = 1, .flags = FIELD_HAS_MIN, .doc = "images
 * per step"), FIELD(train_request, learning_rate, FLOAT,  .initial = "0.0001", .flags = FIELD_HAS_MIN |
 * FIELD_EXCLUSIVE, .doc = "step size of Adam"),
 *   };
 */
#ifndef RFUAV_BASE_FIELDS_H
#define RFUAV_BASE_FIELDS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

struct string_list {
    size_t count;
    const char *const *items;
};

/* the C type of the member: STRING const char * (NULL: null), INT int64_t, BOOL bool, FLOAT double
 * (null: NAN when the field is nullable), STRING_LIST struct string_list (null: items NULL), OBJECT json_t * (kept
 * alive by the arena, NULL: null or absent) */
enum field_type { FIELD_STRING, FIELD_INT, FIELD_FLOAT, FIELD_BOOL, FIELD_STRING_LIST, FIELD_OBJECT };

enum field_flags {
    FIELD_REQUIRED = 1 << 0,  /* missing is a fault */
    FIELD_NULLABLE = 1 << 1,  /* null is accepted */
    FIELD_HAS_MIN = 1 << 2,   /* value ≥ min */
    FIELD_HAS_MAX = 1 << 3,   /* value ≤ max */
    FIELD_EXCLUSIVE = 1 << 4, /* min itself is refused: value > min */
    FIELD_RELATIVE = 1 << 5,  /* STRING: not absolute, no ".." part, refused with 422 otherwise */
    FIELD_SECRET = 1 << 6,    /* shown as *** */
};

struct field {
    const char *name;
    enum field_type type;
    size_t offset;
    const char *initial; /* the default as text ("8", "true", "cuda"); NULL: zero or null */
    double min, max;
    unsigned flags;
    const char *doc; /* one line for OpenAPI and --help */
};

#define FIELD(s, m, kind, ...)                                                                                         \
    {                                                                                                                  \
        .name = #m, .type = FIELD_##kind, .offset = offsetof(struct s, m), __VA_ARGS__                                 \
    }

struct field_table {
    const char *title; /* the schema's name in OpenAPI, "TrainingRequest" */
    const struct field *fields;
    size_t count;
    size_t size; /* of the struct */
};

#define FIELD_TABLE(name, s, rows)                                                                                     \
    {                                                                                                                  \
        .title = (name), .fields = (rows), .count = sizeof(rows) / sizeof *(rows), .size = sizeof(struct s)            \
    }

/* Fills *out from the JSON object with the lenient conversions of the contract ("4" and 4.0 are integers, …), defaults
 * for what is absent, unknown keys ignored. Every fault is appended to `faults` (a JSON array) as {type, loc, msg,
 * input[, ctx]}, loc beginning with `where` ("body" or "query"), in the table's order. A missing body (NULL or null)
 * and one that is no object are faults with loc [where]. Returns false when there was one. Strings live in the arena.
 */
bool fields_read(const struct field_table *table, const json_t *in, const char *where, void *out, struct arena *arena,
                 json_t *faults);

/* Appends one fault of that form; name NULL: loc [where]; input NULL: null; ctx may be NULL; steals neither. */
void fields_fault(json_t *faults, const char *type, const char *where, const char *name, const char *msg,
                  const json_t *input, json_t *ctx);

/* A new JSON object with every field; NULL without memory. */
json_t *fields_write(const struct field_table *table, const void *in);

/* A new JSON object: the OpenAPI 3.1 schema of the table. */
json_t *fields_schema(const struct field_table *table);

/* Sets *out to the defaults. */
bool fields_defaults(const struct field_table *table, void *out, struct arena *arena);

/* Reads `--batch-size 8`, `--batch-size=8`, `--shuffle`, `--no-shuffle` into *out (already filled with defaults).
 * Options that the table does not know are left in argv (compacted, *argc updated) for the caller. The error names the
 * option, the value and what is allowed. Required fields are not checked here. */
bool fields_args(const struct field_table *table, int *argc, char **argv, void *out, struct arena *arena,
                 struct err *err);

/* Sets one field from text, as from the environment or the command line (lists: JSON array or comma-separated). */
bool fields_set_text(const struct field *field, const char *text, void *out, struct arena *arena, struct err *err);

/* Appends one help line per field: --name VALUE, doc, default. */
void fields_help(const struct field_table *table, struct buf *out);

#endif
