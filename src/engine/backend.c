/* backend.c - the list of backends. */
#include "engine/backend.h"

#include <string.h>

#include "engine/cpu/cpu.h"
#include "engine/ref/ref.h"

/* For the forecast on machines that have such a device or not: sizes in NHWC, and the workspace that convolution
 * libraries take at most here. The libraries' bytes are those of a CUDA context with cuDNN and cuBLASLt. */
static void cuda_estimate(struct graph *graph, struct op *op)
{
    struct tensor *where = op->type == OP_MAX_POOL ? op_output(graph, op, 1) : NULL;

    if (where)
        where->bytes = (size_t)tensor_elements(where);
    if (op->type == OP_CONV2D || op->type == OP_CONV2D_BACKWARD_DATA || op->type == OP_CONV2D_BACKWARD_WEIGHT)
        op->scratch_bytes = (size_t)32 << 20;
}

static const struct backend cuda_forecast = {
    .name = "cuda", .estimate = cuda_estimate, .library_bytes = (uint64_t)600 << 20};

static const struct backend *const backends[] = {&cpu_backend, &ref_backend, &cuda_forecast};

enum { BACKENDS = sizeof backends / sizeof *backends };

const struct backend *backend_find(const char *name)
{
    for (int i = 0; i < BACKENDS; i++)
        if (strcmp(backends[i]->name, name) == 0)
            return backends[i];
    return NULL;
}
