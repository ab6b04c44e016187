/* video_encoder.h - what the shared object librfuav_video.so offers. It alone is linked with FFmpeg's libraries, so
 * that the program starts without them; data/video.c opens it when there is a video to write. It uses nothing of ours.
 */
#ifndef RFUAV_DATA_VIDEO_ENCODER_H
#define RFUAV_DATA_VIDEO_ENCODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { VIDEO_ENCODER_ABI = 1 };

struct video_encoder;

/* Those that fail say why in `why` (of `size` bytes), in English. */
struct video_encoder_object {
    int abi; /* VIDEO_ENCODER_ABI */
    /* Begins an MP4 file: H.264 by libx264 where that is there, else MPEG-4 part 2; yuv420p, hence even sizes. */
    bool (*open)(const char *path, int width, int height, int frames_per_second, int threads,
                 struct video_encoder **ret, char *why, size_t size);
    bool (*write)(struct video_encoder *encoder, const uint8_t *rgb, char *why, size_t size); /* (height, width, 3) */
    bool (*finish)(struct video_encoder *encoder, char *why, size_t size); /* the file is whole after it */
    void (*free)(struct video_encoder *encoder);                           /* leaves the file as it is */
};

extern const struct video_encoder_object rfuav_video_object;

#endif
