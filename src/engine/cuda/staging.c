/* staging.c - the way of inputs to the device: host bytes to pinned memory, from there to device memory on a queue of
 * its own while the step before still computes, and at last to the tensor, in the order of the steps. INPUT_BUFFERS
 * take turns. */
#include <stdlib.h>
#include <string.h>

#include "engine/cuda/stream.h"

struct staging_buffer {
    void *pinned, *device;
    size_t bytes;
    cudaEvent_t arrived, taken; /* on the device; by the tensor */
};

struct staging {
    cudaStream_t queue;
    struct staging_buffer buffers[INPUT_BUFFERS];
    int next;
};

static void release_buffer(struct staging_buffer *b)
{
    cudaFreeHost(b->pinned);
    cudaFree(b->device);
    b->pinned = b->device = NULL;
    b->bytes = 0;
}

struct staging *staging_free(struct staging *staging)
{
    if (!staging)
        return NULL;
    for (int i = 0; i < INPUT_BUFFERS; i++) {
        release_buffer(&staging->buffers[i]);
        if (staging->buffers[i].arrived)
            cudaEventDestroy(staging->buffers[i].arrived);
        if (staging->buffers[i].taken)
            cudaEventDestroy(staging->buffers[i].taken);
    }
    if (staging->queue)
        cudaStreamDestroy(staging->queue);
    free(staging);
    return NULL;
}

static bool open_staging(struct stream *stream, struct err *err)
{
    struct staging *staging = calloc(1, sizeof *staging);
    bool ok;

    if (!staging)
        return err_set(err, ERR_MEMORY, "no memory for input buffers");
    ok = cuda_ok(cudaStreamCreateWithFlags(&staging->queue, cudaStreamNonBlocking), "opening a stream", err);
    for (int i = 0; i < INPUT_BUFFERS && ok; i++)
        ok = cuda_ok(cudaEventCreateWithFlags(&staging->buffers[i].arrived, cudaEventDisableTiming), "an event", err) &&
             cuda_ok(cudaEventCreateWithFlags(&staging->buffers[i].taken, cudaEventDisableTiming), "an event", err);
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

bool staging_write(struct stream *stream, void *dst, const void *src, size_t bytes, struct err *err)
{
    struct staging *staging;
    struct staging_buffer *b;

    if (!stream->staging && !open_staging(stream, err))
        return false;
    staging = stream->staging;
    b = &staging->buffers[staging->next];
    staging->next = (staging->next + 1) % INPUT_BUFFERS;
    if (!make_room(stream, b, bytes, err) || !cuda_ok(cudaEventSynchronize(b->arrived), "a copy to the GPU", err))
        return false;
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
