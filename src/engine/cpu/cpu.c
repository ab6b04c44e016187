/* cpu.c - see cpu.h. The rows of `ref`, until each has something better. */
#include "engine/cpu/cpu.h"

#include <string.h>

#include "engine/ref/ref.h"

static struct kernel kernels[OP_COUNT];

static bool stream_open(const struct stream_config *config, struct stream **ret, struct err *err)
{
    memcpy(kernels, ref_kernels, sizeof kernels);
    return ref_backend.stream_open(config, ret, err);
}

static struct stream *stream_close(struct stream *stream)
{
    return ref_backend.stream_close(stream);
}

static bool alloc(struct stream *stream, size_t size, void **ret, struct err *err)
{
    return ref_backend.alloc(stream, size, ret, err);
}

static void free_memory(struct stream *stream, void *memory)
{
    ref_backend.free(stream, memory);
}

static bool write_tensor(struct stream *stream, const struct tensor *tensor, const void *src, struct err *err)
{
    return ref_backend.write(stream, tensor, src, err);
}

static bool read_tensor(struct stream *stream, const struct tensor *tensor, void *dst, struct err *err)
{
    return ref_backend.read(stream, tensor, dst, err);
}

static void estimate(struct graph *graph, struct op *op)
{
    ref_backend.estimate(graph, op);
}

const struct backend cpu_backend = {
    .name = "cpu",
    .stream_open = stream_open,
    .stream_close = stream_close,
    .alloc = alloc,
    .free = free_memory,
    .write = write_tensor,
    .read = read_tensor,
    .kernels = kernels,
    .estimate = estimate,
    .library_bytes = 12 << 20,
};
