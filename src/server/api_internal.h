/* api_internal.h - inside the API: what its handlers share. */
#ifndef RFUAV_SERVER_API_INTERNAL_H
#define RFUAV_SERVER_API_INTERNAL_H

#include "base/buf.h"
#include "http/http.h"
#include "server/api.h"

enum { API_LIST_CACHE = 8, API_QUERY_MAX = 96, API_ANSWER_MAX = 512 << 20 };

/* A list of tasks as it was sent last for this query; good while the store's generation is the same. */
struct list_cache {
    char query[API_QUERY_MAX];
    uint64_t generation;
    struct http_page *page;
};

struct api {
    struct api_options options;
    struct http_server *server;
    struct arena *arena; /* tables, texts: as long as the api */
    char url[300];
    struct field_table training, inference, batch; /* the request tables with the settings' defaults */
    struct http_page *root, *openapi;
    struct held_start *held_first, **held_end; /* starts whose answers wait for the disk */
    struct list_cache lists[API_LIST_CACHE];
    size_t next_list;
    struct buf health;          /* the next answer */
    struct buf resource_status; /* part of it, of this moment: */
    uint64_t status_generation;
    size_t status_gpus;
};

/* ---- api.c ---- */

extern const struct http_route api_routes[];
extern const size_t api_route_count;

/* The table with the settings' defaults that belongs to one of task/requests.h; others as they are. */
const struct field_table *api_table(const struct api *api, const struct field_table *table);

/* 503 with Retry-After where that is the error's status, else http_reply_err(). */
void api_reply_err(struct http_request *request, const struct err *err);

/* ---- api_task.c: records ---- */

void api_task_json(struct buf *json, const struct store_task *task); /* a TaskResponse */

/* The seq of the task, if there is one of that id and kind; else it has been answered 404 with `missing`, a format with
 * the id. */
bool api_find_task(struct http_request *request, struct api *api, const char *kind, const char *missing,
                   int64_t *ret_seq);
const char *api_missing(void); /* "任务 %s 不存在" */

http_handler api_get_task, api_get_training, api_get_inference, api_list_tasks;
http_handler api_cancel_task, api_stop_training, api_delete_task;
extern const struct field_table api_list_table; /* the list's query */

/* ---- api_start.c ---- */

http_handler api_start_training, api_start_inference, api_start_batch;

/* Puts all starts that have arrived together to disk, then answers them: http_options.answer_held. */
void api_answer_held(void *app);

/* ---- api_logs.c ---- */

http_handler api_task_logs, api_training_logs;

/* ---- api_status.c ---- */

http_handler api_health, api_info, api_root;
bool api_status_open(struct api *api); /* the constant answers */

/* Appends the value as compact text; takes its reference, NULL is a failure. */
bool api_append_json(struct buf *buf, json_t *value);

/* ---- api_models.c ---- */

http_handler api_models;

/* ---- api_resources.c ---- */

http_handler api_resources, api_gpu, api_cpu, api_config;
extern const struct field_table api_config_table;
json_t *api_device_usage(const struct api *api);
json_t *api_active_tasks(const struct api *api);

/* ---- openapi.c ---- */

/* The OpenAPI 3.1 document of the routes; NULL without memory. */
json_t *openapi_document(const struct api *api, const struct http_route *routes, size_t n);
http_handler api_openapi;

#endif
