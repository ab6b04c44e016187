/* picture_cache.c - see picture_cache.h: what is where, in memory, over the files of cache_folder.h. */
#include "data/picture_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "data/cache_folder.h"

enum { SETTLED_SECONDS = 2, NO_SEGMENT = -1 };

struct segment {
    char name[SEGMENT_NAME_SIZE];
    bool touched; /* its time of use is ours */
};

struct picture_cache {
    struct cache_folder folder;
    int image_size;
    size_t picture_bytes;

    pthread_mutex_t lock;    /* guards all that follows */
    struct key_map pictures; /* content to {hash of the picture, segment << 32 | place} */
    struct key_map names;    /* file to content */
    struct segment *segments;
    size_t segment_count, segment_capacity, reading; /* reading: the one whose entries are being added */

    int writer; /* descriptor of the segment that we write to, -1: none */
    size_t writer_segment, next_place;
    bool full, failed;
    struct err trouble;
};

static uint64_t location(size_t segment, size_t place)
{
    return (uint64_t)segment << 32 | place;
}

static off_t offset_of(const struct picture_cache *cache, size_t place)
{
    return (off_t)(cache_segment_head(cache->image_size) + place * cache_picture_stride(cache->image_size));
}

/* --- opening -------------------------------------------------------------------------------------------------------*/

static void add_entry(void *arg, size_t place, const struct cache_entry *entry)
{
    struct picture_cache *cache = arg;

    key_map_put(&cache->pictures, entry->content,
                (struct key){entry->picture_hash, location(cache->reading, place)}); /* or it stays unknown */
}

static void add_name(void *arg, struct key file, struct key content)
{
    struct picture_cache *cache = arg;

    key_map_put(&cache->names, file, content);
}

/* The index of the segment of this name, a new one if need be; NO_SEGMENT without memory. */
static long segment_index(struct picture_cache *cache, const char *name)
{
    for (size_t i = 0; i < cache->segment_count; i++)
        if (strcmp(cache->segments[i].name, name) == 0)
            return (long)i;
    if (cache->segment_count == cache->segment_capacity) {
        size_t more = cache->segment_capacity ? 2 * cache->segment_capacity : 32;
        struct segment *larger = reallocarray(cache->segments, more, sizeof *larger);

        if (!larger)
            return NO_SEGMENT;
        cache->segments = larger;
        cache->segment_capacity = more;
    }
    cache->segments[cache->segment_count] = (struct segment){.touched = false};
    snprintf(cache->segments[cache->segment_count].name, SEGMENT_NAME_SIZE, "%s", name);
    return (long)cache->segment_count++;
}

static void add_segment(void *arg, const char *name)
{
    struct picture_cache *cache = arg;
    uint8_t *head = malloc(cache_segment_head(cache->image_size));
    int fd = cache_folder_read(&cache->folder, name);
    long index = head && fd >= 0 ? segment_index(cache, name) : NO_SEGMENT;
    size_t used;

    if (index != NO_SEGMENT && cache_segment_read_head(fd, cache->image_size, head)) {
        cache->reading = (size_t)index;
        cache_read_segment(head, cache_segment_head(cache->image_size), cache->image_size, add_entry, cache, &used);
    }
    if (fd >= 0)
        close(fd);
    free(head);
}

static void read_names(struct picture_cache *cache)
{
    size_t size;
    uint8_t *names = cache_folder_names(&cache->folder, &size);

    if (names)
        cache_read_names(names, size, add_name, cache);
    free(names);
}

struct picture_cache *picture_cache_open(int image_size)
{
    struct picture_cache *cache = calloc(1, sizeof *cache);

    if (!cache)
        return NULL;
    cache->image_size = image_size;
    cache->picture_bytes = 3 * (size_t)image_size * (size_t)image_size;
    cache->writer = -1;
    pthread_mutex_init(&cache->lock, NULL);
    if (!cache_folder_open(&cache->folder, &cache->trouble)) {
        if (!cache->trouble.message[0])
            return picture_cache_free(cache);
        cache->failed = true; /* kept, to tell why */
        return cache;
    }
    cache_folder_list(&cache->folder, image_size, add_segment, cache);
    read_names(cache);
    return cache;
}

