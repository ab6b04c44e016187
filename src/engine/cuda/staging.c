/* staging.c - the way of inputs to the device: host bytes in pinned memory, from there to device memory on a queue of
 * its own while the step before still computes, and at last to the tensor, in the order of the steps. INPUT_BUFFERS
 * take turns, for images and for labels each. Who fills the next pinned buffer itself saves a copy on the host. */
#include <stdlib.h>
#include <string.h>

#include "engine/cuda/stream.h"

enum { SMALL_BYTES = 64 << 10 };

struct staging_buffer {
    void *pinned, *device;
    size_t bytes;
    cudaEvent_t arrived, taken; /* on the device; by the tensor */
};

struct lane {
    struct staging_buffer buffers[INPUT_BUFFERS];
    int next;
};

struct staging {
    cudaStream_t queue;
    struct lane large, small; /* small: labels */
};

static void release_buffer(struct staging_buffer *b)
{
    cudaFreeHost(b->pinned);
    cudaFree(b->device);
    b->pinned = b->device = NULL;
    b->bytes = 0;
}

static void release_lane(struct lane *lane)
{
    for (int i = 0; i < INPUT_BUFFERS; i++) {
        struct staging_buffer *b = &lane->buffers[i];

        release_buffer(b);
        if (b->arrived)
            cudaEventDestroy(b->arrived);
        if (b->taken)
            cudaEventDestroy(b->taken);
    }
}

struct staging *staging_free(struct staging *staging)
{
    if (!staging)
        return NULL;
    release_lane(&staging->large);
    release_lane(&staging->small);
    if (staging->queue)
        cudaStreamDestroy(staging->queue);
    free(staging);
    return NULL;
}

static bool open_lane(struct lane *lane, struct err *err)
{
    bool ok = true;

    for (int i = 0; i < INPUT_BUFFERS && ok; i++)
        ok = cuda_ok(cudaEventCreateWithFlags(&lane->buffers[i].arrived, cudaEventDisableTiming), "an event", err) &&
             cuda_ok(cudaEventCreateWithFlags(&lane->buffers[i].taken, cudaEventDisableTiming), "an event", err);
    return ok;
}

static bool need_staging(struct stream *stream, struct err *err)
{
    struct staging *staging;
    bool ok;

    if (stream->staging)
        return true;
    staging = calloc(1, sizeof *staging);
    if (!staging)
        return err_set(err, ERR_MEMORY, "no memory for input buffers");
    ok = cuda_ok(cudaStreamCreateWithFlags(&staging->queue, cudaStreamNonBlocking), "opening a stream", err) &&
         open_lane(&staging->large, err) && open_lane(&staging->small, err);
    stream->staging = ok ? staging : staging_free(staging);
    return ok;
}

static bool make_room(struct stream *stream, struct staging_buffer *b, size_t bytes, struct err *err)
{
    if (bytes <= b->bytes)
        return true;
    if (!stream_wait(stream, err))
        return false;
    release_buffer(b);
    if (!cuda_ok(cudaMallocHost(&b->pinned, bytes), "input buffers", err) ||
        !cuda_ok(cudaMalloc(&b->device, bytes), "input buffers", err))
        return false;
    b->bytes = bytes;
    return true;
}

/* The lane's next buffer, large enough, once what was in it has left the host. */
static bool next_buffer(struct stream *stream, struct lane *lane, size_t bytes, struct staging_buffer **ret,
                        struct err *err)
{
    *ret = &lane->buffers[lane->next];
    return make_room(stream, *ret, bytes, err) &&
           cuda_ok(cudaEventSynchronize((*ret)->arrived), "a copy to the GPU", err);
}

bool staging_buffer(struct stream *stream, size_t bytes, void **ret, struct err *err)
{
    struct staging_buffer *b;

    if (!need_staging(stream, err) || !next_buffer(stream, &stream->staging->large, bytes, &b, err))
        return false;
    *ret = b->pinned;
    return true;
}

bool staging_write(struct stream *stream, void *dst, const void *src, size_t bytes, struct err *err)
{
    struct staging *staging;
    struct staging_buffer *b;
    struct lane *lane;
    bool there;

    if (!need_staging(stream, err))
        return false;
    staging = stream->staging;
    there = src == staging->large.buffers[staging->large.next].pinned;
    lane = there || bytes > SMALL_BYTES ? &staging->large : &staging->small;
    if (!next_buffer(stream, lane, bytes, &b, err))
        return false;
    lane->next = (lane->next + 1) % INPUT_BUFFERS;
    if (!there)
        memcpy(b->pinned, src, bytes);
    return cuda_ok(cudaStreamWaitEvent(staging->queue, b->taken, 0), "a copy to the GPU", err) &&
           cuda_ok(cudaMemcpyAsync(b->device, b->pinned, bytes, cudaMemcpyHostToDevice, staging->queue),
                   "a copy to the GPU", err) &&
           cuda_ok(cudaEventRecord(b->arrived, staging->queue), "a copy to the GPU", err) &&
           cuda_ok(cudaStreamWaitEvent(stream->queue, b->arrived, 0), "a copy to the GPU", err) &&
           cuda_ok(cudaMemcpyAsync(dst, b->device, bytes, cudaMemcpyDeviceToDevice, stream->queue), "a copy on the GPU",
                   err) &&
           cuda_ok(cudaEventRecord(b->taken, stream->queue), "a copy on the GPU", err);
}
