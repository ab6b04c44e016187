/* pictures.c - see pictures.h. A picture goes through the stages of enum stage. Threads take the oldest work there is,
 * writing before reading, so that what is in memory leaves it first. */
#include "task/pictures.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum stage { WAITING, READING, READY, UNREADABLE, OUT, TO_WRITE, WRITING, DONE };

struct picture {
    enum stage stage;
    struct image original; /* rgb NULL: not kept, to be read again */
    uint8_t *resized;
    char *text; /* what to draw on it, or why it is unreadable */
};

struct pictures {
    const struct source_file *files;
    struct pictures_config config;
    size_t count, resized_size;

    pthread_mutex_t lock; /* guards all that follows */
    pthread_cond_t changed;
    bool stopping, failed;
    struct err failure;      /* of the first writing that failed */
    struct picture *items;   /* (count) */
    size_t to_read;          /* the next to be read */
    size_t to_write;         /* no picture before it waits to be written */
    size_t waiting;          /* pictures TO_WRITE */
    size_t in_memory, limit; /* pictures between READING and DONE, and how many there may be */
    size_t writes;           /* pictures TO_WRITE or WRITING */
    size_t reading;          /* pictures READING */
    uint64_t bytes, largest; /* of originals kept; of the largest that was read */

    size_t to_hand; /* the next to be handed out: the caller's own */
    int thread_count;
    pthread_t *threads;
};

enum { MEMORY_DEFAULT = 256 << 20, THREADS_MAX = 64 };

bool picture_annotate(struct image *image, const char *text, struct err *err)
{
    enum { X = 40, Y = 40, SIZE = 45, RED = 0xFF0000 };

    return image_draw_text(image, text, X, Y, SIZE, RED, err);
}

/* Called without the lock, for a picture that is READING. */
static bool read_picture(const struct pictures *p, size_t i, struct image *original, uint8_t **resized, struct err *err)
{
    uint8_t *out = malloc(p->resized_size);

    if (!out)
        return err_set(err, ERR_MEMORY, "out of memory");
    if (!image_read(p->files[i].path, original, err)) {
        free(out);
        return false;
    }
    if (!image_resize(original, p->config.image_size, p->config.image_size, out, err)) {
        image_release(original);
        free(out);
        return false;
    }
    *resized = out;
    return true;
}

static uint64_t bytes_of(const struct image *image)
{
    return (uint64_t)image->width * (uint64_t)image->height * 3;
}

/* Called with the lock, which it gives up while it works. */
static void read_next(struct pictures *p)
{
    size_t i = p->to_read++;
    struct picture *item = &p->items[i];
    struct image original = {0};
    uint8_t *resized = NULL;
    struct err err;
    bool ok;

    item->stage = READING;
    p->in_memory++;
    p->reading++;
    pthread_mutex_unlock(&p->lock);
    ok = read_picture(p, i, &original, &resized, &err);
    pthread_mutex_lock(&p->lock);

    p->reading--;
    if (!ok) {
        item->text = strdup(err.message);
        item->stage = UNREADABLE;
        return;
    }
    item->resized = resized;
    p->largest = bytes_of(&original) > p->largest ? bytes_of(&original) : p->largest;
    if (p->bytes + bytes_of(&original) <= p->config.memory) {
        p->bytes += bytes_of(&original);
        item->original = original;
    } else {
        image_release(&original);
    }
    item->stage = READY;
}

/* Called without the lock, for a picture that is WRITING: nobody else looks at it. */
static bool write_picture(const struct pictures *p, size_t i, struct err *err)
{
    struct picture *item = &p->items[i];
    struct image image = item->original;
    bool ok = image.rgb || image_read(p->files[i].path, &image, err);

    if (ok && !item->text)
        ok = err_set(err, ERR_MEMORY, "out of memory");
    ok = ok && picture_annotate(&image, item->text, err) &&
         image_write_jpeg(p->files[i].target, &image, ANNOTATED_JPEG_QUALITY, err);
    image_release(&image);
    return ok;
}

/* Called with the lock, which it gives up while it works. */
static void write_next(struct pictures *p)
{
    size_t i = p->to_write;
    struct picture *item;
    struct err err;
    bool ok;

    while (p->items[i].stage != TO_WRITE)
        i++;
    item = &p->items[i];
    item->stage = WRITING;
    p->to_write = i + 1;
    pthread_mutex_unlock(&p->lock);
    ok = write_picture(p, i, &err);
    pthread_mutex_lock(&p->lock);

    if (item->original.rgb)
        p->bytes -= bytes_of(&item->original);
    item->original = (struct image){0};
    free(item->text);
    item->text = NULL;
    item->stage = DONE;
    p->in_memory--;
    p->writes--;
    if (!ok && !p->failed) {
        p->failed = true;
        p->failure = err;
    }
}

