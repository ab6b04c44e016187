/* loader.h - batches of resized pictures, decoded ahead by threads, each picture at most once as long as memory lasts.
 * Order and content depend only on (data set, seed, epoch), never on the threads. */
#ifndef RFUAV_DATA_LOADER_H
#define RFUAV_DATA_LOADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "data/dataset.h"
#include "data/picture_load.h"

struct loader_config {
    int image_size, batch_size;
    int threads;        /* 0: one per core */
    size_t cache_bytes; /* resized pictures kept in memory; 0: none */
    bool shuffle;
    uint64_t seed;
    struct picture_cache *disk;            /* (optional) looked at before a picture is decoded */
    const struct picture_decoder *decoder; /* (optional) both must outlive the loader */
    /* (optional) called on the thread of loader_next() for every picture that cannot be read, once each */
    void (*on_bad)(void *arg, const char *path, const char *reason);
    void *arg;
};

struct batch {
    int count;
    const uint8_t *images; /* (count, image_size, image_size, 3) */
    const int32_t *labels; /* (count), valid until the next call, as the following */
    const size_t *samples; /* (count) index in the data set */
};

struct loader;

bool loader_open(const struct dataset *dataset, const struct loader_config *config, struct loader **ret,
                 struct err *err);
struct loader *loader_free(struct loader *loader);

/* Starts epoch `epoch` (its order follows from it): the threads begin to decode. Starting an epoch of which nothing was
 * taken yet once more changes nothing. Pictures found bad are left out of this and all later epochs; the batches stay
 * full but for the last. */
bool loader_start(struct loader *loader, uint64_t epoch, struct err *err);

/* The next batch; count 0 at the end of the epoch. Its images are written to `images`, which holds batch_size of them
 * (such as net_input_buffer()), or for NULL to the loader's own memory, valid until the next call. Fails when more than
 * a tenth of the data set is unreadable (saying how many and the first of them), or none is left. */
bool loader_next(struct loader *loader, uint8_t *images, struct batch *ret, struct err *err);

/* Where the pictures came from since the loader was opened, those of memory not counted. by_decoder: part of decoded.
 */
struct loader_counts {
    size_t decoded, by_decoder, from_disk;
};
struct loader_counts loader_counts(struct loader *loader);

/* Are all pictures in memory, so that no file will be read and no decoder asked any more? */
bool loader_complete(struct loader *loader);

size_t loader_batches(const struct loader *loader); /* of an epoch, as known now */
size_t loader_memory(const struct loader *loader);  /* bytes of buffers and cache at most */

#endif
