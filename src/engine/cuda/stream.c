/* stream.c - opening a GPU, its memory, and recordings of a step. See stream.h */
#include "engine/cuda/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "engine/cuda/cudnn_cache.h"

/* "GPU-6a2c…", as NVML writes it. */
static void uuid_text(const cudaUUID_t *uuid, char text[64])
{
    static const int dashes[] = {4, 6, 8, 10};
    size_t length = (size_t)snprintf(text, 64, "GPU-");

    for (int i = 0; i < 16; i++) {
        for (int k = 0; k < 4; k++)
            if (dashes[k] == i)
                text[length++] = '-';
        length += (size_t)snprintf(text + length, 64 - length, "%02x", (unsigned char)uuid->bytes[i]);
    }
}

bool stream_find_device(struct stream *stream, const char *uuid, struct err *err)
{
    int count = 0;
    cudaError_t status = cudaGetDeviceCount(&count);

    if (status != cudaSuccess)
        return cuda_fail(status, "looking for GPUs", err);
    for (int i = 0; i < count; i++) {
        char text[64];

        if (!cuda_ok(cudaGetDeviceProperties(&stream->properties, i), "asking for a GPU's properties", err))
            return false;
        uuid_text(&stream->properties.uuid, text);
        stream->device = i;
        if (!uuid || strcmp(uuid, text) == 0)
            return true;
    }
    return err_set(err, ERR_DEVICE,
                   tr("找不到 GPU %s，CUDA 看到 %d 个；它可能已掉线或被拆除，请换用其他设备或 cpu",
                      "the GPU %s is not there, CUDA sees %d; it may be lost or taken out: use another device or cpu"),
                   uuid ? uuid : "", count);
}

static bool open_device(struct stream *stream, struct err *err)
{
    const struct cudaDeviceProp *p = &stream->properties;
    cudnnStatus_t status;

    if (p->major < OLDEST_CAPABILITY)
        return capability_fail(p, err);
    if (!cuda_ok(cudaSetDevice(stream->device), "choosing the GPU", err) ||
        !cuda_ok(cudaStreamCreateWithFlags(&stream->queue, cudaStreamNonBlocking), "opening a stream", err) ||
        !cuda_ok(cudaMalloc((void **)&stream->ticket, sizeof *stream->ticket), "a stream", err) ||
        !cuda_ok(cudaMemset(stream->ticket, 0, sizeof *stream->ticket), "clearing memory", err))
        return false;
    status = libs.cudnnCreate(&stream->cudnn);
    if (status == CUDNN_STATUS_SUCCESS)
        status = libs.cudnnSetStream(stream->cudnn, stream->queue);
    if (status != CUDNN_STATUS_SUCCESS)
        return cudnn_fail(status, "handle", err);
    if (libs.cublasLtCreate(&stream->cublas) != CUBLAS_STATUS_SUCCESS)
        return err_set(err, ERR_DEVICE, "cuBLASLt cannot be used on %s", p->name);
    stream->cache = cudnn_cache_open(stream);
    return true;
}

static bool switched_off(const char *variable)
{
    const char *value = getenv(variable);

    return value && strcmp(value, "0") == 0;
}

bool stream_open(const struct stream_config *config, struct stream **ret, struct err *err)
{
    struct stream *stream;

    if (!libs_open(err))
        return false;
    stream = calloc(1, sizeof *stream);
    if (!stream)
        return err_set(err, ERR_MEMORY, "no memory for a CUDA stream");
    stream->allow_tf32 = !switched_off("RFUAV_TF32");
    stream->deterministic = config->deterministic;
    if (!stream_find_device(stream, config->device, err) || !open_device(stream, err)) {
        stream_close(stream);
        return false;
    }
    *ret = stream;
    return true;
}

/* What the stream has on the GPU and in the libraries. */
static void give_back(struct stream *stream)
{
    if (stream->queue)
        cudaStreamSynchronize(stream->queue);
    staging_free(stream->staging);
    if (stream->cublas)
        libs.cublasLtDestroy(stream->cublas);
    if (stream->cudnn)
        libs.cudnnDestroy(stream->cudnn);
    cudaFree(stream->trial);
    cudaFree(stream->ticket);
    if (stream->queue)
        cudaStreamDestroy(stream->queue);
}

struct stream *stream_close(struct stream *stream)
{
    if (!stream)
        return NULL;
    cudnn_cache_close(stream->cache);
    if (!cuda_is_lost())
        give_back(stream);
    free(stream);
    return NULL;
}

bool stream_trial(struct stream *stream, size_t bytes, void **ret, struct err *err)
{
    if (bytes > stream->trial_bytes) {
        cudaFree(stream->trial);
        stream->trial = NULL;
        stream->trial_bytes = 0;
        if (!cuda_ok(cudaMalloc(&stream->trial, bytes), "timing algorithms", err))
            return false;
        stream->trial_bytes = bytes;
    }
    *ret = stream->trial;
    return true;
}

bool stream_alloc(struct stream *stream, size_t size, void **ret, struct err *err)
{
    char what[64];
    void *memory;

    cudaFree(stream->trial);
    stream->trial = NULL;
    stream->trial_bytes = 0;
    snprintf(what, sizeof what, "%zu MiB", (size >> 20) + 1);
    if (!cuda_ok(cudaMalloc(&memory, size ? size : 1), what, err))
        return false;
    if (!cuda_ok(cudaMemsetAsync(memory, 0, size, stream->queue), "clearing memory", err)) {
        cudaFree(memory);
        return false;
    }
    *ret = memory;
    return true;
}

void stream_free(struct stream *stream, void *memory)
{
    if (!memory)
        return;
    cudaStreamSynchronize(stream->queue);
    cudaFree(memory);
}

bool stream_wait(struct stream *stream, struct err *err)
{
    return cuda_ok(cudaStreamSynchronize(stream->queue), "the GPU's work", err);
}

bool stream_record(struct stream *stream, struct err *err)
{
    return cuda_ok(cudaStreamBeginCapture(stream->queue, cudaStreamCaptureModeRelaxed), "recording a step", err);
}

bool stream_recorded(struct stream *stream, void **ret, struct err *err)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    cudaError_t status = cudaStreamEndCapture(stream->queue, &graph);

    if (status == cudaSuccess)
        status = cudaGraphInstantiate(&exec, graph, 0);
    if (graph)
        cudaGraphDestroy(graph);
    if (status != cudaSuccess)
        return cuda_fail(status, "recording a step", err);
    *ret = exec;
    return true;
}

bool stream_replay(struct stream *stream, void *recording, struct err *err)
{
    return cuda_ok(cudaGraphLaunch(recording, stream->queue), "a step", err);
}

void stream_forget(void *recording)
{
    if (recording && !cuda_is_lost())
        cudaGraphExecDestroy(recording);
}

bool stream_memory(struct stream *stream, uint64_t *used, uint64_t *total, struct err *err)
{
    size_t left, all;

    if (!stream_wait(stream, err) || !cuda_ok(cudaMemGetInfo(&left, &all), "asking for the GPU's memory", err))
        return false;
    *used = all - left;
    *total = all;
    return true;
}