/* May the next picture be read? Where its original would not be kept it waits for others to be written, unless the
 * batch needs it. */
static bool may_read(const struct pictures *p)
{
    return p->to_read < p->count && p->in_memory < p->limit &&
           (p->in_memory < (size_t)p->config.batch_size ||
            p->bytes + (p->reading + 1) * p->largest <= p->config.memory);
}

static void *work(void *arg)
{
    struct pictures *p = arg;

    pthread_mutex_lock(&p->lock);
    while (!p->stopping) {
        if (p->waiting > 0) {
            p->waiting--;
            write_next(p);
        } else if (may_read(p)) {
            read_next(p);
        } else {
            pthread_cond_wait(&p->changed, &p->lock);
            continue;
        }
        pthread_cond_broadcast(&p->changed);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

bool pictures_open(const struct source_file *files, size_t count, const struct pictures_config *config,
                   struct pictures **ret, struct err *err)
{
    struct pictures *p = calloc(1, sizeof *p);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int threads = config->threads > 0 ? config->threads : cores > 0 ? (int)cores : 1;

    if (!p)
        return err_set(err, ERR_MEMORY, "out of memory");
    threads = threads > THREADS_MAX ? THREADS_MAX : threads;
    p->files = files;
    p->config = *config;
    p->count = count;
    p->resized_size = (size_t)config->image_size * (size_t)config->image_size * 3;
    p->limit = 2 * (size_t)config->batch_size + (size_t)threads;
    if (p->config.memory == 0)
        p->config.memory = MEMORY_DEFAULT;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->changed, NULL);
    p->items = calloc(count ? count : 1, sizeof *p->items);
    p->threads = calloc((size_t)threads, sizeof *p->threads);
    if (!p->items || !p->threads) {
        pictures_free(p);
        return err_set(err, ERR_MEMORY, "out of memory for %zu pictures", count);
    }
    while (p->thread_count < threads && pthread_create(&p->threads[p->thread_count], NULL, work, p) == 0)
        p->thread_count++;
    if (p->thread_count == 0) {
        pictures_free(p);
        return err_set(err, ERR_MEMORY, "cannot start a thread");
    }
    *ret = p;
    return true;
}

struct pictures *pictures_free(struct pictures *p)
{
    if (!p)
        return NULL;
    pthread_mutex_lock(&p->lock);
    p->stopping = true;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->thread_count; i++)
        pthread_join(p->threads[i], NULL);
    for (size_t i = 0; p->items && i < p->count; i++) {
        if (p->items[i].original.rgb)
            image_release(&p->items[i].original);
        free(p->items[i].resized);
        free(p->items[i].text);
    }
    free(p->items);
    free(p->threads);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    free(p);
    return NULL;
}

bool pictures_next(struct pictures *p, size_t *index, uint8_t *out, const char **reason)
{
    struct picture *item;

    if (p->to_hand == p->count)
        return false;
    *index = p->to_hand++;
    *reason = NULL;
    item = &p->items[*index];
    pthread_mutex_lock(&p->lock);
    while (item->stage != READY && item->stage != UNREADABLE)
        pthread_cond_wait(&p->changed, &p->lock);
    if (item->stage == UNREADABLE) {
        *reason = item->text ? item->text : "out of memory";
        item->stage = DONE;
        p->in_memory--;
        pthread_cond_broadcast(&p->changed);
    } else {
        item->stage = OUT;
    }
    pthread_mutex_unlock(&p->lock);
    if (*reason)
        return true;
    memcpy(out, item->resized, p->resized_size);
    free(item->resized);
    item->resized = NULL;
    return true;
}

void pictures_write(struct pictures *p, size_t index, const char *text)
{
    char *copy = strdup(text);

    pthread_mutex_lock(&p->lock);
    p->items[index].text = copy;
    p->items[index].stage = TO_WRITE;
    p->waiting++;
    p->writes++;
    if (index < p->to_write)
        p->to_write = index;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

static bool check_locked(struct pictures *p, struct err *err)
{
    if (p->failed && err)
        *err = p->failure;
    return !p->failed;
}

bool pictures_check(struct pictures *p, struct err *err)
{
    bool ok;

    pthread_mutex_lock(&p->lock);
    ok = check_locked(p, err);
    pthread_mutex_unlock(&p->lock);
    return ok;
}

bool pictures_finish(struct pictures *p, struct err *err)
{
    bool ok;

    pthread_mutex_lock(&p->lock);
    while (p->writes > 0)
        pthread_cond_wait(&p->changed, &p->lock);
    ok = check_locked(p, err);
    pthread_mutex_unlock(&p->lock);
    return ok;
}
