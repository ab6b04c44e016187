/* device.h - which devices this machine has and how busy they are. A set is a snapshot: device_set_refresh() updates
 * it; pointers stay valid until device_set_free(). A value that the driver does not report is absent from `has`. */
#ifndef RFUAV_DEVICE_DEVICE_H
#define RFUAV_DEVICE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct device_set;

enum device_has {
    DEVICE_HAS_MEMORY = 1 << 0,
    DEVICE_HAS_UTILIZATION = 1 << 1,
    DEVICE_HAS_TEMPERATURE = 1 << 2,
    DEVICE_HAS_POWER = 1 << 3,
};

/* One GPU, in NVML/PCI order, restricted and ordered by CUDA_VISIBLE_DEVICES when that is set. */
struct device_info {
    char id[16]; /* "cuda:0" */
    char name[96], uuid[96];
    int compute_major, compute_minor;
    unsigned has;
    uint64_t memory_total, memory_used, memory_free; /* bytes, all processes */
    uint64_t memory_reserved;                        /* of memory_used: what the driver keeps, nobody ever gets it */
    unsigned utilization;                            /* percent of compute */
    unsigned temperature, power;                     /* °C, W */
    bool fake;                                       /* from a device file: runs on the CPU backend */
    bool lost; /* the driver says that it does not answer any more: nothing can run there until it is reset */
};

/* The processor and memory of the machine. */
struct host_info {
    char cpu_model[96];
    int cores, physical_cores;
    double freq_mhz;    /* 0: not known */
    double load_avg[3]; /* 1, 5, 15 minutes */
    uint64_t memory_total, memory_available;
    double percent;                /* since the last refresh, 0–100 */
    const double *per_cpu_percent; /* (cores) */
};

/* file: NULL for NVML, or a JSON device file for tests and demonstrations:
 *   {"devices":[{"name":"NVIDIA H100","uuid":"GPU-…","memory_mb":81559,"used_mb":0,"compute_capability":"9.0"}, …]}
 * Without a driver the set is empty and device_set_note() says why; only a bad device file is an error. */
bool device_set_open(const char *file, struct device_set **ret, struct err *err);
void device_set_refresh(struct device_set *set); /* may wait for the driver: not on the event loop */

/* The same in parts, for an event loop that must not wait: device_set_new() asks no driver (the set is empty but for a
 * device file's, device_set_ready() is false), device_set_sample() may run on another thread while the set is read, one
 * at a time, and device_set_publish() makes the sample visible, on the reader's thread. */
bool device_set_new(const char *file, struct device_set **ret, struct err *err);
void device_set_sample(struct device_set *set);
void device_set_publish(struct device_set *set);
bool device_set_ready(const struct device_set *set); /* has a sample been published? */

/* A device of a file has no driver that knows what our tasks take there: `bytes` of it are shown as used from now on.
 */
void device_set_occupy(struct device_set *set, size_t i, uint64_t bytes);
size_t device_count(const struct device_set *set);                            /* GPUs */
const struct device_info *device_get(const struct device_set *set, size_t i); /* NULL past the last */
const struct host_info *device_host(const struct device_set *set);
const char *device_set_note(const struct device_set *set);            /* why there is no GPU, or NULL */
const char *device_driver_cuda_version(const struct device_set *set); /* "13.0", or NULL */
struct device_set *device_set_free(struct device_set *set);           /* accepts and returns NULL */

#endif
