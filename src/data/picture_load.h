/* picture_load.h - a file as the net wants it: decoded and resized, or taken from the cache on disk. */
#ifndef RFUAV_DATA_PICTURE_LOAD_H
#define RFUAV_DATA_PICTURE_LOAD_H

#include <stdint.h>

#include "base/err.h"
#include "data/picture_cache.h"

/* Fills `picture` (image_size, image_size, 3), image_size being the cache's. cache may be NULL. *ret_cached: was it
 * there? The error names the file. */
bool picture_load(const char *path, int image_size, struct picture_cache *cache, uint8_t *picture, bool *ret_cached,
                  struct err *err);

#endif
