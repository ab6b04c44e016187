/* video.c - see video.h */
#include "data/video.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/disk.h"
#include "base/object.h"
#include "data/video_encoder.h"

struct video {
    const struct video_encoder_object *object;
    struct video_encoder *encoder;
    int width, height;
    char path[PATH_MAX], temporary[PATH_MAX + 4];
};

static const struct video_encoder_object *load(struct err *err)
{
    static const struct video_encoder_object *loaded;

    if (!loaded)
        loaded = object_open("librfuav_video.so", NULL, "rfuav_video_object", VIDEO_ENCODER_ABI, err);
    return loaded;
}

static bool write_failed(const struct video *video, const char *why, struct err *err)
{
    int error = errno; /* FFmpeg's words do not name the disk */

    err_set(err, ERR_IO, "%s", why);
    return err_while_writing(err, video->path, error);
}

bool video_open(const char *path, const struct video_config *config, struct video **ret, struct err *err)
{
    const struct video_encoder_object *object = load(err);
    struct video *video;
    char why[256];

    if (!object)
        return false;
    if (!(video = calloc(1, sizeof *video)))
        return err_set(err, ERR_MEMORY, "no memory for the video %s", path);
    video->object = object;
    video->width = config->width;
    video->height = config->height;
    errno = 0;
    if (snprintf(video->path, sizeof video->path, "%s", path) >= (int)sizeof video->path)
        err_set(err, ERR_IO, "the path is longer than %d bytes: %s", PATH_MAX - 1, path);
    else if (snprintf(video->temporary, sizeof video->temporary, "%s.tmp", path) < 0 ||
             !object->open(video->temporary, config->width, config->height, config->frames_per_second, config->threads,
                           &video->encoder, why, sizeof why)) {
        write_failed(video, why, err);
        unlink(video->temporary);
    } else {
        *ret = video;
        return true;
    }
    video_free(video);
    return false;
}

bool video_write(struct video *video, const struct image *image, struct err *err)
{
    char why[256];

    if (image->width != video->width || image->height != video->height)
        return err_set(err, ERR_BUG, "%s: a frame of %d x %d in a video of %d x %d", video->path, image->width,
                       image->height, video->width, video->height);
    errno = 0;
    return video->object->write(video->encoder, image->rgb, why, sizeof why) || write_failed(video, why, err);
}

bool video_finish(struct video *video, struct err *err)
{
    char why[256];
    int fd;
    bool ok;

    errno = 0;
    if (!video->object->finish(video->encoder, why, sizeof why))
        return write_failed(video, why, err);
    fd = open(video->temporary, O_RDONLY | O_CLOEXEC);
    ok = fd >= 0 && fsync(fd) == 0 && rename(video->temporary, video->path) == 0;
    if (!ok)
        err_cannot_write(err, video->path, errno);
    if (fd >= 0)
        close(fd);
    return ok;
}

struct video *video_free(struct video *video)
{
    if (!video)
        return NULL;
    if (video->encoder) {
        video->object->free(video->encoder);
        unlink(video->temporary); /* after video_finish() there is none */
    }
    free(video);
    return NULL;
}
