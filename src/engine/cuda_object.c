/* cuda_object.c - see cuda_object.h */
#include "engine/cuda_object.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char object_name[] = "librfuav_cuda.so";

/* Folder of this program, without a slash at the end. */
static bool own_folder(char *folder, size_t size)
{
    ssize_t length = readlink("/proc/self/exe", folder, size - 1);
    char *slash;

    if (length <= 0)
        return false;
    folder[length] = '\0';
    slash = strrchr(folder, '/');
    if (slash)
        *slash = '\0';
    return slash;
}

/* The first of the places where the object is; false when it is nowhere. */
static bool find_object(char *path, size_t size)
{
    static const char *const places[] = {"", "/../lib", "/../lib/rfuav"};
    const char *named = getenv("RFUAV_CUDA_OBJECT");
    char folder[PATH_MAX];

    if (named && named[0])
        return snprintf(path, size, "%s", named) < (int)size;
    if (!own_folder(folder, sizeof folder))
        return false;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (snprintf(path, size, "%s%s/%s", folder, places[i], object_name) < (int)size && access(path, R_OK) == 0)
            return true;
    return false;
}

bool cuda_object_load(struct err *err)
{
    static bool loaded;
    const struct cuda_object *object;
    char path[PATH_MAX];
    void *handle;

    if (loaded)
        return true;
    if (!find_object(path, sizeof path))
        return err_set(err, ERR_DEVICE,
                       "%s is not beside this program: this build has no CUDA; build it where nvcc is, or use the cpu",
                       object_name);
    handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        return err_set(err, ERR_DEVICE, "%s cannot be loaded: %s", path, dlerror());
    object = dlsym(handle, "rfuav_cuda_object");
    if (!object || object->abi != CUDA_OBJECT_ABI) {
        dlclose(handle);
        return err_set(err, ERR_DEVICE, "%s belongs to another version of this program", path);
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
    cuda_backend.stream_open = object->backend.stream_open;
    loaded = true;
    return true;
}

static bool load_and_open(const struct stream_config *config, struct stream **ret, struct err *err)
{
    return cuda_object_load(err) && cuda_backend.stream_open(config, ret, err);
}

/* Sizes in NHWC, and the workspace that convolution libraries take at most here. */
static void estimate(struct graph *graph, struct op *op)
{
    struct tensor *where = op->type == OP_MAX_POOL ? op_output(graph, op, 1) : NULL;

    if (where)
        where->bytes = (size_t)tensor_elements(where);
    if (op->type == OP_CONV2D || op->type == OP_CONV2D_BACKWARD_DATA || op->type == OP_CONV2D_BACKWARD_WEIGHT)
        op->scratch_bytes = (size_t)32 << 20;
}

struct backend cuda_backend = {
    .name = "cuda",
    .stream_open = load_and_open,
    .estimate = estimate,
    .library_bytes = (uint64_t)600 << 20, /* a CUDA context with cuDNN and cuBLASLt */
    .half_precision = true,
};
