/* requests.h - what a client asks for, one struct and one field table per request; used by the API, the command line,
 * the OpenAPI document and the worker alike. */
#ifndef RFUAV_TASK_REQUESTS_H
#define RFUAV_TASK_REQUESTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/fields.h"

/* What a network computes in: fp32 (on GPUs with TF32 where PyTorch's default has it), or bf16, which keeps weights and
 * statistics in fp32; the CPU takes fp32 for both. */
#define PRECISIONS "fp32", "bf16"

struct train_request {
    const char *model;
    int64_t num_classes;
    const char *train_path, *val_path, *save_path, *name;
    int64_t batch_size, num_epochs;
    double learning_rate;
    int64_t image_size;
    const char *device, *weight_path;
    bool pretrained, shuffle;
    const char *task_id;
    int64_t priority;
    const char *description;
    /* additions to the contract */
    int64_t seed;             /* negative: from the operating system */
    int64_t keep_checkpoints; /* epoch files kept; 0: all */
    const char *precision;    /* see PRECISIONS */
    bool deterministic;       /* nothing that a timing decides, see net.h */
};

struct infer_request {
    const char *cfg_path, *weight_path, *source_path, *save_path, *name, *device, *task_id;
    int64_t priority;
    /* additions to the contract */
    int64_t batch_size;    /* images per step; 0: chosen by the service */
    const char *precision; /* see PRECISIONS */
};

struct infer_batch_request {
    const char *cfg_path, *weight_path;
    struct string_list source_paths;
    const char *save_base_path, *device;
    int64_t priority;
    /* an addition to the contract */
    const char *precision; /* see PRECISIONS */
};

extern const struct field_table train_request_table;       /* "TrainingRequest" */
extern const struct field_table infer_request_table;       /* "InferenceRequest" */
extern const struct field_table infer_batch_request_table; /* "BatchInferenceRequest" */

#endif
