/* service.h - what the subcommands share: where the service is, asking it for JSON, and plain words for what fails. */
#ifndef RFUAV_CLI_SERVICE_H
#define RFUAV_CLI_SERVICE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/err.h"
#include "cli/http_client.h"

struct service {
    struct http_client *client;
};

/* Takes --url and --api-key from argv; else RFUAV_URL and RFUAV_API_KEY; else http://127.0.0.1:8000. */
bool service_open(struct service *service, int *argc, char **argv, struct err *err);
void service_close(struct service *service);

/* Asks and returns the answer as JSON, a new reference; NULL with *err set to the service's own words for a status of
 * 400 and up (404: ERR_NOT_FOUND, 409: ERR_CONFLICT, else ERR_REQUEST), or to what is wrong with the connection, with
 * a hint how to start the service. body may be NULL; its reference is taken. */
json_t *service_call(struct service *service, const char *method, const char *path, json_t *body, struct err *err);

/* The words of an error answer: `detail` as text, or the list of faults of a 422 as one line each. */
void service_explain(int status, const char *body, struct err *err);

/* Adds to a failure to connect how the service is started. */
bool service_hint(const struct service *service, struct err *err);

/* "/api/v2/tasks/{id}{tail}" with the id percent-encoded, in a buffer of the caller. */
void service_task_path(struct buf *path, const char *id, const char *tail);

/* The help lines of --url, --api-key and --json. */
void service_help(FILE *out);

/* Prints "rfuav COMMAND: message" on standard error and returns 1, or 2 for wrong usage. */
int service_fail(const char *command, const struct err *err);

/* Prints JSON indented, for --json. */
void service_print_json(const json_t *value);

/* Columns of the terminal on standard output; 0 when it is no terminal. */
size_t terminal_width(void);

/* A text or number of an object, with a fallback for absent, null and other types. */
const char *json_text(const json_t *object, const char *key, const char *fallback);
double json_double(const json_t *object, const char *key, double fallback);

#endif
