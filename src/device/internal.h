/* internal.h - the parts of a device set, shared by src/device/ only. */
#ifndef RFUAV_DEVICE_INTERNAL_H
#define RFUAV_DEVICE_INTERNAL_H

#include "device/device.h"

/* ---- nvml.c: the driver's library, opened at run time ---- */
struct nvml;

/* Asks the driver for its devices; may take seconds when it must wake up. The error is a sentence for people. */
bool nvml_open(struct nvml **ret, struct err *err);
size_t nvml_count(const struct nvml *nvml);
void nvml_describe(struct nvml *nvml, size_t i, struct device_info *ret); /* name, uuid, capability */
void nvml_measure(struct nvml *nvml, size_t i, struct device_info *ret);  /* memory, load, temperature, power */
const char *nvml_cuda_version(const struct nvml *nvml);                   /* "" when not known */
struct nvml *nvml_close(struct nvml *nvml);

/* ---- visible.c ---- */

/* CUDA_VISIBLE_DEVICES as CUDA reads it: indices, UUIDs or beginnings of UUIDs, comma between; the list ends at the
 * first entry that is none or comes twice. value NULL: all. Fills ret (count) with indices and returns how many. */
size_t device_visible(const char *value, const struct device_info *devices, size_t count, size_t *ret);

/* ---- file.c ---- */
enum { DEVICE_FILE_MAX = 1024 }; /* devices */

/* *ret: an array to be freed. */
bool device_file_read(const char *path, struct device_info **ret, size_t *ret_count, struct err *err);

/* ---- host.c: /proc and /sys ---- */
struct host_sampler;

/* NULL without memory. The first sample tells the load since the machine was started. */
struct host_sampler *host_sampler_new(void);
void host_sample(struct host_sampler *sampler);
const struct host_info *host_sampled(const struct host_sampler *sampler);
struct host_sampler *host_sampler_free(struct host_sampler *sampler);

#endif
