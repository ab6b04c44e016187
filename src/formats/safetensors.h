/* safetensors.h - the safetensors format: 8 bytes header length, JSON header, raw tensors. */
#ifndef RFUAV_FORMATS_SAFETENSORS_H
#define RFUAV_FORMATS_SAFETENSORS_H

#include "base/err.h"
#include "base/state_dict.h"

bool safetensors_read(const char *path, struct state_dict **ret, struct err *err);
bool safetensors_decode(const void *data, size_t size, struct state_dict **ret, struct err *err);
bool safetensors_write(const char *path, const struct state_dict *dict,
                       struct err *err); /* temporary name, sync, rename */

#endif
