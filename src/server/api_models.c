/* api_models.c - the list of networks. Forecasting the memory of all of them takes a while, so that the answer is a
 * stream: one network for each pull, and the loop serves others between. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/api_internal.h"
#include "server/placement.h"
#include "task/catalog.h"

enum { PRECISION_MAX = 8 };

struct listing {
    const struct string_list *names; /* the setting's */
    struct catalog_query query;
    char precision[PRECISION_MAX];
    const char *backend;
    size_t next;
    bool begun;
};

static enum http_stream_state next_model(void *arg, struct buf *out)
{
    struct listing *listing = arg;
    const struct catalog_query *query = &listing->query;

    if (!listing->begun) {
        listing->begun = true;
        if (api_append_json(out, json_pack("{s:I, s:I, s:I, s:s, s:s, s:I}", "image_size",
                                           (json_int_t)query->image_size, "num_classes", (json_int_t)query->num_classes,
                                           "batch_size", (json_int_t)query->batch_size, "precision", listing->precision,
                                           "device", listing->backend, "total", (json_int_t)listing->names->count)))
            out->size--; /* without its brace */
        buf_puts(out, ",\"models\":[");
    } else if (listing->next < listing->names->count) {
        const char *name = listing->names->items[listing->next++];

        buf_puts(out, listing->next > 1 ? "," : "");
        if (!api_append_json(out, catalog_entry(name, query, listing->backend)))
            buf_puts(out, "null");
    } else {
        buf_puts(out, "]}");
        return HTTP_STREAM_END;
    }
    return HTTP_STREAM_MORE;
}

void api_models(struct http_request *request, void *app)
{
    static const struct http_stream_source source = {.next = next_model, .closed = free};
    struct api *api = app;
    struct device_set *devices = monitor_devices(api->options.monitor);
    struct catalog_query query;
    struct listing *listing;
    struct err err;

    if (!http_read_query(request, &catalog_table, &query))
        return;
    if (!catalog_check(&query, &err)) {
        api_reply_err(request, &err);
        return;
    }
    listing = calloc(1, sizeof *listing);
    if (!listing)
        return; /* answered as a failure */
    listing->names = &api->options.settings->supported_models;
    listing->query = query;
    snprintf(listing->precision, sizeof listing->precision, "%s", query.precision); /* one of the known */
    listing->query.precision = listing->precision;
    listing->backend = query.device && strcmp(query.device, "cpu") == 0 ? "cpu"
                       : query.device                                   ? "cuda"
                       : device_count(devices)                          ? placement_backend(device_get(devices, 0))
                                                                        : "cpu";
    listing->query.device = NULL; /* the request's */
    if (!http_stream_open(request, "application/json", &source, listing))
        free(listing);
}