struct picture_cache *picture_cache_free(struct picture_cache *cache)
{
    if (!cache)
        return NULL;
    if (cache->writer >= 0)
        close(cache->writer);
    key_map_release(&cache->pictures);
    key_map_release(&cache->names);
    free(cache->segments);
    pthread_mutex_destroy(&cache->lock);
    free(cache);
    return NULL;
}

const char *picture_cache_trouble(struct picture_cache *cache)
{
    bool failed;

    if (!cache)
        return NULL;
    pthread_mutex_lock(&cache->lock);
    failed = cache->failed;
    pthread_mutex_unlock(&cache->lock);
    return failed ? cache->trouble.message : NULL; /* which does not change any more */
}

/* --- finding -------------------------------------------------------------------------------------------------------*/

/* Reads the picture at the place and marks its segment as used; false: it is not there, or damaged. */
static bool read_picture(struct picture_cache *cache, struct key where, uint8_t *picture)
{
    size_t segment = (size_t)(where.high >> 32), place = (size_t)(where.high & UINT32_MAX);
    char name[SEGMENT_NAME_SIZE];
    bool touch, ok;
    int fd;

    pthread_mutex_lock(&cache->lock);
    memcpy(name, cache->segments[segment].name, sizeof name);
    touch = !cache->segments[segment].touched;
    cache->segments[segment].touched = true;
    pthread_mutex_unlock(&cache->lock);

    fd = cache_folder_read(&cache->folder, name);
    if (fd < 0)
        return false;
    if (touch)
        futimens(fd, NULL); /* of another user's cache: it does without */
    ok = pread(fd, picture, cache->picture_bytes, offset_of(cache, place)) == (ssize_t)cache->picture_bytes &&
         cache_picture_hash(picture, cache->picture_bytes) == where.low;
    close(fd);
    return ok;
}

static bool find(struct picture_cache *cache, struct key content, uint8_t *picture)
{
    struct key where;
    bool known;

    pthread_mutex_lock(&cache->lock);
    known = key_map_get(&cache->pictures, content, &where);
    pthread_mutex_unlock(&cache->lock);
    return known && read_picture(cache, where, picture);
}

bool picture_cache_find(struct picture_cache *cache, const struct stat *stat, uint8_t *picture)
{
    struct key content;
    bool known;

    if (!cache)
        return false;
    pthread_mutex_lock(&cache->lock);
    known = key_map_get(&cache->names, cache_file_key(stat), &content);
    pthread_mutex_unlock(&cache->lock);
    return known && find(cache, content, picture);
}

/* --- adding --------------------------------------------------------------------------------------------------------*/

static void fail_locked(struct picture_cache *cache, const struct err *err)
{
    if (cache->writer >= 0)
        close(cache->writer);
    cache->writer = -1;
    if (!cache->failed)
        cache->trouble = *err;
    cache->failed = true;
}

static bool settled(const struct stat *stat)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return stat->st_mtim.tv_sec + SETTLED_SECONDS < now.tv_sec && stat->st_ctim.tv_sec + SETTLED_SECONDS < now.tv_sec;
}

/* Remembers that this file has that content, unless it may still change unseen or is known already. */
static void name_file(struct picture_cache *cache, const struct stat *stat, struct key content)
{
    struct key file = cache_file_key(stat), known;
    uint8_t name[CACHE_NAME_BYTES];
    struct err err;
    bool wanted;

    if (!settled(stat))
        return;
    pthread_mutex_lock(&cache->lock);
    wanted = !cache->failed && !(key_map_get(&cache->names, file, &known) && key_same(known, content)) &&
             key_map_put(&cache->names, file, content);
    pthread_mutex_unlock(&cache->lock);
    if (!wanted)
        return;
    cache_write_name(file, content, name);
    if (!cache_folder_add_name(&cache->folder, name, &err)) {
        pthread_mutex_lock(&cache->lock);
        fail_locked(cache, &err);
        pthread_mutex_unlock(&cache->lock);
    }
}

