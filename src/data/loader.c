/* loader.c - see loader.h.
 *
 * An epoch is a list of samples in their order. Those whose resized bytes are in the cache need no work; the others,
 * still in order, are `todo`: threads take them one after another and decode into a ring of slots, at most `window`
 * ahead of the consumer. The consumer walks the epoch's list and notes where each picture is, in the cache or in the
 * ring; a bad one it reports and leaves out. So the batches follow from the list alone, whatever the threads do. Then
 * it copies the pictures into the batch, idle threads helping, since one thread moves less than a GPU takes. What is
 * cached is decided by index (the first `cached` samples), since every epoch reads all.
 *
 * With a decoder there are threads of two kinds: as many as cores, which decode by themselves, and its callers, which
 * hand it pictures and wait. Until it is ready the first kind works, whose first picture that it wants has it opened;
 * then the callers do alone: cores that decode beside them make fewer pictures than they cost the decoder. */
#include "data/loader.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/random.h"

enum { MAX_THREADS = 256, AHEAD_PER_THREAD = 4, HELP_FROM_BYTES = 2 << 20, NICE = 10 };
static const uint64_t ORDER_STREAM = UINT64_C(0x6c6f61646572) << 16; /* apart from other users of the seed */

enum slot_state { SLOT_FREE, SLOT_BUSY, SLOT_GOOD, SLOT_BAD };

struct slot {
    enum slot_state state;
    const uint8_t *picture; /* in the cache or in the ring */
    struct err *err;        /* of a bad one, malloc'ed; NULL without memory */
};

/* Pictures on their way into a batch: whoever draws the next number copies that one. */
struct copying {
    atomic_size_t next;
    size_t count;
    const uint8_t **from; /* (batch_size) */
    uint8_t *to;
};

struct loader {
    const struct dataset *dataset;
    struct loader_config config;
    size_t picture_bytes;

    /* the consumer's own */
    uint64_t epoch;
    bool started;
    size_t *order, order_count, at; /* this epoch, and how far it is */
    size_t taken;                   /* of todo */
    bool *bad;
    size_t bad_count;
    char *first_bad; /* path and reason */
    uint8_t *images; /* made when first needed */
    int32_t *labels;
    size_t *samples;

    /* shared with the threads, under the lock */
    pthread_mutex_t lock;
    pthread_cond_t work, done;             /* there may be something to decode; a slot or a thread has finished */
    size_t *todo, todo_count, next, limit; /* the threads may take todo[next] while next < limit */
    int busy;
    bool quit;
    bool decoder_ready;     /* and has callers */
    struct copying copying; /* its numbers are drawn without the lock */
    int copiers;
    struct loader_counts counts;
    bool *have; /* is the sample's picture in the cache? */
    struct slot *slots;
    size_t window;

    uint8_t *ring, *cache; /* a picture's bytes are written by one thread before its slot is GOOD */
    size_t cached;         /* samples below this are kept */

    struct worker {
        struct loader *loader;
        pthread_t thread;
        bool calls; /* waits for the decoder, once that is ready; the others decode until then */
    } * workers;
    int worker_count, cores; /* the first `cores` workers decode by themselves */
};

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static bool has_copies(const struct loader *loader)
{
    return atomic_load(&loader->copying.next) < loader->copying.count;
}

static void copy(struct loader *loader)
{
    struct copying *c = &loader->copying;
    size_t bytes = loader->picture_bytes;

    for (size_t i; (i = atomic_fetch_add(&c->next, 1)) < c->count;)
        memcpy(c->to + i * bytes, c->from[i], bytes);
}

/* With the lock held, which is given back meanwhile. */
static void help_copying(struct loader *loader)
{
    loader->copiers++;
    pthread_mutex_unlock(&loader->lock);
    copy(loader);
    pthread_mutex_lock(&loader->lock);
    loader->copiers--;
    pthread_cond_signal(&loader->done);
}

