/* picture_load.h - a file as the net wants it: decoded and resized, or taken from the cache on disk. */
#ifndef RFUAV_DATA_PICTURE_LOAD_H
#define RFUAV_DATA_PICTURE_LOAD_H

#include <stdint.h>

#include "base/err.h"
#include "base/jpeg_picture.h"
#include "data/picture_cache.h"

/* (optional) Something that decodes and resizes JPEG better than we, to the same bytes: a GPU. decode waits for the
 * result and may be called by many threads at once; false: not this one, or not now. ready: is it open? The first
 * decode opens it, without waiting for that. callers: threads waiting for it that keep it busy. */
struct picture_decoder {
    bool (*decode)(void *arg, const struct jpeg_picture *picture, uint8_t *out);
    bool (*ready)(void *arg);
    void *arg;
    int callers;
};

enum picture_origin { PICTURE_DECODED, PICTURE_BY_DECODER, PICTURE_CACHED };

/* Fills `picture` (image_size, image_size, 3), image_size being the cache's and the decoder's, which may be NULL. The
 * error names the file. */
bool picture_load(const char *path, int image_size, struct picture_cache *cache, const struct picture_decoder *decoder,
                  uint8_t *picture, enum picture_origin *ret, struct err *err);

#endif
