/* infer_source.h - what an inference is to look at: the files of its source, and what their results are called. */
#ifndef RFUAV_TASK_INFER_SOURCE_H
#define RFUAV_TASK_INFER_SOURCE_H

#include <stddef.h>

#include "base/arena.h"
#include "base/err.h"

struct source_file {
    const char *name; /* without folder */
    const char *path; /* where it is */
    const char
        *target; /* where its result goes, "{folder}/{stem}.jpg" of a picture or ".mp4" of a raw file, distinct */
};

struct source {
    size_t picture_count, raw_count;
    struct source_file *pictures, *raws; /* sorted by name */
    bool keep_existing;                  /* results lie among sources: no name of a file that is there may be used */
};

/* Takes the file at `path`, or the direct entries of the folder there, by their endings in any case: pictures (.jpg
 * .jpeg .png .gif .bmp .tiff .tif .webp .ppm .pgm) and raw IQ (.iq .dat). Hidden files, folders and all else are passed
 * over. When results go into the source's own folder, none takes the name of a file that is there. All in the arena. */
bool source_list(const char *path, const char *folder, struct arena *arena, struct source *ret, struct err *err);

/* Where frame `frame` of a raw file goes as a picture of its own: "{folder}/{stem}_{frame}.jpg", the stem being that of
 * its target, distinct from all other results. In the arena; NULL without memory. */
const char *source_frame_target(const struct source *source, const struct source_file *raw, size_t frame,
                                struct arena *arena);

/* Is the path a raw file, or a folder with one among its first entries? Quick, for an estimate. */
bool source_has_raw(const char *path);

#endif