/* With the lock held: is the decoder ready now? Then those that wait for it begin. */
static void look_at_decoder(struct loader *loader)
{
    const struct picture_decoder *decoder = loader->config.decoder;

    if (loader->decoder_ready || !decoder || loader->worker_count <= loader->cores || !decoder->ready(decoder->arg))
        return;
    loader->decoder_ready = true;
    pthread_cond_broadcast(&loader->work);
}

/* With the lock held: may the worker take the next of `todo`? */
static bool may_decode(const struct loader *loader, const struct worker *worker)
{
    return loader->next < loader->limit && worker->calls == loader->decoder_ready;
}

/* With the lock held, which is given back meanwhile: makes the next picture of `todo`. */
static void decode_next(struct loader *loader)
{
    size_t t = loader->next++, sample = loader->todo[t], place = t % loader->window;
    struct slot result = {0};
    enum picture_origin origin;
    struct err err;
    bool ok;

    loader->slots[place].state = SLOT_BUSY;
    loader->busy++;
    pthread_mutex_unlock(&loader->lock);

    uint8_t *out = sample < loader->cached ? loader->cache + sample * loader->picture_bytes
                                           : loader->ring + place * loader->picture_bytes;
    ok = picture_load(loader->dataset->samples[sample].path, loader->config.image_size, loader->config.disk,
                      loader->config.decoder, out, &origin, &err);
    if (!ok && (result.err = malloc(sizeof err)))
        *result.err = err;
    result.picture = out;
    result.state = ok ? SLOT_GOOD : SLOT_BAD;

    pthread_mutex_lock(&loader->lock);
    loader->slots[place] = result;
    if (sample < loader->cached)
        loader->have[sample] = ok;
    loader->counts.from_disk += ok && origin == PICTURE_CACHED;
    loader->counts.by_decoder += ok && origin == PICTURE_BY_DECODER;
    loader->counts.decoded += ok && origin != PICTURE_CACHED;
    loader->busy--;
    look_at_decoder(loader);
    pthread_cond_signal(&loader->done);
}

static void *work(void *arg)
{
    const struct worker *worker = arg;
    struct loader *loader = worker->loader;

    if (loader->config.decoder && !worker->calls) /* opening decoder and net goes first */
        setpriority(PRIO_PROCESS, (id_t)gettid(), NICE);
    pthread_mutex_lock(&loader->lock);
    while (!loader->quit)
        if (has_copies(loader))
            help_copying(loader);
        else if (may_decode(loader, worker))
            decode_next(loader);
        else
            pthread_cond_wait(&loader->work, &loader->lock);
    pthread_mutex_unlock(&loader->lock);
    return NULL;
}

/* With the lock held: nothing more is begun, and what was begun has ended. */
static void settle(struct loader *loader)
{
    loader->limit = loader->next;
    while (loader->busy > 0)
        pthread_cond_wait(&loader->done, &loader->lock);
}

static int default_threads(void)
{
    cpu_set_t cpus;

    return sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
}

static bool start_threads(struct loader *loader, int wanted, struct err *err)
{
    loader->workers = calloc((size_t)wanted, sizeof *loader->workers);
    if (!loader->workers)
        return err_set(err, ERR_MEMORY, "no memory for %d loader threads", wanted);
    for (int count = 0; count < wanted; count++) {
        struct worker *worker = &loader->workers[count];
        int code;

        *worker = (struct worker){.loader = loader, .calls = count >= loader->cores};
        code = pthread_create(&worker->thread, NULL, work, worker);
        if (code != 0 && count == 0)
            return err_set(err, ERR_MEMORY, "cannot start a loader thread: %s", strerror(code));
        if (code != 0) /* fewer will do */
            break;
        pthread_mutex_lock(&loader->lock);
        loader->worker_count++;
        pthread_mutex_unlock(&loader->lock);
    }
    return true;
}