bool picture_cache_find_content(struct picture_cache *cache, const struct stat *stat, const void *data, size_t size,
                                uint8_t *picture, struct key *ret_content)
{
    *ret_content = (struct key){0};
    if (!cache)
        return false;
    *ret_content = cache_content_key(data, size);
    if (!find(cache, *ret_content, picture))
        return false;
    name_file(cache, stat, *ret_content);
    return true;
}

/* A segment to write to and its next place. False: no more can be added, now or at all. */
static bool take_place_locked(struct picture_cache *cache, int *ret_fd, size_t *ret_segment, size_t *ret_place)
{
    struct err err;

    if (cache->writer >= 0 && cache->next_place == cache_segment_capacity(cache->image_size)) {
        close(cache->writer);
        cache->writer = -1;
    }
    if (cache->writer < 0) {
        char name[SEGMENT_NAME_SIZE];
        enum cache_room room =
            cache_folder_room(&cache->folder, cache->image_size, name, &cache->writer, &cache->next_place, &err);
        long segment = room == ROOM_FOUND ? segment_index(cache, name) : NO_SEGMENT;

        cache->full = room == ROOM_NONE;
        if (room == ROOM_FAILED)
            fail_locked(cache, &err);
        if (room == ROOM_FOUND && segment == NO_SEGMENT) {
            close(cache->writer);
            cache->writer = -1;
        }
        if (segment == NO_SEGMENT)
            return false;
        cache->writer_segment = (size_t)segment;
    }
    *ret_fd = fcntl(cache->writer, F_DUPFD_CLOEXEC, 0); /* the lock stays with whichever is closed last */
    *ret_segment = cache->writer_segment;
    *ret_place = cache->next_place++;
    return *ret_fd >= 0;
}

static bool write_picture(const struct picture_cache *cache, int fd, size_t place, const struct cache_entry *entry,
                          const uint8_t *picture, struct err *err)
{
    uint8_t bytes[CACHE_ENTRY_BYTES];
    off_t entry_at = (off_t)(CACHE_HEADER_BYTES + place * CACHE_ENTRY_BYTES);

    cache_write_entry(cache->image_size, place, entry, bytes);
    errno = ENOSPC; /* of a short write */
    if (pwrite(fd, picture, cache->picture_bytes, offset_of(cache, place)) == (ssize_t)cache->picture_bytes &&
        pwrite(fd, bytes, sizeof bytes, entry_at) == (ssize_t)sizeof bytes)
        return true;
    return err_set(err, ERR_IO, "cannot write to %s: %s", cache->folder.path, strerror(errno));
}

void picture_cache_add(struct picture_cache *cache, const struct stat *stat, struct key content, const uint8_t *picture)
{
    struct cache_entry entry = {.content = content};
    size_t segment = 0, place = 0;
    struct err err;
    int fd = -1;
    bool ok;

    if (!cache || key_none(content))
        return;
    pthread_mutex_lock(&cache->lock);
    ok = !cache->failed && !cache->full && take_place_locked(cache, &fd, &segment, &place);
    pthread_mutex_unlock(&cache->lock);
    if (!ok)
        return;
    entry.picture_hash = cache_picture_hash(picture, cache->picture_bytes);
    ok = write_picture(cache, fd, place, &entry, picture, &err);
    close(fd);
    pthread_mutex_lock(&cache->lock);
    if (ok)
        key_map_put(&cache->pictures, content, (struct key){entry.picture_hash, location(segment, place)});
    else
        fail_locked(cache, &err);
    pthread_mutex_unlock(&cache->lock);
    if (ok)
        name_file(cache, stat, content);
}
