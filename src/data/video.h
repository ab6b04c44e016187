/* video.h - pictures as an MP4 file, by librfuav_video.so (data/video_encoder.h), which is looked for beside the
 * program, then in ../lib and ../lib/rfuav, and opened with the first video. Without it there are no videos, only an
 * error that says so. */
#ifndef RFUAV_DATA_VIDEO_H
#define RFUAV_DATA_VIDEO_H

#include "base/err.h"
#include "data/image.h"

struct video;

struct video_config {
    int width, height, frames_per_second; /* width and height: even */
    int threads;                          /* 0: as many as the encoder likes */
};

/* Begins a video that will be at `path`: until video_finish() it is "path.tmp". The error names the path. */
bool video_open(const char *path, const struct video_config *config, struct video **ret, struct err *err);
bool video_write(struct video *video, const struct image *image, struct err *err); /* of the video's size */

/* Ends the file, syncs and renames it. The video must be freed all the same. */
bool video_finish(struct video *video, struct err *err);
struct video *video_free(struct video *video); /* removes what is not finished */

#endif
