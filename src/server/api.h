/* api.h - the HTTP contract: routes, requests and answers over store, dispatch and monitor. */
#ifndef RFUAV_SERVER_API_H
#define RFUAV_SERVER_API_H

#include <stdbool.h>
#include <uv.h>

#include "base/err.h"
#include "server/dispatch.h"
#include "server/monitor.h"
#include "server/settings.h"
#include "server/store.h"

struct api;

struct api_options {
    uv_loop_t *loop;
    const struct settings *settings;
    struct store *store;
    struct dispatch *dispatch;
    struct monitor *monitor;
};

/* Listens and answers from now on. Everything in the options must outlive the api. */
bool api_start(const struct api_options *options, struct api **ret, struct err *err);

const char *api_url(const struct api *api); /* "http://127.0.0.1:8000" */

/* Stops listening, ends streams and connections at once, stops using the store; frees itself in the loop's later
 * turns. */
void api_close(struct api *api);

#endif
