/* cudnn_cache.c - see cudnn_cache.h. A line a choice: "problem = number". Lines are appended whole, so that several
 * processes can share a file; of two lines for one problem the last counts. */
#include "engine/cuda/cudnn_cache.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cache_home.h"
#include "engine/cuda/stream.h"

enum { PROBLEM_SIZE = 160, MOST_ENTRIES = 1 << 16 };

struct entry {
    char problem[PROBLEM_SIZE];
    int choice;
};

struct cudnn_cache {
    char path[PATH_MAX];
    struct entry *entries;
    size_t count, capacity;
};

static void remember(struct cudnn_cache *cache, const char *problem, int choice)
{
    struct entry *entry;

    if (cache->count == cache->capacity) {
        size_t more = cache->capacity ? 2 * cache->capacity : 64;
        struct entry *grown = more > MOST_ENTRIES ? NULL : realloc(cache->entries, more * sizeof *grown);

        if (!grown)
            return;
        cache->entries = grown;
        cache->capacity = more;
    }
    entry = &cache->entries[cache->count++];
    snprintf(entry->problem, sizeof entry->problem, "%s", problem);
    entry->choice = choice;
}

/* Sets the path; false when there is no place for one. */
static bool find_path(struct cudnn_cache *cache, const struct stream *stream)
{
    char folder[PATH_MAX - 512], name[sizeof stream->properties.name];
    struct err err;

    if (!cache_home(NULL, folder, sizeof folder, &err))
        return false;
    snprintf(name, sizeof name, "%s", stream->properties.name);
    for (char *c = name; *c; c++)
        if (*c == ' ' || *c == '/')
            *c = '-';
    snprintf(cache->path, sizeof cache->path, "%s/cudnn-%zu-%s.txt", folder, libs.cudnnGetVersion(), name);
    return true;
}

static void read_file(struct cudnn_cache *cache)
{
    FILE *file = fopen(cache->path, "r");
    char line[PROBLEM_SIZE + 32];

    while (file && fgets(line, sizeof line, file)) {
        char *equals = strstr(line, " = "), *end;
        long choice;

        if (!equals || equals - line >= PROBLEM_SIZE)
            continue;
        choice = strtol(equals + 3, &end, 10);
        if (end == equals + 3 || *end != '\n' || choice < CACHE_NO_PLAN || choice > INT_MAX)
            continue;
        *equals = '\0';
        remember(cache, line, (int)choice);
    }
    if (file)
        fclose(file);
}

struct cudnn_cache *cudnn_cache_open(const struct stream *stream)
{
    struct cudnn_cache *cache = calloc(1, sizeof *cache);

    if (cache && !stream->deterministic && find_path(cache, stream))
        read_file(cache);
    return cache;
}

void cudnn_cache_close(struct cudnn_cache *cache)
{
    if (cache)
        free(cache->entries);
    free(cache);
}

bool cudnn_cache_find(const struct cudnn_cache *cache, const char *problem, int *choice)
{
    for (size_t i = cache ? cache->count : 0; i > 0; i--)
        if (strcmp(cache->entries[i - 1].problem, problem) == 0) {
            *choice = cache->entries[i - 1].choice;
            return true;
        }
    return false;
}

void cudnn_cache_add(struct cudnn_cache *cache, const char *problem, int choice)
{
    char line[PROBLEM_SIZE + 32];
    int length, fd;

    if (!cache)
        return;
    remember(cache, problem, choice);
    length = snprintf(line, sizeof line, "%s = %d\n", problem, choice);
    fd = cache->path[0] ? open(cache->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644) : -1;
    if (fd >= 0) {
        if (write(fd, line, (size_t)length) != length)
            cache->path[0] = '\0'; /* a full disk: no more of it */
        close(fd);
    }
}
