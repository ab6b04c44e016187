/* picture_cache.h - resized pictures on disk, shared by all tasks: the next training on the same pictures decodes none.
 *
 * Keyed by content: the hash of a file's bytes, so that copies and moved folders are known again. So that a file known
 * already need not even be read, a list of names says which file (device, inode, size, times) has which content; a file
 * that was changed in the last seconds is never named there, as another change might not show in its times.
 *
 * In folder "pictures" of $RFUAV_CACHE, $XDG_CACHE_HOME/rfuav or ~/.cache/rfuav; at most RFUAV_CACHE_GB (default 20 GB,
 * and not above a quarter of what the disk has free; 0: no cache). When it is full the segments (64 MiB,
 * cache_format.h) that were used longest ago go. Several processes may fill it at once; nothing waits for another, and
 * what a killed one left half done is passed over.
 *
 * A cache that fails (a full disk, a folder without permission) is done without: nothing here is an error. */
#ifndef RFUAV_DATA_PICTURE_CACHE_H
#define RFUAV_DATA_PICTURE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "data/key_map.h"

struct picture_cache; /* for any number of threads */

/* For pictures (image_size, image_size, 3). NULL when there is none; all functions take that. */
struct picture_cache *picture_cache_open(int image_size);
struct picture_cache *picture_cache_free(struct picture_cache *cache);

/* Fills `picture` with that of the file, told by its identity alone. */
bool picture_cache_find(struct picture_cache *cache, const struct stat *stat, uint8_t *picture);

/* The same, told by its bytes. *ret_content is set either way. */
bool picture_cache_find_content(struct picture_cache *cache, const struct stat *stat, const void *data, size_t size,
                                uint8_t *picture, struct key *ret_content);

/* Keeps the picture of the file with that content. */
void picture_cache_add(struct picture_cache *cache, const struct stat *stat, struct key content,
                       const uint8_t *picture);

/* Why it takes in nothing (more), in a sentence; NULL: it does, or it is just full. */
const char *picture_cache_trouble(struct picture_cache *cache);

#endif
