/* fuzz_body.c - request bodies: whatever JSON comes, each request table either fills its struct, or reports faults of
 * the documented form; what was read is inside its bounds and survives being written and read again. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/fields.h"
#include "base/text.h"
#include "server/api_internal.h"
#include "task/requests.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool truth)
{
    if (!truth)
        abort();
}

static void check_faults(const json_t *faults)
{
    const json_t *fault;
    size_t i;

    json_array_foreach(faults, i, fault)
    {
        const json_t *loc = json_object_get(fault, "loc");

        require(json_is_string(json_object_get(fault, "type")));
        require(json_is_string(json_object_get(fault, "msg")));
        require(json_object_get(fault, "input") != NULL);
        require(json_array_size(loc) >= 1 && !strcmp(json_string_value(json_array_get(loc, 0)), "body"));
    }
}

static void check_value(const struct field *field, const void *in)
{
    const void *member = (const char *)in + field->offset;
    double number;

    if (field->type == FIELD_STRING && *(const char *const *)member)
        require(text_is_utf8(*(const char *const *)member, strlen(*(const char *const *)member)));
    if (field->type != FIELD_INT && field->type != FIELD_FLOAT)
        return;
    number = field->type == FIELD_INT ? (double)*(const int64_t *)member : *(const double *)member;
    if (isnan(number)) {
        require(field->flags & FIELD_NULLABLE);
        return;
    }
    require(isfinite(number));
    if (field->flags & FIELD_HAS_MIN)
        require(field->flags & FIELD_EXCLUSIVE ? number > field->min : number >= field->min);
    if (field->flags & FIELD_HAS_MAX)
        require(number <= field->max);
}

static void read_by(const struct field_table *table, const json_t *body)
{
    struct arena *arena = arena_new(1 << 20);
    void *in = arena_alloc(arena, table->size), *again = arena_alloc(arena, table->size);
    json_t *faults = json_array(), *written;

    if (fields_read(table, body, "body", in, arena, faults)) {
        require(json_array_size(faults) == 0);
        for (size_t i = 0; i < table->count; i++)
            check_value(&table->fields[i], in);
        written = fields_write(table, in);
        require(written != NULL);
        /* the arena may have no room for a second copy */
        require(fields_read(table, written, "body", again, arena, faults) || json_array_size(faults) == 1);
        json_decref(written);
    } else {
        require(json_array_size(faults) > 0);
    }
    check_faults(faults);
    json_decref(faults);
    arena_free(arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct field_table *const tables[] = {&train_request_table, &infer_request_table,
                                                       &infer_batch_request_table, &api_config_table};
    json_t *body = json_loadb((const char *)data, size, JSON_DECODE_ANY, NULL);

    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        read_by(tables[i], body);
    json_decref(body);
    return 0;
}