static bool allocate(struct loader *loader, struct err *err)
{
    size_t n = loader->dataset->count, batch = (size_t)loader->config.batch_size, bytes = loader->picture_bytes;

    loader->order = calloc(n, sizeof *loader->order);
    loader->todo = calloc(n, sizeof *loader->todo);
    loader->bad = calloc(n, sizeof *loader->bad);
    loader->have = calloc(n, sizeof *loader->have);
    loader->slots = calloc(loader->window, sizeof *loader->slots);
    loader->labels = calloc(batch, sizeof *loader->labels);
    loader->samples = calloc(batch, sizeof *loader->samples);
    loader->copying.from = calloc(batch, sizeof *loader->copying.from);
    loader->ring = calloc(loader->cached < n ? loader->window : 1, bytes);
    loader->cache = calloc(loader->cached ? loader->cached : 1, bytes);
    if (loader->order && loader->todo && loader->bad && loader->have && loader->slots && loader->labels &&
        loader->samples && loader->copying.from && loader->ring && loader->cache)
        return true;
    return err_set(err, ERR_MEMORY, "no memory for the loader's buffers (%zu bytes)", loader_memory(loader));
}

bool loader_open(const struct dataset *dataset, const struct loader_config *config, struct loader **ret,
                 struct err *err)
{
    size_t side = (size_t)config->image_size;
    struct loader *loader;
    int threads = config->threads > 0 ? config->threads : default_threads();

    if (config->image_size < 1 || config->image_size > 16384)
        return err_set(err, ERR_INVALID, "image_size must be 1 to 16384, got %d", config->image_size);
    if (config->batch_size < 1)
        return err_set(err, ERR_INVALID, "batch_size must be at least 1, got %d", config->batch_size);
    if (dataset->count < 1 || dataset->count > UINT32_MAX)
        return err_set(err, ERR_INVALID, "a data set of %zu pictures cannot be loaded", dataset->count);
    loader = calloc(1, sizeof *loader);
    if (!loader)
        return err_set(err, ERR_MEMORY, "no memory for a loader");
    threads = (int)smaller((size_t)(threads < MAX_THREADS ? threads : MAX_THREADS), dataset->count);
    loader->cores = threads;
    if (config->decoder)
        threads += (int)smaller((size_t)config->decoder->callers, dataset->count);
    loader->dataset = dataset;
    loader->config = *config;
    loader->config.batch_size = (int)smaller((size_t)config->batch_size, dataset->count);
    loader->picture_bytes = 3 * side * side;
    loader->cached = smaller(config->cache_bytes / loader->picture_bytes, dataset->count);
    loader->window = dataset->count; /* as far ahead as they can: it is all going to be kept */
    if (loader->cached < dataset->count)
        loader->window =
            smaller((size_t)loader->config.batch_size + AHEAD_PER_THREAD * (size_t)threads, dataset->count);
    pthread_mutex_init(&loader->lock, NULL);
    pthread_cond_init(&loader->work, NULL);
    pthread_cond_init(&loader->done, NULL);
    if (!allocate(loader, err) || !start_threads(loader, threads, err)) {
        loader_free(loader);
        return false;
    }
    *ret = loader;
    return true;
}

struct loader *loader_free(struct loader *loader)
{
    if (!loader)
        return NULL;
    pthread_mutex_lock(&loader->lock);
    loader->quit = true;
    pthread_cond_broadcast(&loader->work);
    pthread_mutex_unlock(&loader->lock);
    for (int i = 0; i < loader->worker_count; i++)
        pthread_join(loader->workers[i].thread, NULL);
    pthread_mutex_destroy(&loader->lock);
    pthread_cond_destroy(&loader->work);
    pthread_cond_destroy(&loader->done);
    free(loader->order);
    free(loader->todo);
    free(loader->bad);
    free(loader->have);
    for (size_t i = 0; loader->slots && i < loader->window; i++)
        free(loader->slots[i].err);
    free(loader->slots);
    free(loader->labels);
    free(loader->samples);
    free(loader->images);
    free(loader->copying.from);
    free(loader->ring);
    free(loader->cache);
    free(loader->workers);
    free(loader->first_bad);
    free(loader);
    return NULL;
}

