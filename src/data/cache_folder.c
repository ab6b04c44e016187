/* cache_folder.c - see cache_folder.h */
#include "data/cache_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/cache_home.h"
#include "base/random.h"

enum { NAMES_MOST = 64 << 20, LOCK_TRIES = 50, LOCK_PAUSE_US = 2000, DISK_SHARE = 4, DEFAULT_GB = 20 };
static const char names_file[] = "names", lock_file[] = "lock", ending[] = ".pictures";

struct segment {
    char name[SEGMENT_NAME_SIZE];
    uint64_t bytes;
    double used; /* seconds since 1970 */
};

struct segments {
    struct segment *items;
    size_t count, capacity;
    uint64_t bytes;
};

static void path_of(const struct cache_folder *folder, const char *name, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/%s", folder->path, name);
}

static double seconds_of(const struct timespec *time)
{
    return (double)time->tv_sec + 1e-9 * (double)time->tv_nsec;
}

/* --- opening -------------------------------------------------------------------------------------------------------*/

/* "pictures-224-0123456789abcdef.pictures" and nothing else; returns the image size, 0 for another file. */
static int size_of_name(const char *name)
{
    int size = 0, length = 0;
    unsigned long long id;

    if (strlen(name) >= SEGMENT_NAME_SIZE || sscanf(name, "%6d-%16llx%n", &size, &id, &length) != 2)
        return 0;
    return strcmp(name + length, ending) == 0 && size > 0 ? size : 0;
}

/* Every segment of any size; without those that go while we look. */
static bool list_segments(const struct cache_folder *folder, struct segments *ret)
{
    DIR *dir = opendir(folder->path);
    struct dirent *entry;
    struct stat st;

    *ret = (struct segments){0};
    while (dir && (entry = readdir(dir))) {
        struct segment *segment;

        if (!size_of_name(entry->d_name) || fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
            !S_ISREG(st.st_mode))
            continue;
        if (ret->count == ret->capacity) {
            size_t more = ret->capacity ? 2 * ret->capacity : 64;
            struct segment *larger = reallocarray(ret->items, more, sizeof *larger);

            if (!larger)
                break;
            ret->items = larger;
            ret->capacity = more;
        }
        segment = &ret->items[ret->count++];
        snprintf(segment->name, sizeof segment->name, "%.*s", SEGMENT_NAME_SIZE - 1, entry->d_name);
        segment->bytes = (uint64_t)st.st_size;
        segment->used = seconds_of(&st.st_mtim);
        ret->bytes += segment->bytes;
    }
    if (dir)
        closedir(dir);
    return dir != NULL;
}

static uint64_t wanted_bytes(void)
{
    const char *text = getenv("RFUAV_CACHE_GB");
    char *end;
    double number = text ? strtod(text, &end) : DEFAULT_GB;

    if (text && (end == text || *end || !isfinite(number) || number < 0 || number > 1e9))
        number = DEFAULT_GB;
    return (uint64_t)(number * 1e9);
}

/* What RFUAV_CACHE_GB says; without it not above a share of what the disk could give. */
static uint64_t limit_of(const struct cache_folder *folder)
{
    uint64_t limit = wanted_bytes(), share;
    struct segments segments;
    struct statvfs disk;

    if (getenv("RFUAV_CACHE_GB") || statvfs(folder->path, &disk) < 0)
        return limit;
    list_segments(folder, &segments);
    free(segments.items);
    share = ((uint64_t)disk.f_bavail * disk.f_frsize + segments.bytes) / DISK_SHARE;
    return limit < share ? limit : share;
}

bool cache_folder_open(struct cache_folder *folder, struct err *err)
{
    struct timespec now;

    *folder = (struct cache_folder){0};
    err_set(err, ERR_IO, "%s", "");
    if (wanted_bytes() == 0)
        return false;
    if (!cache_home("pictures", folder->path, sizeof folder->path, err))
        return false;
    clock_gettime(CLOCK_REALTIME, &now);
    folder->opened = seconds_of(&now) - 0.02; /* files have coarser clocks */
    folder->limit = limit_of(folder);
    return true;
}

bool cache_folder_list(const struct cache_folder *folder, int image_size, void (*fn)(void *arg, const char *name),
                       void *arg)
{
    struct segments segments;
    bool ok = list_segments(folder, &segments);

    for (size_t i = 0; i < segments.count; i++)
        if (size_of_name(segments.items[i].name) == image_size)
            fn(arg, segments.items[i].name);
    free(segments.items);
    return ok;
}

int cache_folder_read(const struct cache_folder *folder, const char *name)
{
    char path[PATH_MAX];

    path_of(folder, name, path);
    return open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

bool cache_segment_read_head(int fd, int image_size, uint8_t *head)
{
    size_t size = cache_segment_head(image_size);

    return pread(fd, head, size, 0) == (ssize_t)size;
}

/* --- room for another picture --------------------------------------------------------------------------------------*/

static int open_writable(const struct cache_folder *folder, const char *name, int more)
{
    char path[PATH_MAX];

    path_of(folder, name, path);
    return open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | more, 0644);
}

/* -1 and errno EWOULDBLOCK: somebody holds it for longer than it should take, so that we had better not wait. */
static int lock_folder(const struct cache_folder *folder)
{
    int fd = open_writable(folder, lock_file, O_CREAT);

    for (int i = 0; fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0; i++) {
        if (errno != EWOULDBLOCK || i == LOCK_TRIES) {
            int why = errno;

            close(fd);
            errno = why;
            return -1;
        }
        usleep(LOCK_PAUSE_US);
    }
    return fd;
}

static void count_entry(void *arg, size_t place, const struct cache_entry *entry)
{
    (void)arg;
    (void)place;
    (void)entry;
}

