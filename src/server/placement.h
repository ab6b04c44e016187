/* placement.h - can this request run on this machine at all, and what will it take? */
#ifndef RFUAV_SERVER_PLACEMENT_H
#define RFUAV_SERVER_PLACEMENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "device/device.h"
#include "task/kinds.h"

struct placement {
    int ask;         /* ASK_CPU, ASK_ANY_GPU or a GPU's index (sched.h): "cuda" without a GPU is ASK_CPU */
    uint64_t memory; /* planned bytes on such a device; 0: not known */
};

/* What computes on a device: "cuda", or "cpu" for a device of a file, for the CPU (NULL), and in a build without CUDA.
 */
const char *placement_backend(const struct device_info *gpu);

/* Is the GPU one that the CUDA backend knows? Otherwise placement_why_unusable() appends the reason. */
bool placement_usable(const struct device_info *gpu);
void placement_why_unusable(const struct device_info *gpu, struct buf *out);

/* Fills *ret, or appends the fault (device_unknown, device_out_of_range, device_unsupported, does_not_fit; api
 * contract, section 0) with its text, `loc` ["body","device"] and `ctx` to `faults` and returns false. request: the
 * kind's struct. */
bool placement_check(const struct device_set *devices, const struct task_kind *kind, const void *request,
                     struct placement *ret, json_t *faults);

#endif
