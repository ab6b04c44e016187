/* jpeg.c - see jpeg.h; the decoder itself is the backend's. */
#include "engine/jpeg.h"

#include <stdlib.h>
#include <string.h>

#include "engine/backend.h"

struct jpeg_decoder {
    const struct backend *backend;
    struct jpeg_engines *engines;
};

struct jpeg_decoder *jpeg_decoder_open(const char *name, const char *device, int image_size)
{
    const struct backend *backend = backend_find(name);
    const char *choice = getenv("RFUAV_JPEG");
    struct jpeg_decoder *decoder;
    struct err err;

    if (!backend || !backend->jpeg_open || (choice && strcmp(choice, "cpu") == 0) ||
        !(decoder = calloc(1, sizeof *decoder)))
        return NULL;
    decoder->backend = backend;
    if (!backend->jpeg_open(device, image_size, &decoder->engines, &err)) {
        free(decoder);
        return NULL;
    }
    return decoder;
}

struct jpeg_decoder *jpeg_decoder_free(struct jpeg_decoder *decoder)
{
    if (decoder)
        decoder->backend->jpeg_close(decoder->engines);
    free(decoder);
    return NULL;
}

bool jpeg_decoder_run(struct jpeg_decoder *decoder, const struct jpeg_picture *picture, uint8_t *out)
{
    return decoder->backend->jpeg_decode(decoder->engines, picture, out);
}

bool jpeg_decoder_ready(struct jpeg_decoder *decoder)
{
    return decoder->backend->jpeg_ready(decoder->engines);
}
