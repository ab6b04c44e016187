/* fuzz_picture_cache.c - the files of the picture cache, whatever is in them: a segment's head, and the list of names.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "data/cache_format.h"

enum { SIZE = 1000 }; /* of pictures so large that a segment's head is one page */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_entry(void *arg, size_t place, const struct cache_entry *entry)
{
    size_t *last = arg;

    if (place >= cache_segment_capacity(SIZE) || (*last && place < *last) || key_none(entry->content))
        abort();
    *last = place;
}

static void on_name(void *arg, struct key file, struct key content)
{
    struct key_map *names = arg;
    struct key known;

    if (!key_map_put(names, file, content) ||
        (!key_none(file) && (!key_map_get(names, file, &known) || !key_same(known, content))))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct key_map names = {0};
    size_t last = 0, used;

    if (cache_read_segment(data, size, SIZE, on_entry, &last, &used) &&
        (used > cache_segment_capacity(SIZE) || (last && last >= used)))
        abort();
    cache_read_names(data, size, on_name, &names);
    key_map_release(&names);
    return 0;
}
