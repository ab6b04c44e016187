/* video.c - raw RGB frames from standard input as an MP4 file, for the Python test beside it.
 *   video OUT.mp4 WIDTH HEIGHT FRAMES_PER_SECOND */
#include <stdio.h>
#include <stdlib.h>

#include "data/video.h"

int main(int argc, char **argv)
{
    struct video_config config;
    struct video *video = NULL;
    struct image image;
    struct err err;
    size_t size;
    bool ok;

    if (argc != 5)
        return 2;
    config = (struct video_config){atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), 1};
    size = 3 * (size_t)config.width * (size_t)config.height;
    image = (struct image){config.width, config.height, malloc(size)};
    ok = image.rgb && video_open(argv[1], &config, &video, &err);
    while (ok && fread(image.rgb, 1, size, stdin) == size)
        ok = video_write(video, &image, &err);
    ok = ok && video_finish(video, &err);
    if (!ok)
        fprintf(stderr, "%s\n", err.message);
    video_free(video);
    image_release(&image);
    return ok ? 0 : 1;
}
