/* pictures.h - pictures on their way through an inference: decoded ahead by threads, handed out in order as batches,
 * then annotated and written by the same threads, so that decoding, computing and writing overlap. At most a few
 * batches of pictures are in memory; of large ones only the resized copy, the original being read again for writing. */
#ifndef RFUAV_TASK_PICTURES_H
#define RFUAV_TASK_PICTURES_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "data/image.h"
#include "task/infer_source.h"

struct pictures;

struct pictures_config {
    int image_size, batch_size; /* batch_size: the most of one call */
    int threads;                /* 0: one per core */
    uint64_t memory;            /* bytes of originals kept between reading and writing; 0: 256 MB */
};

/* The annotation of the contract, and the quality of an annotated picture's JPEG. */
enum { ANNOTATED_JPEG_QUALITY = 75 };
bool picture_annotate(struct image *image, const char *text, struct err *err);

/* Starts reading files[0..count). The files must outlive the pictures. */
bool pictures_open(const struct source_file *files, size_t count, const struct pictures_config *config,
                   struct pictures **ret, struct err *err);
struct pictures *pictures_free(struct pictures *pictures); /* drops what is not yet written */

/* Waits for the next picture in order and copies its resized bytes (image_size, image_size, 3) to `out`. At most
 * batch_size pictures may be out between this and pictures_write(). A picture that cannot be read gives *reason, valid
 * until the pictures are freed, and is done with; otherwise *reason is NULL. False past the last. */
bool pictures_next(struct pictures *pictures, size_t *index, uint8_t *out, const char **reason);

/* Has the picture written to its target with `text` (copied) drawn on it, at some time before pictures_finish(). */
void pictures_write(struct pictures *pictures, size_t index, const char *text);

/* Has every writing so far succeeded? The error is that of the first that has not. */
bool pictures_check(struct pictures *pictures, struct err *err);

/* The same, after waiting for all that is under way. */
bool pictures_finish(struct pictures *pictures, struct err *err);

#endif
