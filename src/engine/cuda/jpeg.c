/* jpeg.c - see engine/jpeg.h. Callers queue their pictures; whoever finds no batch under way takes the first ones of
 * the queue, has the engines decode them to planes and a kernel resize those. Meanwhile the next batch gathers. The
 * results of two batches take turns in pinned memory, from where each caller copies its own. All device memory but
 * nvJPEG's own is one block of fixed size: a batch ends where that is full.
 */
#include "engine/cuda/jpeg.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "engine/cuda/jpeg_kernels.h"
#include "engine/cuda/nvjpeg.h"
#include "engine/cuda/stream.h"

enum { WORK_BYTES = 96 << 20, TABLE_BYTES = 4 << 20, RESULT_BYTES = 26 << 20, ALIGNMENT = 256, MOST_FAILURES = 3 };

enum request_state { QUEUED, TAKEN, DECODED, REFUSED };

struct results {
    char *pinned;
    int readers; /* requests whose results are still to be copied from it */
};

struct request {
    const struct jpeg_picture *picture;
    enum request_state state;
    struct results *results; /* where the result is, when it is DECODED */
    size_t at;
    struct request *next;
};

struct jpeg_engines {
    int device, image_size;
    size_t result_bytes; /* of a picture */
    pthread_t opener;

    pthread_mutex_t lock; /* guards the following */
    pthread_cond_t changed;
    enum { OPENING, READY, FAILED } state;
    bool running; /* a batch is under way: what follows after the next blank line is its leader's */
    struct request *first, **last;
    struct results results[2];
    int turn;     /* the next batch's */
    int failures; /* batches in a row */

    cudaStream_t queue;
    cudaEvent_t done;
    nvjpegHandle_t handle;
    nvjpegJpegState_t jpeg;
    int initialized;         /* batch size that nvJPEG expects */
    char *work;              /* device: tables, planes, rows, results of a batch */
    char *tables;            /* pinned */
    size_t used, table_used; /* of the batch being put together */
};

struct batch {
    struct request *requests[JPEG_BATCH];
    struct jpeg_launch launch;
    struct nvjpeg_image images[JPEG_BATCH];
    const unsigned char *data[JPEG_BATCH];
    size_t sizes[JPEG_BATCH];
    int count;
};

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* --- a batch -------------------------------------------------------------------------------------------------------*/

static size_t table_bytes(const struct resample *r)
{
    return aligned((size_t)r->out_size * (2 + (size_t)r->taps) * sizeof(int32_t));
}

/* What a picture takes of `work`, without its tables. */
static size_t work_bytes(const struct jpeg_engines *e, const struct jpeg_picture *p)
{
    size_t width = (size_t)p->width, height = (size_t)p->height;
    size_t colour = p->subsampled ? (width + 1) / 2 * ((height + 1) / 2) : width * height;

    return aligned(width * height) + 2 * aligned(colour) + aligned(3 * height * (size_t)e->image_size) +
           aligned(e->result_bytes);
}

static bool fits(const struct jpeg_engines *e, const struct jpeg_picture *p, size_t used, size_t table_used)
{
    size_t tables = table_bytes(p->horizontal) + table_bytes(p->vertical);

    return table_used + tables <= TABLE_BYTES && TABLE_BYTES + used + work_bytes(e, p) <= WORK_BYTES;
}

static void *take(struct jpeg_engines *e, size_t bytes)
{
    void *memory = e->work + TABLE_BYTES + e->used;

    e->used += aligned(bytes);
    return memory;
}

static struct device_resample put_table(struct jpeg_engines *e, const struct resample *r)
{
    size_t n = (size_t)r->out_size, weights = n * (size_t)r->taps;
    int32_t *host = (int32_t *)(e->tables + e->table_used), *device = (int32_t *)(e->work + e->table_used);

    memcpy(host, r->first, n * sizeof *host);
    memcpy(host + n, r->count, n * sizeof *host);
    memcpy(host + 2 * n, r->weight, weights * sizeof *host);
    e->table_used += table_bytes(r);
    return (struct device_resample){device, device + n, device + 2 * n, r->taps};
}

