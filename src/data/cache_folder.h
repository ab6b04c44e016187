/* cache_folder.h - the picture cache's folder: its segments, who writes to which, and which have to go. Not for use
 * outside the picture cache.
 *
 * A process that adds pictures holds the lock (flock) of the segment it writes to, which ends with the process however
 * it ends; a later one goes on with a segment that is not full. Segments are chosen, made and removed under the lock of
 * the folder. They are of their full size from the start, with holes, so that the sum of sizes is a bound. Readers hold
 * no lock: a segment that is gone when it is opened is a miss. */
#ifndef RFUAV_DATA_CACHE_FOLDER_H
#define RFUAV_DATA_CACHE_FOLDER_H

#include <limits.h>

#include "base/err.h"
#include "data/cache_format.h"

enum { SEGMENT_NAME_SIZE = 48 };

struct cache_folder {
    char path[PATH_MAX - 256];
    uint64_t limit;
    double opened; /* seconds since 1970 */
};

/* Finds and makes it. False: there is none, or none is wanted (RFUAV_CACHE_GB=0; then the message is empty). */
bool cache_folder_open(struct cache_folder *folder, struct err *err);

/* Calls fn for each segment of the size. */
bool cache_folder_list(const struct cache_folder *folder, int image_size, void (*fn)(void *arg, const char *name),
                       void *arg);

/* A file of the folder for reading; -1: not there. */
int cache_folder_read(const struct cache_folder *folder, const char *name);

/* The first bytes of a segment, header and entries, into `head` (cache_segment_head() bytes). */
bool cache_segment_read_head(int fd, int image_size, uint8_t *head);

enum cache_room { ROOM_FOUND, ROOM_NONE, ROOM_BUSY, ROOM_FAILED };

/* A segment with a free place, locked: one that is there, or a new one, for which old ones may go; never those used
 * since the folder was opened. *ret_used: places taken. ROOM_NONE: the cache is full; BUSY: the folder's lock is held;
 * FAILED: with an error. The descriptor holds the lock. */
enum cache_room cache_folder_room(const struct cache_folder *folder, int image_size, char name[SEGMENT_NAME_SIZE],
                                  int *ret_fd, size_t *ret_used, struct err *err);

/* Appends to the file of names; one that has grown too large is begun anew. */
bool cache_folder_add_name(const struct cache_folder *folder, const uint8_t name[CACHE_NAME_BYTES], struct err *err);

/* The file of names, malloc'ed; NULL: none. */
uint8_t *cache_folder_names(const struct cache_folder *folder, size_t *ret_size);

#endif
