/* settings.h - what the daemon can be told: environment variables, a file `.env` in the working folder (the
 * environment wins), and the options of `rfuav serve` (they win over both). One table; the names in upper case are the
 * variables. */
#ifndef RFUAV_SERVER_SETTINGS_H
#define RFUAV_SERVER_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/fields.h"

struct settings {
    const char *app_name, *version, *description, *environment;
    const char *host;
    int64_t port; /* 0: a free one */
    bool debug;   /* the same as log_level DEBUG */
    struct string_list cors_origins;
    int64_t max_training_concurrent_gpu, max_inference_concurrent_gpu;
    int64_t max_training_concurrent_cpu, max_inference_concurrent_cpu;
    int64_t default_train_priority, default_inference_priority;
    int64_t task_queue_size;
    const char *log_level; /* DEBUG, INFO, WARNING, ERROR */
    const char *log_file;  /* "": standard error */
    struct string_list supported_models;
    bool enable_gpu_selection; /* false: "cuda" is always cuda:0 */
    /* additions to the contract */
    const char *data_dir; /* never empty after loading */
    const char *devices;  /* device file, or "" */
    const char *api_key;  /* or "" */
    bool allow_unauthenticated;
    struct string_list data_roots; /* absolute; none: everything is allowed */
    const char *weights_dir;       /* or "" */
    int64_t cpu_threads;           /* a task may use; 0: all */
    int64_t keep_checkpoints;      /* default of the request's field; 0: all */
    int64_t cache_mb;              /* of decoded images a task; 0: a quarter of the free memory */
    const char *rfuav_lang;        /* zh, en, or "": by the locale */
};

extern const struct field_table settings_table;

/* Fills *ret (texts in the arena) and checks it; argv[0] is the subcommand, options that are not known are an error.
 * Unknown names in .env and such are told to warn(text). */
bool settings_load(int argc, char **argv, struct settings *ret, struct arena *arena, void (*warn)(const char *text),
                   struct err *err);

/* Is it an address or a name of this machine's loopback? */
bool settings_is_loopback(const char *host);

/* Is the path inside one of the data roots, links followed as far as it exists? True when there are none. */
bool settings_allow_path(const struct settings *settings, const char *path);

#endif