/* Gives the picture its memory. The results of all come to lie in one piece, which is taken first. */
static void add_picture(struct jpeg_engines *e, struct batch *batch, uint8_t *result)
{
    int i = batch->launch.count++;
    const struct jpeg_picture *p = batch->requests[i]->picture;
    int colour_width = p->subsampled ? (p->width + 1) / 2 : p->width;
    int colour_height = p->subsampled ? (p->height + 1) / 2 : p->height;
    struct planes *planes = &batch->launch.pictures[i];

    *planes = (struct planes){.width = p->width,
                              .height = p->height,
                              .colour_width = colour_width,
                              .colour_height = colour_height,
                              .horizontal = put_table(e, p->horizontal),
                              .vertical = put_table(e, p->vertical),
                              .between = take(e, 3 * (size_t)p->height * (size_t)e->image_size),
                              .out = result};
    for (int c = 0; c < 3; c++) {
        size_t width = (size_t)(c ? colour_width : p->width), height = (size_t)(c ? colour_height : p->height);

        batch->images[i].channel[c] = take(e, width * height);
        batch->images[i].pitch[c] = width;
        planes->plane[c] = batch->images[i].channel[c];
    }
    batch->data[i] = p->data;
    batch->sizes[i] = p->size;
    batch->launch.most_rows = p->height > batch->launch.most_rows ? p->height : batch->launch.most_rows;
    batch->launch.most_columns = p->width > batch->launch.most_columns ? p->width : batch->launch.most_columns;
}

static bool decode_planes(struct jpeg_engines *e, struct batch *batch)
{
    if (e->initialized != batch->count &&
        nvjpeg.DecodeBatchedInitialize(e->handle, e->jpeg, batch->count, 1, NVJPEG_OUTPUT_YUV) != 0) {
        e->initialized = 0;
        return false;
    }
    e->initialized = batch->count;
    return nvjpeg.DecodeBatched(e->handle, e->jpeg, batch->data, batch->sizes, batch->images, e->queue) == 0;
}

static bool run_batch(struct jpeg_engines *e, struct batch *batch, char *pinned)
{
    uint8_t *results;

    cudaSetDevice(e->device); /* of this thread */
    e->used = e->table_used = 0;
    batch->launch.image_size = e->image_size;
    results = take(e, (size_t)batch->count * e->result_bytes);
    for (int i = 0; i < batch->count; i++)
        add_picture(e, batch, results + (size_t)i * e->result_bytes);
    if (cudaMemcpyAsync(e->work, e->tables, e->table_used, cudaMemcpyHostToDevice, e->queue) != cudaSuccess ||
        !decode_planes(e, batch) || jpeg_resize(e->queue, &batch->launch) != cudaSuccess ||
        cudaMemcpyAsync(pinned, results, (size_t)batch->count * e->result_bytes, cudaMemcpyDeviceToHost, e->queue) !=
            cudaSuccess ||
        cudaEventRecord(e->done, e->queue) != cudaSuccess || cudaEventSynchronize(e->done) != cudaSuccess) {
        cudaGetLastError(); /* clears it, where that is possible */
        return false;
    }
    return true;
}

/* --- the queue -----------------------------------------------------------------------------------------------------*/

static void gather(struct jpeg_engines *e, struct batch *batch)
{
    size_t used = 0, table_used = 0;

    while (e->first && batch->count < JPEG_BATCH) {
        struct request *request = e->first;
        const struct jpeg_picture *p = request->picture;

        if (batch->count > 0 &&
            (!fits(e, p, used, table_used) || (size_t)(batch->count + 1) * e->result_bytes > RESULT_BYTES))
            break;
        used += work_bytes(e, p);
        table_used += table_bytes(p->horizontal) + table_bytes(p->vertical);
        request->state = TAKEN;
        batch->requests[batch->count++] = request;
        e->first = request->next;
    }
    if (!e->first)
        e->last = &e->first;
}

/* With the lock held, which is given back meanwhile. */
static void lead(struct jpeg_engines *e)
{
    struct results *results = &e->results[e->turn];
    struct batch batch = {.count = 0};
    bool ok;

    e->running = true;
    e->turn = !e->turn;
    while (results->readers > 0)
        pthread_cond_wait(&e->changed, &e->lock);
    gather(e, &batch);
    pthread_mutex_unlock(&e->lock);
    ok = run_batch(e, &batch, results->pinned);
    pthread_mutex_lock(&e->lock);
    for (int i = 0; i < batch.count; i++) {
        batch.requests[i]->state = ok ? DECODED : REFUSED;
        batch.requests[i]->results = results;
        batch.requests[i]->at = (size_t)i * e->result_bytes;
    }
    results->readers = ok ? batch.count : 0;
    e->failures = ok ? 0 : e->failures + 1;
    if (e->failures == MOST_FAILURES)
        e->state = FAILED;
    e->running = false;
    pthread_cond_broadcast(&e->changed);
}