static bool too_many_bad(const struct loader *loader)
{
    return loader->bad_count * 10 > loader->dataset->count;
}

static bool fail_too_many(const struct loader *loader, struct err *err)
{
    return err_set(err, ERR_INVALID, "%zu of %zu pictures cannot be read, the first is %s", loader->bad_count,
                   loader->dataset->count, loader->first_bad ? loader->first_bad : "unknown");
}

/* The order of the epoch: shuffled over the whole data set first, so that a bad picture moves no other. */
static void make_order(struct loader *loader, uint64_t epoch)
{
    size_t n = loader->dataset->count;
    struct random random;

    for (size_t i = 0; i < n; i++)
        loader->order[i] = i;
    if (loader->config.shuffle) {
        random_init(&random, loader->config.seed, ORDER_STREAM ^ epoch);
        random_shuffle(&random, loader->order, n);
    }
    loader->order_count = 0;
    for (size_t i = 0; i < n; i++)
        if (!loader->bad[loader->order[i]])
            loader->order[loader->order_count++] = loader->order[i];
}

bool loader_start(struct loader *loader, uint64_t epoch, struct err *err)
{
    if (too_many_bad(loader))
        return fail_too_many(loader, err);
    if (loader->started && loader->epoch == epoch && loader->at == 0)
        return true;
    loader->started = true;
    loader->epoch = epoch;
    make_order(loader, epoch);
    loader->at = loader->taken = 0;
    pthread_mutex_lock(&loader->lock);
    settle(loader); /* an epoch left half way */
    loader->todo_count = 0;
    for (size_t i = 0; i < loader->order_count; i++)
        if (!loader->have[loader->order[i]])
            loader->todo[loader->todo_count++] = loader->order[i];
    for (size_t i = 0; i < loader->window; i++) {
        free(loader->slots[i].err);
        loader->slots[i] = (struct slot){.state = SLOT_FREE};
    }
    loader->next = 0;
    loader->limit = smaller(loader->window, loader->todo_count);
    look_at_decoder(loader);
    pthread_cond_broadcast(&loader->work);
    pthread_mutex_unlock(&loader->lock);
    return true;
}

/* Tells of a bad picture, with a reason that does not repeat its path. */
static bool note_bad(struct loader *loader, size_t sample, const struct err *why, struct err *err)
{
    const char *path = loader->dataset->samples[sample].path, *reason = why->message;
    size_t length = strlen(path);

    if (why->kind == ERR_MEMORY) { /* not the picture's fault */
        return err_set(err, why->kind, "%s", why->message);
    }
    if (strncmp(reason, path, length) == 0 && strncmp(reason + length, ": ", 2) == 0)
        reason += length + 2;
    loader->bad[sample] = true;
    loader->bad_count++;
    if (!loader->first_bad && asprintf(&loader->first_bad, "%s: %s", path, reason) < 0)
        loader->first_bad = NULL;
    if (loader->config.on_bad)
        loader->config.on_bad(loader->config.arg, path, reason);
    return !too_many_bad(loader) || fail_too_many(loader, err);
}

/* Copies the pictures noted since the last flush into the batch and gives their slots back. */
static void flush(struct loader *loader, size_t done, size_t count, uint8_t *images)
{
    struct copying *c = &loader->copying;
    bool help = (count - done) * loader->picture_bytes >= HELP_FROM_BYTES;

    pthread_mutex_lock(&loader->lock);
    c->to = images;
    c->count = count;
    atomic_store(&c->next, done);
    if (help)
        pthread_cond_broadcast(&loader->work);
    pthread_mutex_unlock(&loader->lock);
    copy(loader);
    pthread_mutex_lock(&loader->lock);
    while (loader->copiers > 0)
        pthread_cond_wait(&loader->done, &loader->lock);
    c->count = 0;
    loader->limit = smaller(loader->taken + loader->window, loader->todo_count);
    if (loader->next < loader->limit)
        pthread_cond_broadcast(&loader->work);
    pthread_mutex_unlock(&loader->lock);
}

