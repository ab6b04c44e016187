/* iq_picture.c - a frame of a raw recording as a picture, for the Python test beside it.
 *   iq_picture FILE FRAME_SAMPLES WIDTH HEIGHT THREADS FRAME OUT.png
 * (0: as the contract says) prints samples, spare bytes, frames, unusable samples and seconds. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "data/iq.h"

int main(int argc, char **argv)
{
    struct iq_config config;
    struct iq *iq = NULL;
    struct image image = {0};
    struct timespec begin, end;
    size_t unusable = 0;
    struct err err;
    bool ok;

    if (argc != 8)
        return 2;
    config = (struct iq_config){strtoul(argv[2], NULL, 10), atoi(argv[3]), atoi(argv[4]), atoi(argv[5])};
    ok = iq_open(argv[1], &config, &iq, &err);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    ok = ok && iq_picture(iq, strtoul(argv[6], NULL, 10), &image, &unusable, &err);
    clock_gettime(CLOCK_MONOTONIC, &end);
    ok = ok && image_write_png(argv[7], &image, &err);
    if (ok)
        printf("%llu %u %zu %zu %.3f\n", (unsigned long long)iq_samples(iq), iq_spare(iq), iq_frames(iq), unusable,
               (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec));
    else
        fprintf(stderr, "%s\n", err.message);
    image_release(&image);
    iq_free(iq);
    return ok ? 0 : 1;
}
