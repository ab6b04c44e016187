/* picture_load.c - see picture_load.h */
#include "data/picture_load.h"

#include "data/image.h"
#include "data/image_file.h"
#include "data/jpeg_header.h"

static bool decode(const struct image_file *file, int size, uint8_t *picture, struct err *err)
{
    struct image image = {0};
    bool ok = image_decode(file->data, file->size, &image, err) && image_resize(&image, size, size, picture, err);

    image_release(&image);
    return ok;
}

/* Has the decoder do it, if it wants this one. */
static bool hand_over(const struct image_file *file, int size, const struct picture_decoder *decoder, uint8_t *picture)
{
    struct resample horizontal = {0}, vertical = {0};
    struct jpeg_picture jpeg;
    bool ok;

    if (!decoder || !jpeg_header_suits(file->data, file->size, &jpeg) ||
        (uint64_t)jpeg.width * (uint64_t)jpeg.height > IMAGE_MAX_PIXELS)
        return false;
    jpeg.horizontal = &horizontal;
    jpeg.vertical = &vertical;
    ok = resample_init(&horizontal, jpeg.width, size) && resample_init(&vertical, jpeg.height, size) &&
         decoder->decode(decoder->arg, &jpeg, picture);
    resample_release(&horizontal);
    resample_release(&vertical);
    return ok;
}

static bool load(struct image_file *file, int size, struct picture_cache *cache, const struct picture_decoder *decoder,
                 uint8_t *picture, enum picture_origin *ret, struct err *err)
{
    struct key content;

    *ret = PICTURE_CACHED;
    if (picture_cache_find(cache, &file->stat, picture))
        return true;
    if (!image_file_read(file, err))
        return false;
    if (picture_cache_find_content(cache, &file->stat, file->data, file->size, picture, &content))
        return true;
    *ret = hand_over(file, size, decoder, picture) ? PICTURE_BY_DECODER : PICTURE_DECODED;
    if (*ret == PICTURE_DECODED && !decode(file, size, picture, err))
        return false;
    picture_cache_add(cache, &file->stat, content, picture);
    return true;
}

bool picture_load(const char *path, int image_size, struct picture_cache *cache, const struct picture_decoder *decoder,
                  uint8_t *picture, enum picture_origin *ret, struct err *err)
{
    struct image_file file;
    bool ok = image_file_open(path, &file, err) && load(&file, image_size, cache, decoder, picture, ret, err);

    image_file_close(&file);
    return ok || err_prefix(err, "%s", path);
}