static const struct err no_memory = {ERR_MEMORY, "no memory for a message"};

/* Waits for the next picture of `todo`; *ret: where it is, NULL when it cannot be read. Its slot stays taken. */
static bool take(struct loader *loader, size_t sample, const uint8_t **ret, struct err *err)
{
    struct slot *slot = &loader->slots[loader->taken % loader->window];
    struct err *why;
    bool good;

    pthread_mutex_lock(&loader->lock);
    while (slot->state != SLOT_GOOD && slot->state != SLOT_BAD)
        pthread_cond_wait(&loader->done, &loader->lock);
    good = slot->state == SLOT_GOOD;
    *ret = good ? slot->picture : NULL;
    why = slot->err;
    slot->err = NULL;
    slot->state = SLOT_FREE; /* for the next round; until the limit grows nobody uses it */
    loader->taken++;
    pthread_mutex_unlock(&loader->lock);
    good = good || note_bad(loader, sample, why ? why : &no_memory, err);
    free(why);
    return good;
}

static bool own_images(struct loader *loader, uint8_t **ret, struct err *err)
{
    if (!loader->images)
        loader->images = malloc((size_t)loader->config.batch_size * loader->picture_bytes);
    *ret = loader->images;
    return *ret || err_set(err, ERR_MEMORY, "no memory for a batch of %d pictures", loader->config.batch_size);
}

bool loader_next(struct loader *loader, uint8_t *images, struct batch *ret, struct err *err)
{
    size_t count = 0, copied = 0;

    if (too_many_bad(loader))
        return fail_too_many(loader, err);
    if (!images && !own_images(loader, &images, err))
        return false;
    while (count < (size_t)loader->config.batch_size && loader->at < loader->order_count) {
        size_t sample = loader->order[loader->at++];
        const uint8_t *picture = loader->cache + sample * loader->picture_bytes;

        if (loader->taken < loader->todo_count && loader->todo[loader->taken] == sample) {
            if (loader->taken == loader->limit) { /* many bad ones: all slots are taken by this batch */
                flush(loader, copied, count, images);
                copied = count;
            }
            if (!take(loader, sample, &picture, err))
                return false;
        }
        if (!picture)
            continue;
        loader->copying.from[count] = picture;
        loader->labels[count] = loader->dataset->samples[sample].label;
        loader->samples[count++] = sample;
    }
    flush(loader, copied, count, images);
    *ret = (struct batch){(int)count, images, loader->labels, loader->samples};
    return true;
}

struct loader_counts loader_counts(struct loader *loader)
{
    struct loader_counts counts;

    pthread_mutex_lock(&loader->lock);
    counts = loader->counts;
    pthread_mutex_unlock(&loader->lock);
    return counts;
}

bool loader_complete(struct loader *loader)
{
    size_t n = loader->dataset->count, missing = 0;

    pthread_mutex_lock(&loader->lock);
    for (size_t i = 0; i < n; i++)
        missing += !loader->have[i] && !loader->bad[i];
    pthread_mutex_unlock(&loader->lock);
    return missing == 0;
}

size_t loader_batches(const struct loader *loader)
{
    size_t batch = (size_t)loader->config.batch_size;

    return (loader->dataset->count - loader->bad_count + batch - 1) / batch;
}

size_t loader_memory(const struct loader *loader)
{
    size_t n = loader->dataset->count, batch = (size_t)loader->config.batch_size;
    size_t ring = loader->cached < n ? loader->window : 1;

    return (batch + ring + loader->cached) * loader->picture_bytes + n * (2 * sizeof(size_t) + 2 * sizeof(bool)) +
           loader->window * sizeof(struct slot) + batch * (sizeof(int32_t) + sizeof(size_t));
}
