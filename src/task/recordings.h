/* recordings.h - the raw files of an inference on their way: frame after frame becomes a picture, is handed out resized
 * for the net, and comes back with what the net says, to be annotated and added to its file's video. At most
 * RECORDINGS_BATCH pictures are in memory. Where no video can be made, the frames become JPEG files instead. */
#ifndef RFUAV_TASK_RECORDINGS_H
#define RFUAV_TASK_RECORDINGS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "task/infer_source.h"
#include "task/task.h"

enum { RECORDINGS_BATCH = 8 };

struct recordings;

/* Looks at every raw file of the source and says in the task's log how many frames it has; one that is too short or
 * cannot be opened gets a warning. Source and task must outlive the recordings. */
bool recordings_open(const struct source *source, int image_size, struct task *task, struct recordings **ret,
                     struct err *err);
struct recordings *recordings_free(struct recordings *recordings); /* drops what is not yet written */

size_t recordings_count(const struct recordings *recordings);      /* frames of all files */
size_t recordings_unreadable(const struct recordings *recordings); /* frames, so far; a file that cannot be opened: 1 */
const char *recordings_reason(
    const struct recordings *recordings); /* why the first of them is; NULL when all are read */

struct frame {
    const struct source_file *file;
    size_t index; /* in the file */
};

/* Makes the next frame's picture and puts its resized bytes (image_size, image_size, 3) to `out`. At most
 * RECORDINGS_BATCH frames may be out between this and recordings_write(). Frames that cannot be read are passed over
 * with a warning. False past the last. */
bool recordings_next(struct recordings *recordings, uint8_t *out, struct frame *ret);

/* Writes the frame that has been out longest, with `text` drawn on it. */
bool recordings_write(struct recordings *recordings, const char *text, struct err *err);

/* Ends the last video; call it after all frames that are out are written. */
bool recordings_finish(struct recordings *recordings, struct err *err);

/* Host bytes that all of this takes at most, with so many threads (0: one per core). */
uint64_t recordings_memory(int threads);

#endif
