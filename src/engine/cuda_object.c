/* cuda_object.c - see cuda_object.h */
#include "engine/cuda_object.h"

#include <stdio.h>

#include "base/object.h"
#include "base/text.h"
#include "engine/cuda/sizes.h"

static const char object_name[] = "librfuav_cuda.so", object_variable[] = "RFUAV_CUDA_OBJECT";

static bool is_there(void)
{
    return object_there(object_name, object_variable);
}

bool cuda_object_load(struct err *err)
{
    static bool loaded;
    const struct cuda_object *object;

    if (loaded)
        return true;
    object = object_open(object_name, object_variable, "rfuav_cuda_object", CUDA_OBJECT_ABI, err);
    if (!object) {
        if (err && err->kind == ERR_NOT_FOUND)
            err_set(err, ERR_DEVICE,
                    tr("本程序旁没有 %s: 此版本不含 CUDA；请在有 nvcc 的机器上编译，或使用 cpu",
                       "%s is not beside this program: this build has no CUDA; build it where nvcc is, or use cpu"),
                    object_name);
        return false;
    }
    cuda_backend.stream_close = object->backend.stream_close;
    cuda_backend.alloc = object->backend.alloc;
    cuda_backend.free = object->backend.free;
    cuda_backend.write = object->backend.write;
    cuda_backend.read = object->backend.read;
    cuda_backend.kernels = object->backend.kernels;
    cuda_backend.version = object->backend.version;
    cuda_backend.wait = object->backend.wait;
    cuda_backend.record = object->backend.record;
    cuda_backend.recorded = object->backend.recorded;
    cuda_backend.replay = object->backend.replay;
    cuda_backend.forget = object->backend.forget;
    cuda_backend.memory = object->backend.memory;
    cuda_backend.input_buffer = object->backend.input_buffer;
    cuda_backend.jpeg_open = object->backend.jpeg_open;
    cuda_backend.jpeg_decode = object->backend.jpeg_decode;
    cuda_backend.jpeg_ready = object->backend.jpeg_ready;
    cuda_backend.jpeg_close = object->backend.jpeg_close;
    cuda_backend.stream_open = object->backend.stream_open;
    loaded = true;
    return true;
}

static bool load_and_open(const struct stream_config *config, struct stream **ret, struct err *err)
{
    return cuda_object_load(err) && cuda_backend.stream_open(config, ret, err);
}

static bool load_and_open_jpeg(const char *device, int image_size, struct jpeg_engines **ret, struct err *err)
{
    return cuda_object_load(err) && cuda_backend.jpeg_open(device, image_size, ret, err);
}

/* Its versions, or why it cannot be used. */
static const char *load_and_ask(void)
{
    static char text[sizeof((struct err *)0)->message];
    struct err err;

    if (cuda_object_load(&err))
        return cuda_backend.version();
    snprintf(text, sizeof text, "%s", err.message);
    return text;
}

/* What a forecast asks of kernels that are not there yet. */
static const struct kernel unloaded[OP_COUNT] = {[OP_CONV2D] = {.not_in_place = true}};

struct backend cuda_backend = {
    .name = "cuda",
    .available = is_there,
    .stream_open = load_and_open,
    .jpeg_open = load_and_open_jpeg,
    .kernels = unloaded,
    .estimate = cuda_estimate,
    .input_copies = INPUT_BUFFERS,
    /* measured on an H100: 541 MiB of context, cuDNN and cuBLASLt, and up to 28 of their kernels' code */
    .library_bytes = (uint64_t)569 << 20,
    .version = load_and_ask,
    .half_precision = true,
    .oldest_capability = OLDEST_CAPABILITY,
    .recompute_bytes = RECOMPUTE_BYTES,
};
