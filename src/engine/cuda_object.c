/* cuda_object.c - see cuda_object.h */
#include "engine/cuda_object.h"

#include "base/object.h"

bool cuda_object_load(struct err *err)
{
    static bool loaded;
    const struct cuda_object *object;

    if (loaded)
        return true;
    object = object_open("librfuav_cuda.so", "RFUAV_CUDA_OBJECT", "rfuav_cuda_object", CUDA_OBJECT_ABI, err);
    if (!object) {
        if (err && err->kind == ERR_NOT_FOUND)
            err_set(err, ERR_DEVICE,
                    "librfuav_cuda.so is not beside this program: this build has no CUDA; build it where nvcc is, or "
                    "use the cpu");
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
