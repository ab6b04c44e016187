/* file.c - devices from a JSON file, for tests and demonstrations on machines without GPUs */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "device/internal.h"

enum { MEMORY_MB_MAX = 16 * 1024 * 1024 };

static bool fault(struct err *err, const char *path, size_t i, const char *what)
{
    return err_set(err, ERR_INVALID, tr("设备文件 %s, devices[%zu]: %s", "device file %s, devices[%zu]: %s"), path, i,
                   what);
}

static bool read_device(const json_t *in, const char *path, size_t i, struct device_info *ret, struct err *err)
{
    const json_t *name = json_object_get(in, "name"), *uuid = json_object_get(in, "uuid");
    const json_t *memory = json_object_get(in, "memory_mb"), *used = json_object_get(in, "used_mb");
    const json_t *capability = json_object_get(in, "compute_capability");
    char end;

    *ret = (struct device_info){.fake = true, .has = DEVICE_HAS_MEMORY, .compute_major = 9};
    if (!json_is_object(in))
        return fault(err, path, i, "an object is wanted");
    if (!json_is_string(name) || json_string_length(name) == 0 || json_string_length(name) >= sizeof ret->name)
        return fault(err, path, i, "\"name\" must be a text of 1 to 95 bytes");
    if (uuid &&
        (!json_is_string(uuid) || json_string_length(uuid) == 0 || json_string_length(uuid) >= sizeof ret->uuid))
        return fault(err, path, i, "\"uuid\" must be a text of 1 to 95 bytes");
    if (!json_is_integer(memory) || json_integer_value(memory) < 1 || json_integer_value(memory) > MEMORY_MB_MAX)
        return fault(err, path, i, "\"memory_mb\" must be an integer from 1 to 16777216");
    if (used && (!json_is_integer(used) || json_integer_value(used) < 0 ||
                 json_integer_value(used) > json_integer_value(memory)))
        return fault(err, path, i, "\"used_mb\" must be an integer from 0 to memory_mb");
    if (capability && (!json_is_string(capability) || sscanf(json_string_value(capability), "%2d.%2d%c",
                                                             &ret->compute_major, &ret->compute_minor, &end) != 2))
        return fault(err, path, i, "\"compute_capability\" must be a text such as \"9.0\"");
    snprintf(ret->name, sizeof ret->name, "%s", json_string_value(name));
    if (uuid)
        snprintf(ret->uuid, sizeof ret->uuid, "%s", json_string_value(uuid));
    else
        snprintf(ret->uuid, sizeof ret->uuid, "GPU-file-%zu", i);
    ret->memory_total = (uint64_t)json_integer_value(memory) << 20;
    ret->memory_used = (uint64_t)json_integer_value(used) << 20;
    ret->memory_free = ret->memory_total - ret->memory_used;
    return true;
}

bool device_file_read(const char *path, struct device_info **ret, size_t *ret_count, struct err *err)
{
    struct device_info *devices = NULL;
    json_error_t error;
    json_t *file = json_load_file(path, 0, &error), *list = json_object_get(file, "devices");
    size_t count = json_array_size(list);
    bool ok = true;

    if (!file)
        ok = err_set(err, ERR_INVALID, tr("设备文件 %s 第 %d 行: %s", "device file %s, line %d: %s"), path, error.line,
                     text_is_utf8(error.text, strlen(error.text)) ? error.text : "malformed");
    else if (!json_is_array(list) || count > DEVICE_FILE_MAX)
        ok = err_set(err, ERR_INVALID,
                     tr("设备文件 %s: 需要 {\"devices\": [最多 %d 个]}",
                        "device file %s: {\"devices\": [at most %d of them]} is wanted"),
                     path, DEVICE_FILE_MAX);
    else if (!(devices = calloc(count ? count : 1, sizeof *devices)))
        ok = err_set(err, ERR_MEMORY, "no memory for %zu devices", count);
    for (size_t i = 0; ok && devices && i < count; i++)
        ok = read_device(json_array_get(list, i), path, i, &devices[i], err);
    json_decref(file);
    if (!ok) {
        free(devices);
        return false;
    }
    *ret = devices;
    *ret_count = count;
    return true;
}