/* Locks the segment if nobody writes to it and it has room; -1: not this one. */
static int adopt(const struct cache_folder *folder, const char *name, int image_size, uint8_t *head, size_t *ret_used)
{
    int fd = open_writable(folder, name, 0);

    if (fd < 0)
        return -1;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && cache_segment_read_head(fd, image_size, head) &&
        cache_read_segment(head, cache_segment_head(image_size), image_size, count_entry, NULL, ret_used) &&
        *ret_used < cache_segment_capacity(image_size))
        return fd;
    close(fd);
    return -1;
}

static int by_use(const void *a, const void *b)
{
    const struct segment *x = a, *y = b;

    return (x->used > y->used) - (x->used < y->used);
}

/* Removes the segments used longest ago until there is room for `bytes`; never one in use now. */
static bool make_room(const struct cache_folder *folder, struct segments *segments, uint64_t bytes)
{
    char path[PATH_MAX];

    if (segments->count > 1)
        qsort(segments->items, segments->count, sizeof *segments->items, by_use);
    for (size_t i = 0; i < segments->count && segments->bytes + bytes > folder->limit; i++) {
        const struct segment *segment = &segments->items[i];
        int fd;

        if (segment->used >= folder->opened)
            break;
        if ((fd = open_writable(folder, segment->name, 0)) < 0)
            continue;
        path_of(folder, segment->name, path);
        if (flock(fd, LOCK_EX | LOCK_NB) == 0 && unlink(path) == 0)
            segments->bytes -= segment->bytes;
        close(fd);
    }
    return segments->bytes + bytes <= folder->limit;
}

static int create(const struct cache_folder *folder, int image_size, char name[SEGMENT_NAME_SIZE], struct err *err)
{
    uint8_t header[CACHE_HEADER_BYTES];
    char path[PATH_MAX];
    int fd;

    snprintf(name, SEGMENT_NAME_SIZE, "%d-%016llx%s", image_size, (unsigned long long)random_seed(), ending);
    fd = open_writable(folder, name, O_CREAT | O_EXCL);
    cache_write_header(image_size, header);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && ftruncate(fd, (off_t)cache_segment_bytes(image_size)) == 0 &&
        pwrite(fd, header, sizeof header, 0) == (ssize_t)sizeof header)
        return fd;
    err_set(err, ERR_IO, "cannot write to %s: %s", folder->path, strerror(errno));
    if (fd >= 0) {
        path_of(folder, name, path);
        unlink(path);
        close(fd);
    }
    return -1;
}

static enum cache_room room_locked(const struct cache_folder *folder, int image_size, char name[SEGMENT_NAME_SIZE],
                                   int *ret_fd, size_t *ret_used, struct err *err)
{
    enum cache_room result = ROOM_NONE;
    uint8_t *head = malloc(cache_segment_head(image_size));
    struct segments segments;
    int fd = -1;

    if (!list_segments(folder, &segments) || !head) {
        err_set(err, ERR_IO, "cannot list %s: %s", folder->path, strerror(errno));
        result = ROOM_FAILED;
    }
    for (size_t i = 0; i < segments.count && fd < 0 && result == ROOM_NONE; i++) {
        if (size_of_name(segments.items[i].name) != image_size)
            continue;
        fd = adopt(folder, segments.items[i].name, image_size, head, ret_used);
        memcpy(name, segments.items[i].name, SEGMENT_NAME_SIZE);
    }
    if (fd < 0 && result == ROOM_NONE && make_room(folder, &segments, cache_segment_bytes(image_size))) {
        *ret_used = 0;
        fd = create(folder, image_size, name, err);
        result = fd < 0 ? ROOM_FAILED : result;
    }
    free(head);
    free(segments.items);
    *ret_fd = fd;
    return fd >= 0 ? ROOM_FOUND : result;
}

enum cache_room cache_folder_room(const struct cache_folder *folder, int image_size, char name[SEGMENT_NAME_SIZE],
                                  int *ret_fd, size_t *ret_used, struct err *err)
{
    int lock = lock_folder(folder);
    enum cache_room room;

    if (lock < 0 && errno == EWOULDBLOCK)
        return ROOM_BUSY;
    if (lock < 0) {
        err_set(err, ERR_IO, "cannot write to %s: %s", folder->path, strerror(errno));
        return ROOM_FAILED;
    }
    room = room_locked(folder, image_size, name, ret_fd, ret_used, err);
    close(lock);
    return room;
}

/* --- names ---------------------------------------------------------------------------------------------------------*/

bool cache_folder_add_name(const struct cache_folder *folder, const uint8_t name[CACHE_NAME_BYTES], struct err *err)
{
    int fd = open_writable(folder, names_file, O_CREAT | O_APPEND);
    struct stat st;
    bool ok;

    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size > NAMES_MOST && ftruncate(fd, 0) < 0)
        errno = 0; /* it goes on growing until somebody can */
    ok = fd >= 0 && write(fd, name, CACHE_NAME_BYTES) == CACHE_NAME_BYTES;
    if (!ok)
        err_set(err, ERR_IO, "cannot write to %s/%s: %s", folder->path, names_file, strerror(errno ? errno : ENOSPC));
    if (fd >= 0)
        close(fd);
    return ok;
}

uint8_t *cache_folder_names(const struct cache_folder *folder, size_t *ret_size)
{
    int fd = cache_folder_read(folder, names_file);
    uint8_t *data = NULL;
    struct stat st;

    *ret_size = 0;
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 && st.st_size <= 2 * NAMES_MOST &&
        (data = malloc((size_t)st.st_size))) {
        ssize_t n = pread(fd, data, (size_t)st.st_size, 0);

        *ret_size = n > 0 ? (size_t)n : 0;
    }
    if (fd >= 0)
        close(fd);
    return data;
}
