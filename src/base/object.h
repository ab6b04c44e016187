/* object.h - parts of this program that lie in shared objects of their own, so that only a process that needs one pays
 * for the libraries behind it. */
#ifndef RFUAV_BASE_OBJECT_H
#define RFUAV_BASE_OBJECT_H

#include <stddef.h>

#include "base/err.h"

/* Opens the object `name` ("librfuav_cuda.so"), looked for beside this program, in ../lib and in ../lib/rfuav, or where
 * the environment's `variable` (may be NULL) says. Returns what it exports as `symbol`: a struct that begins with `int
 * abi`, which must equal `abi`. It stays open until the process ends: the libraries behind it do not like to be
 * unloaded. NULL with *err set when it is nowhere, cannot be loaded, or belongs to another version. */
const void *object_open(const char *name, const char *variable, const char *symbol, int abi, struct err *err);

/* Is there such an object in one of these places? Opens nothing. */
bool object_there(const char *name, const char *variable);

/* The path of another file of this program, looked for in the same places and in ../share/rfuav; false when it is
 * nowhere. */
bool object_file(const char *name, char *path, size_t size);

#endif
