/* jpeg.c - see engine/jpeg.h. Callers queue their pictures; whoever finds a lane free for them takes the first ones of
 * the queue through it, then each caller copies its own result from there. A lane sets out with a full batch, or with
 * what there is when no other is under way. Every caller sleeps on a condition of its own, so that a batch wakes only
 * those that it is for. */
#include "engine/cuda/jpeg.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "engine/cuda/jpeg_lane.h"
#include "engine/cuda/stream.h"

enum { LANES = 2, MOST_FAILURES = 3 };

enum request_state { QUEUED, TAKEN, DECODED, REFUSED };

struct lane {
    struct jpeg_lane lane;
    bool running; /* a batch is under way: `lane` is its leader's */
    int readers;  /* requests whose results are still to be copied from it */
};

struct request {
    const struct jpeg_picture *picture;
    enum request_state state;
    pthread_cond_t changed;
    struct lane *lane; /* where the result is, when it is DECODED */
    const uint8_t *result;
    struct request *next;
};

struct jpeg_engines {
    int device, image_size;
    size_t result_bytes; /* of a picture */
    pthread_t opener;
    nvjpegHandle_t handle;
    struct lane lanes[LANES];
    atomic_bool ready;

    pthread_mutex_t lock; /* guards the following, and what of a lane is not its leader's */
    enum { CLOSED, OPENING, READY, FAILED } state;
    int lane_count; /* open */
    struct request *first, **last;
    int waiting;  /* requests in this queue */
    int failures; /* batches in a row */
};

/* --- opening -------------------------------------------------------------------------------------------------------*/

/* A GPU without such engines is refused here (status 6); to ask nvJPEG for their number takes 0.26 s. */
static bool open_engines(struct jpeg_engines *e)
{
    return cudaSetDevice(e->device) == cudaSuccess &&
           nvjpeg.CreateEx(NVJPEG_BACKEND_HARDWARE, NULL, NULL, NVJPEG_FLAGS_HW_DECODE_NO_PIPELINE, &e->handle) == 0;
}

/* The first lane goes to work while the other is opened. */
static void *open_in_background(void *arg)
{
    struct jpeg_engines *e = arg;
    bool ok = open_engines(e);

    for (int i = 0; ok && i < LANES; i++) {
        ok = jpeg_lane_open(&e->lanes[i].lane, e->handle, e->image_size);
        pthread_mutex_lock(&e->lock);
        e->lane_count += ok;
        if (ok && i == 0) {
            e->state = READY;
            atomic_store(&e->ready, true);
        }
        pthread_mutex_unlock(&e->lock);
    }
    if (ok)
        return NULL;
    cudaGetLastError();
    pthread_mutex_lock(&e->lock);
    if (e->lane_count == 0)
        e->state = FAILED;
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

bool jpeg_engines_open(const char *device, int image_size, struct jpeg_engines **ret, struct err *err)
{
    struct stream found = {0};
    struct jpeg_engines *e;

    if (!nvjpeg_open(err) || !stream_find_device(&found, device, err))
        return false;
    if (!(e = calloc(1, sizeof *e)))
        return err_set(err, ERR_MEMORY, "no memory for a JPEG decoder");
    e->device = found.device;
    e->image_size = image_size;
    e->result_bytes = 3 * (size_t)image_size * (size_t)image_size;
    e->last = &e->first;
    pthread_mutex_init(&e->lock, NULL);
    *ret = e;
    return true;
}

struct jpeg_engines *jpeg_engines_close(struct jpeg_engines *e)
{
    if (!e)
        return NULL;
    if (e->state != CLOSED)
        pthread_join(e->opener, NULL);
    if (e->state != CLOSED && !cuda_is_lost()) {
        cudaSetDevice(e->device);
        for (int i = 0; i < LANES; i++)
            jpeg_lane_close(&e->lanes[i].lane);
        if (e->handle)
            nvjpeg.Destroy(e->handle);
    }
    pthread_mutex_destroy(&e->lock);
    free(e);
    return NULL;
}

bool jpeg_engines_ready(struct jpeg_engines *e)
{
    return atomic_load(&e->ready);
}

/* --- the queue -----------------------------------------------------------------------------------------------------*/

/* With the lock held: a lane to go through now; NULL: none. */
static struct lane *free_lane(struct jpeg_engines *e)
{
    struct lane *found = NULL;
    bool busy = false;

    for (int i = 0; i < e->lane_count; i++) {
        busy = busy || e->lanes[i].running;
        if (!e->lanes[i].running && e->lanes[i].readers == 0)
            found = &e->lanes[i];
    }
    return busy && e->waiting < JPEG_BATCH ? NULL : found;
}

/* With the lock held: the first of the queue is to look whether it can set out. */
static void wake_first(struct jpeg_engines *e)
{
    if (e->first && free_lane(e))
        pthread_cond_signal(&e->first->changed);
}

/* With the lock held, which is given back meanwhile. */
static void lead(struct jpeg_engines *e, struct lane *lane)
{
    struct request *requests[JPEG_BATCH];
    struct jpeg_load load = {.count = 0};
    int count = 0;
    bool ok;

    for (struct request *r; (r = e->first) && jpeg_load_add(&load, r->picture, e->image_size); e->first = r->next) {
        r->state = TAKEN;
        requests[count++] = r;
    }
    if (!e->first)
        e->last = &e->first;
    e->waiting -= count;
    lane->running = true;
    wake_first(e);
    pthread_mutex_unlock(&e->lock);
    cudaSetDevice(e->device); /* of this thread */
    ok = jpeg_lane_run(&lane->lane, &load);
    pthread_mutex_lock(&e->lock);
    lane->running = false;
    lane->readers = ok ? count : 0;
    for (int i = 0; i < count; i++) {
        requests[i]->lane = lane;
        requests[i]->result = lane->lane.results + (size_t)i * e->result_bytes;
        requests[i]->state = ok ? DECODED : REFUSED;
        pthread_cond_signal(&requests[i]->changed);
    }
    e->failures = ok ? 0 : e->failures + 1;
    if (e->failures == MOST_FAILURES)
        e->state = FAILED;
    wake_first(e);
}

/* With the lock held: waits for its turn and the result. */
static void queue_up(struct jpeg_engines *e, struct request *request)
{
    struct lane *lane;

    *e->last = request;
    e->last = &request->next;
    e->waiting++;
    while (request->state == QUEUED || request->state == TAKEN)
        if (request->state == QUEUED && (lane = free_lane(e)))
            lead(e, lane);
        else
            pthread_cond_wait(&request->changed, &e->lock);
}

static void begin_opening(struct jpeg_engines *e)
{
    e->state = pthread_create(&e->opener, NULL, open_in_background, e) == 0 ? OPENING : CLOSED;
}

bool jpeg_engines_decode(struct jpeg_engines *e, const struct jpeg_picture *picture, uint8_t *out)
{
    struct request request = {.picture = picture, .state = QUEUED, .changed = PTHREAD_COND_INITIALIZER};
    struct jpeg_load alone = {.count = 0};

    if (!jpeg_load_add(&alone, picture, e->image_size))
        return false;
    pthread_mutex_lock(&e->lock);
    if (e->state == CLOSED)
        begin_opening(e);
    if (e->state == READY)
        queue_up(e, &request);
    pthread_mutex_unlock(&e->lock);
    pthread_cond_destroy(&request.changed);
    if (request.state != DECODED)
        return false;
    memcpy(out, request.result, e->result_bytes);
    pthread_mutex_lock(&e->lock);
    if (--request.lane->readers == 0)
        wake_first(e);
    pthread_mutex_unlock(&e->lock);
    return true;
}
