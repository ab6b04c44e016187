/* picture_load.c - see picture_load.h */
#include "data/picture_load.h"

#include "data/image.h"
#include "data/image_file.h"

static bool decode(const struct image_file *file, int size, uint8_t *picture, struct err *err)
{
    struct image image = {0};
    bool ok = image_decode(file->data, file->size, &image, err) && image_resize(&image, size, size, picture, err);

    image_release(&image);
    return ok;
}

bool picture_load(const char *path, int image_size, struct picture_cache *cache, uint8_t *picture, bool *ret_cached,
                  struct err *err)
{
    struct image_file file;
    struct key content;
    bool cached = false, ok = image_file_open(path, &file, err);

    if (ok && !(cached = picture_cache_find(cache, &file.stat, picture))) {
        ok = image_file_read(&file, err);
        cached = ok && picture_cache_find_content(cache, &file.stat, file.data, file.size, picture, &content);
        ok = ok && (cached || decode(&file, image_size, picture, err));
        if (ok && !cached)
            picture_cache_add(cache, &file.stat, content, picture);
    }
    image_file_close(&file);
    if (!ok)
        return err_prefix(err, "%s", path);
    *ret_cached = cached;
    return true;
}
