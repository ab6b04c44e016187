/* catalog.h - what can be trained and used here, for `rfuav models` and GET /api/v2/models: every network with its
 * size, its cost, and the memory that it takes. */
#ifndef RFUAV_TASK_CATALOG_H
#define RFUAV_TASK_CATALOG_H

#include <jansson.h>

#include "base/err.h"
#include "base/fields.h"

struct catalog_query {
    int64_t image_size, num_classes, batch_size;
    const char *precision; /* see PRECISIONS (requests.h) */
    const char *device;    /* "cuda" or "cpu"; NULL: whoever asks decides */
};

extern const struct field_table catalog_table; /* "ModelsQuery" */

/* Is what the query asks for known? */
bool catalog_check(const struct catalog_query *query, struct err *err);

/* One network as {name, class_name, parameters, flops, training_memory_mb, inference_memory_mb, note}; a new reference,
 * NULL without memory. backend: "cuda" or "cpu". Numbers that the image size does not allow are null, and `note` says
 * which sizes do; it is null otherwise. Takes some milliseconds. */
json_t *catalog_entry(const char *model, const struct catalog_query *query, const char *backend);

#endif
