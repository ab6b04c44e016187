/* jpeg.c - JPEG decoded and resized by the GPU against libjpeg-turbo and Pillow's filter on the CPU: bytes must be
 * equal.
 *
 *   jpeg [FILE...]     JPEG files, and those of tests/unit/jpeg_cases.h; then how fast it is with the largest
 *
 * One line for each that differs; fails when there is one. Skips where the GPU has no JPEG engines. */
#include <pthread.h>
#include <unistd.h>

#include "../unit/jpeg_cases.h"
#include "base/clock.h"
#include "data/image.h"
#include "data/jpeg_header.h"
#include "engine/backend.h"
#include "engine/jpeg.h"

const struct backend cpu_backend = {.name = "cpu"};

enum { THREADS = 2 * JPEG_BATCH, ROUNDS = 12 };

static bool on_gpu(struct jpeg_decoder *decoder, const void *data, size_t size, int image_size, uint8_t *out)
{
    struct resample horizontal, vertical;
    struct jpeg_picture picture;
    bool ok;

    if (!jpeg_header_suits(data, size, &picture))
        return false;
    resample_init(&horizontal, picture.width, image_size);
    resample_init(&vertical, picture.height, image_size);
    picture.horizontal = &horizontal;
    picture.vertical = &vertical;
    ok = jpeg_decoder_run(decoder, &picture, out);
    resample_release(&horizontal);
    resample_release(&vertical);
    return ok;
}

struct totals {
    int equal, different, refused, unwanted;
};

static void check(struct jpeg_decoder *decoder, const struct jpeg_file *file, int size, const char *name,
                  struct totals *totals)
{
    size_t bytes = 3 * (size_t)size * (size_t)size;
    uint8_t *expected = calloc(1, bytes), *found = calloc(1, bytes);
    struct jpeg_picture picture;
    struct image image = {0};
    size_t differing = 0;
    int most = 0;
    struct err err;

    if (!jpeg_header_suits(file->data, file->size, &picture)) {
        totals->unwanted++;
    } else if (!on_gpu(decoder, file->data, file->size, size, found)) {
        totals->refused++;
        printf("refused  %s\n", name);
    } else if (image_decode(file->data, file->size, &image, &err) && image_resize(&image, size, size, expected, &err)) {
        for (size_t i = 0; i < bytes; i++) {
            int difference = abs(expected[i] - found[i]);

            differing += difference > 0;
            most = difference > most ? difference : most;
        }
        totals->equal += differing == 0;
        totals->different += differing > 0;
        if (differing)
            printf("differs  %s to %d: %.4f %% of the bytes, at most by %d\n", name, size,
                   100.0 * (double)differing / (double)bytes, most);
    }
    image_release(&image);
    free(expected);
    free(found);
}

static void check_made(struct jpeg_decoder *decoder, int size, struct totals *totals)
{
    static const int sides[][2] = {{1800, 1200}, {901, 599}, {640, 480}, {333, 17}, {16, 16}, {4000, 3000}, {224, 224}};
    static const int qualities[] = {5, 30, 75, 95, 100};
    char name[128];

    for (size_t s = 0; s < sizeof sides / sizeof *sides; s++)
        for (size_t q = 0; q < sizeof qualities / sizeof *qualities; q++)
            for (int content = 0; content < JPEG_CONTENTS; content++)
                for (int factor = 1; factor <= 2; factor++) {
                    struct jpeg_case c = {
                        sides[s][0], sides[s][1], qualities[q], factor, factor, (enum jpeg_content)content, 0, 0, 0, 0};
                    bool large = sides[s][0] >= 1000; /* the CPU takes long */
                    struct jpeg_file file;

                    if ((large || size != 224) && (q != 2 || (factor == 1 && (s == 5 || size != 224))))
                        continue;
                    file = jpeg_make(&c);
                    snprintf(name, sizeof name, "%d x %d, quality %d, content %d, factor %d", c.width, c.height,
                             c.quality, content, factor);
                    check(decoder, &file, size, name, totals);
                    free(file.data);
                }
}

static bool read_file(const char *path, struct jpeg_file *ret)
{
    FILE *f = fopen(path, "rb");
    long size;

    if (!f)
        return false;
    fseek(f, 0, SEEK_END);
    size = ftell(f);
    rewind(f);
    *ret = (struct jpeg_file){malloc((size_t)size + 1), (unsigned long)size};
    ret->size = fread(ret->data, 1, (size_t)size, f);
    fclose(f);
    return true;
}

struct work {
    struct jpeg_decoder *decoder;
    const struct jpeg_file *file;
    int size, refused;
};

static void *decode_many(void *arg)
{
    struct work *work = arg;
    uint8_t *out = malloc(3 * (size_t)work->size * (size_t)work->size);

    for (int i = 0; i < ROUNDS; i++)
        work->refused += !on_gpu(work->decoder, work->file->data, work->file->size, work->size, out);
    free(out);
    return NULL;
}

static void time_it(struct jpeg_decoder *decoder, const struct jpeg_file *file, int size)
{
    struct work work[THREADS];
    pthread_t threads[THREADS];
    double started = clock_seconds(), seconds;
    int refused = 0;

    for (int i = 0; i < THREADS; i++) {
        work[i] = (struct work){decoder, file, size, 0};
        pthread_create(&threads[i], NULL, decode_many, &work[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        refused += work[i].refused;
    }
    seconds = clock_seconds() - started;
    printf("%d pictures of %lu kB by %d threads: %.0f images/s, %d refused\n", THREADS * ROUNDS, file->size / 1000,
           THREADS, THREADS * ROUNDS / seconds, refused);
}

int main(int argc, char **argv)
{
    static const int sizes[] = {224, 640, 7};
    struct jpeg_case large = {1800, 1200, 75, 2, 2, BURSTS, 0, 0, 0, 0};
    struct jpeg_file file = jpeg_make(&large);
    struct totals totals = {0};

    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        struct jpeg_decoder *decoder = jpeg_decoder_open("cuda", NULL, sizes[s]);
        uint8_t *out = malloc(3 * (size_t)sizes[s] * (size_t)sizes[s]);
        double started = clock_seconds();
        bool ready = false;

        while (decoder && !(ready = on_gpu(decoder, file.data, file.size, sizes[s], out)) &&
               clock_seconds() < started + 5)
            usleep(10000);
        free(out);
        if (!ready) {
            printf("skip: no JPEG engines here\n");
            jpeg_decoder_free(decoder);
            return 0;
        }
        printf("size %d: ready after %.2f s\n", sizes[s], clock_seconds() - started);
        for (int i = 1; i < argc; i++) {
            struct jpeg_file given;

            if (read_file(argv[i], &given)) {
                check(decoder, &given, sizes[s], argv[i], &totals);
                free(given.data);
            }
        }
        check_made(decoder, sizes[s], &totals);
        time_it(decoder, &file, sizes[s]);
        jpeg_decoder_free(decoder);
        fflush(stdout);
    }
    free(file.data);
    printf("%d equal, %d different, %d refused, %d not asked for\n", totals.equal, totals.different, totals.refused,
           totals.unwanted);
    return totals.different + totals.refused > 0;
}
