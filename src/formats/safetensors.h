/* safetensors.h - the safetensors format: 8 bytes header length, JSON header, raw tensors. */
#ifndef RFUAV_FORMATS_SAFETENSORS_H
#define RFUAV_FORMATS_SAFETENSORS_H

#include "base/err.h"
#include "base/state_dict.h"
#include "formats/source.h"

/* Types other than state_dict.h's (F8, U16, ...) are refused by name. Errors name the file and the tensor. */
bool safetensors_read(const char *path, struct state_dict **ret, struct err *err);
bool safetensors_decode(const void *data, size_t size, struct state_dict **ret, struct err *err);
bool safetensors_read_source(const struct source *source, struct state_dict **ret, struct err *err); /* names no file */

/* Writes to a temporary name beside `path`, syncs, renames. */
bool safetensors_write(const char *path, const struct state_dict *dict, struct err *err);
bool safetensors_encode(int fd, const struct state_dict *dict, struct err *err); /* the same content to a descriptor */

#endif