bool jpeg_engines_decode(struct jpeg_engines *e, const struct jpeg_picture *picture, uint8_t *out)
{
    struct request request = {.picture = picture, .state = QUEUED};

    if (picture->width > JPEG_MOST_COLUMNS || !fits(e, picture, 0, 0))
        return false;
    pthread_mutex_lock(&e->lock);
    while (e->state == OPENING) /* it will have made up for that soon, and opens faster on idle cores */
        pthread_cond_wait(&e->changed, &e->lock);
    if (e->state == READY) {
        *e->last = &request;
        e->last = &request.next; /* cppcheck-suppress autoVariables ; out of the queue before we leave */
        while (request.state == QUEUED || request.state == TAKEN)
            if (request.state == QUEUED && !e->running)
                lead(e);
            else
                pthread_cond_wait(&e->changed, &e->lock);
    }
    pthread_mutex_unlock(&e->lock);
    if (request.state != DECODED)
        return false;
    memcpy(out, request.results->pinned + request.at, e->result_bytes);
    pthread_mutex_lock(&e->lock);
    if (--request.results->readers == 0)
        pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
    return true;
}

/* --- opening -------------------------------------------------------------------------------------------------------*/

static bool open_engines(struct jpeg_engines *e)
{
    unsigned engines = 0, cores = 0;
    int low, high;

    return cudaSetDevice(e->device) == cudaSuccess &&
           nvjpeg.CreateEx(NVJPEG_BACKEND_HARDWARE, NULL, NULL, NVJPEG_FLAGS_HW_DECODE_NO_PIPELINE, &e->handle) == 0 &&
           nvjpeg.GetHardwareDecoderInfo(e->handle, &engines, &cores) == 0 && engines > 0 &&
           nvjpeg.JpegStateCreate(e->handle, &e->jpeg) == 0 &&
           cudaDeviceGetStreamPriorityRange(&low, &high) == cudaSuccess && /* the net's own work goes first */
           cudaStreamCreateWithPriority(&e->queue, cudaStreamNonBlocking, low) == cudaSuccess &&
           cudaEventCreateWithFlags(&e->done, cudaEventDisableTiming | cudaEventBlockingSync) == cudaSuccess &&
           cudaMalloc((void **)&e->work, WORK_BYTES) == cudaSuccess &&
           cudaMallocHost((void **)&e->tables, TABLE_BYTES) == cudaSuccess &&
           cudaMallocHost((void **)&e->results[0].pinned, RESULT_BYTES) == cudaSuccess &&
           cudaMallocHost((void **)&e->results[1].pinned, RESULT_BYTES) == cudaSuccess;
}

static void *open_in_background(void *arg)
{
    struct jpeg_engines *e = arg;
    bool ok = open_engines(e);

    if (!ok)
        cudaGetLastError();
    pthread_mutex_lock(&e->lock);
    e->state = ok ? READY : FAILED;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

bool jpeg_engines_open(const char *device, int image_size, struct jpeg_engines **ret, struct err *err)
{
    struct stream found = {0};
    struct jpeg_engines *e;

    if (!nvjpeg_open(err) || !stream_find_device(&found, device, err))
        return false;
    if (3 * (size_t)image_size * (size_t)image_size > RESULT_BYTES)
        return err_set(err, ERR_DEVICE, "pictures of %d pixels are too large", image_size);
    if (!(e = calloc(1, sizeof *e)))
        return err_set(err, ERR_MEMORY, "no memory for a JPEG decoder");
    e->device = found.device;
    e->image_size = image_size;
    e->result_bytes = 3 * (size_t)image_size * (size_t)image_size;
    e->last = &e->first;
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->changed, NULL);
    if (pthread_create(&e->opener, NULL, open_in_background, e) != 0) {
        free(e);
        return err_set(err, ERR_MEMORY, "no thread for a JPEG decoder");
    }
    *ret = e;
    return true;
}

struct jpeg_engines *jpeg_engines_close(struct jpeg_engines *e)
{
    if (!e)
        return NULL;
    pthread_join(e->opener, NULL);
    cudaSetDevice(e->device);
    if (e->jpeg)
        nvjpeg.JpegStateDestroy(e->jpeg);
    if (e->handle)
        nvjpeg.Destroy(e->handle);
    if (e->done)
        cudaEventDestroy(e->done);
    if (e->queue)
        cudaStreamDestroy(e->queue);
    cudaFree(e->work);
    cudaFreeHost(e->tables);
    cudaFreeHost(e->results[0].pinned);
    cudaFreeHost(e->results[1].pinned);
    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->changed);
    free(e);
    return NULL;
}
