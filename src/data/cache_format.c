/* cache_format.c - see cache_format.h */
#include "data/cache_format.h"

#include <string.h>
#include <xxhash.h>

enum { SEGMENT_BYTES = 64 << 20, MOST_PLACES = 4096 };
enum { HASH_HEADER = 1, HASH_ENTRY, HASH_NAME, HASH_FILE, HASH_PICTURE }; /* seeds, so that none passes for another */

static const char magic[8] = "RFUAVpc1";

struct header {
    char magic[8];
    uint64_t image_size, capacity, hash;
    uint64_t zero[4];
};
_Static_assert(sizeof(struct header) == CACHE_HEADER_BYTES, "a header's size");

struct entry {
    struct cache_entry entry;
    uint64_t hash;
};
_Static_assert(sizeof(struct entry) == CACHE_ENTRY_BYTES, "an entry's size");

struct name {
    struct key file, content;
    uint64_t hash;
};
_Static_assert(sizeof(struct name) == CACHE_NAME_BYTES, "a name's size");

static struct key key_of(XXH128_hash_t hash)
{
    struct key key = {hash.low64, hash.high64};

    if (key_none(key)) /* which stands for no key */
        key.low = 1;
    return key;
}

struct key cache_content_key(const void *data, size_t size)
{
    return key_of(XXH3_128bits(data, size));
}

struct key cache_file_key(const struct stat *stat)
{
    const uint64_t identity[] = {stat->st_dev,
                                 stat->st_ino,
                                 (uint64_t)stat->st_size,
                                 (uint64_t)stat->st_mtim.tv_sec,
                                 (uint64_t)stat->st_mtim.tv_nsec,
                                 (uint64_t)stat->st_ctim.tv_sec,
                                 (uint64_t)stat->st_ctim.tv_nsec};

    return key_of(XXH3_128bits_withSeed(identity, sizeof identity, HASH_FILE));
}

uint64_t cache_picture_hash(const void *picture, size_t size)
{
    return XXH3_64bits_withSeed(picture, size, HASH_PICTURE);
}

static size_t whole_pages(size_t bytes)
{
    return (bytes + CACHE_PAGE - 1) / CACHE_PAGE * CACHE_PAGE;
}

size_t cache_picture_stride(int image_size)
{
    return whole_pages(3 * (size_t)image_size * (size_t)image_size);
}

size_t cache_segment_capacity(int image_size)
{
    size_t places = SEGMENT_BYTES / cache_picture_stride(image_size);

    return places < 1 ? 1 : places > MOST_PLACES ? MOST_PLACES : places;
}

size_t cache_segment_head(int image_size)
{
    return whole_pages(CACHE_HEADER_BYTES + cache_segment_capacity(image_size) * CACHE_ENTRY_BYTES);
}

size_t cache_segment_bytes(int image_size)
{
    return cache_segment_head(image_size) + cache_segment_capacity(image_size) * cache_picture_stride(image_size);
}

static struct header header_for(int image_size)
{
    struct header header = {.image_size = (uint64_t)image_size, .capacity = cache_segment_capacity(image_size)};

    memcpy(header.magic, magic, sizeof magic);
    header.hash = XXH3_64bits_withSeed(&header, offsetof(struct header, hash), HASH_HEADER);
    return header;
}

void cache_write_header(int image_size, uint8_t out[CACHE_HEADER_BYTES])
{
    struct header header = header_for(image_size);

    memcpy(out, &header, sizeof header);
}

static uint64_t entry_hash(int image_size, size_t place, const struct cache_entry *entry)
{
    struct {
        struct cache_entry entry;
        uint64_t image_size, place;
    } all = {*entry, (uint64_t)image_size, place};

    return XXH3_64bits_withSeed(&all, sizeof all, HASH_ENTRY);
}

void cache_write_entry(int image_size, size_t place, const struct cache_entry *entry, uint8_t out[CACHE_ENTRY_BYTES])
{
    struct entry full = {*entry, entry_hash(image_size, place, entry)};

    memcpy(out, &full, sizeof full);
}

bool cache_read_segment(const void *data, size_t size, int image_size,
                        void (*fn)(void *arg, size_t place, const struct cache_entry *entry), void *arg,
                        size_t *ret_used)
{
    static const struct entry none;
    struct header header = header_for(image_size);
    const uint8_t *at = (const uint8_t *)data + CACHE_HEADER_BYTES;

    if (size < cache_segment_head(image_size) || memcmp(data, &header, sizeof header) != 0)
        return false;
    *ret_used = 0;
    for (size_t place = 0; place < header.capacity; place++, at += CACHE_ENTRY_BYTES) {
        struct entry entry;

        memcpy(&entry, at, sizeof entry);
        if (memcmp(&entry, &none, sizeof entry) == 0)
            continue;
        *ret_used = place + 1;
        if (entry.hash == entry_hash(image_size, place, &entry.entry) && !key_none(entry.entry.content))
            fn(arg, place, &entry.entry);
    }
    return true;
}

static uint64_t name_hash(const struct name *name)
{
    return XXH3_64bits_withSeed(name, offsetof(struct name, hash), HASH_NAME);
}

void cache_write_name(struct key file, struct key content, uint8_t out[CACHE_NAME_BYTES])
{
    struct name name = {file, content, 0};

    name.hash = name_hash(&name);
    memcpy(out, &name, sizeof name);
}

void cache_read_names(const void *data, size_t size, void (*fn)(void *arg, struct key file, struct key content),
                      void *arg)
{
    const uint8_t *at = data, *end = at + size;

    while ((size_t)(end - at) >= CACHE_NAME_BYTES) {
        struct name name;

        memcpy(&name, at, sizeof name);
        if (name.hash != name_hash(&name)) {
            at++;
            continue;
        }
        fn(arg, name.file, name.content);
        at += CACHE_NAME_BYTES;
    }
}
