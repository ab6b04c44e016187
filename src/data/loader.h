/* loader.h - batches of resized pictures, decoded ahead by threads, each picture at most once as long as memory lasts.
 * Order and content depend only on (data set, seed, epoch), never on the threads. */
#ifndef RFUAV_DATA_LOADER_H
#define RFUAV_DATA_LOADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "data/dataset.h"

struct loader_config {
    int image_size, batch_size;
    int threads;        /* 0: one per core */
    size_t cache_bytes; /* resized pictures kept; 0: none */
    bool shuffle;
    uint64_t seed;
    /* (optional) called on the thread of loader_next() for every picture that cannot be read, once each */
    void (*on_bad)(void *arg, const char *path, const char *reason);
    void *arg;
};

struct batch {
    int count;
    const uint8_t *images; /* (count, image_size, image_size, 3), valid until the next call */
    const int32_t *labels; /* (count) */
    const size_t *samples; /* (count) index in the data set */
};

struct loader;

bool loader_open(const struct dataset *dataset, const struct loader_config *config, struct loader **ret,
                 struct err *err);
struct loader *loader_free(struct loader *loader);

/* Starts epoch `epoch` (its order follows from it). Pictures found bad are left out of this and all later epochs; the
 * batches stay full but for the last. */
bool loader_start(struct loader *loader, uint64_t epoch, struct err *err);

/* The next batch; count 0 at the end of the epoch. Fails when more than a tenth of the data set is unreadable (saying
 * how many and the first of them), or none is left. */
bool loader_next(struct loader *loader, struct batch *ret, struct err *err);

size_t loader_batches(const struct loader *loader); /* of an epoch, as known now */
size_t loader_memory(const struct loader *loader);  /* bytes of buffers and cache at most */

#endif
