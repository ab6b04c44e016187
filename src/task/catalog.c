/* catalog.c - see catalog.h */
#include "task/catalog.h"

#include <math.h>
#include <string.h>

#include "base/text.h"
#include "engine/net.h"
#include "task/admit.h"

#define RANGE(low, high) .flags = FIELD_HAS_MIN | FIELD_HAS_MAX, .min = (low), .max = (high)

static const struct field catalog_fields[] = {
    FIELD(catalog_query, image_size, INT, .initial = "224", RANGE(1, 8192), .doc = "height and width of the images"),
    FIELD(catalog_query, num_classes, INT, .initial = "1000", RANGE(1, 1048576), .doc = "size of the output layer"),
    FIELD(catalog_query, batch_size, INT, .initial = "8", RANGE(1, 65536), .doc = "images of a step"),
    FIELD(catalog_query, precision, STRING, .initial = "fp32", .doc = "fp32 or bf16"),
    FIELD(catalog_query, device, STRING, .flags = FIELD_NULLABLE,
          .doc = "cuda or cpu: whose memory; absent: cuda where there is a GPU"),
};

const struct field_table catalog_table = FIELD_TABLE("ModelsQuery", catalog_query, catalog_fields);

bool catalog_check(const struct catalog_query *query, struct err *err)
{
    if (query->device && strcmp(query->device, "cuda") != 0 && strcmp(query->device, "cpu") != 0)
        return err_set(err, ERR_REQUEST,
                       tr("不支持的设备: %s (可选 cuda、cpu)", "unsupported device: %s (there are cuda and cpu)"),
                       query->device);
    return precision_check(query->precision, err);
}

/* Bytes as MB (2^20) with one decimal; null for 0. */
static json_t *megabytes(uint64_t bytes)
{
    return bytes ? json_real(round((double)bytes / (1 << 20) * 10) / 10) : json_null();
}

json_t *catalog_entry(const char *model, const struct catalog_query *query, const char *backend)
{
    struct net_config config = {
        .model = model,
        .num_classes = (int)query->num_classes,
        .image_size = (int)query->image_size,
        .batch_size = (int)query->batch_size,
        .mode = NET_TRAIN,
        .precision = precision_on(query->precision, backend),
        .backend = backend,
        .learning_rate = 1e-4,
    };
    struct net_info info;
    struct err err = {0};
    bool known = net_describe(&config, &info, &err);
    uint64_t training = known ? net_reservation(&config) : 0, inference;

    config.mode = NET_INFER;
    inference = known ? net_reservation(&config) : 0;
    return json_pack("{s:s, s:s?, s:o, s:o, s:o, s:o, s:o}", "name", model, "class_name", net_class_name(model),
                     "parameters", known ? json_integer(info.parameters) : json_null(), "flops",
                     known ? json_integer(info.flops) : json_null(), "training_memory_mb", megabytes(training),
                     "inference_memory_mb", megabytes(inference), "note",
                     known ? json_null() : json_string(err.message));
}
