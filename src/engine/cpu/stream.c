/* stream.c - opening oneDNN, threads, memory and layouts of the CPU backend. */
#include "engine/cpu/stream.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifdef _OPENMP
#include <omp.h>
#else
/* Built without OpenMP; oneDNN brings its runtime along all the same. */
extern void omp_set_num_threads(int threads) __attribute__((weak));
#endif

enum { MEMORY_ALIGNMENT = 64, HUGE = 4 << 20 };

static size_t align(size_t size)
{
    return (size + MEMORY_ALIGNMENT - 1) / MEMORY_ALIGNMENT * MEMORY_ALIGNMENT;
}

bool stream_fail(dnnl_status_t status, const char *what, struct err *err)
{
    static const char *const names[] = {"success",       "out of memory", "invalid arguments", "unimplemented",
                                        "iterator ends", "runtime error", "not required"};
    const char *name = (size_t)status < sizeof names / sizeof *names ? names[status] : "unknown";

    return err_set(err, status == dnnl_out_of_memory ? ERR_MEMORY : ERR_DEVICE, "oneDNN %s: %s (%d)", what, name,
                   (int)status);
}

const struct simd *stream_simd(void)
{
    return simd_best((dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core);
}

/* The cores that this process may run on. */
static int available_cores(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set) < 0)
        return 1;
    return CPU_COUNT(&set);
}

bool stream_open(const struct stream_config *config, struct stream **ret, struct err *err)
{
    struct stream *stream = calloc(1, sizeof *stream);
    dnnl_status_t status;

    if (!stream)
        return err_set(err, ERR_MEMORY, "no memory for the CPU stream");
    stream->threads = config->threads > 0 ? config->threads : available_cores();
    stream->simd = stream_simd();
#ifndef _OPENMP
    if (omp_set_num_threads)
#endif
        omp_set_num_threads(stream->threads); /* oneDNN reads it when it makes a primitive and when it runs one */
    status = dnnl_engine_create(&stream->engine, dnnl_cpu, 0);
    if (status == dnnl_success)
        status = dnnl_stream_create(&stream->queue, stream->engine, dnnl_stream_default_flags);
    if (status != dnnl_success) {
        stream_close(stream);
        return stream_fail(status, "engine", err);
    }
    *ret = stream;
    return true;
}

struct stream *stream_close(struct stream *stream)
{
    if (!stream)
        return NULL;
    while (stream->layouts) {
        struct layout *next = stream->layouts->next;

        free(stream->layouts);
        stream->layouts = next;
    }
    if (stream->queue)
        dnnl_stream_destroy(stream->queue);
    if (stream->engine)
        dnnl_engine_destroy(stream->engine);
    free(stream);
    return NULL;
}

/* Before each piece of memory: where its block begins, and how long it is if it was mapped. */
struct block {
    void *begin;
    size_t mapped; /* 0: from calloc */
};

/* Large blocks are mapped in huge pages where the system offers them: a step goes through hundreds of megabytes, and
 * page faults and address translation are a good part of it in pages of 4 KiB. Both kinds come zeroed without being
 * touched, so that the peak is what a run uses. */
bool stream_alloc(struct stream *stream, size_t size, void **ret, struct err *err)
{
    size_t total = align(size) + sizeof(struct block) + MEMORY_ALIGNMENT;
    struct block block = {0};
    char *memory;

    (void)stream;
    if (total < size)
        return err_set(err, ERR_MEMORY, "no memory for %zu bytes", size);
    if (total >= HUGE) {
        block.begin = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        block.mapped = total;
        if (block.begin == MAP_FAILED)
            block.begin = NULL;
        else
            madvise(block.begin, total, MADV_HUGEPAGE);
    } else {
        block.begin = calloc(1, total);
    }
    if (!block.begin)
        return err_set(err, ERR_MEMORY, "no memory for %zu bytes", size);
    memory = (char *)block.begin + sizeof block;
    memory += (MEMORY_ALIGNMENT - (uintptr_t)memory % MEMORY_ALIGNMENT) % MEMORY_ALIGNMENT;
    memcpy(memory - sizeof block, &block, sizeof block);
    *ret = memory;
    return true; // cppcheck-suppress memleak
}

void stream_free(struct stream *stream, void *memory)
{
    struct block block;

    (void)stream;
    if (!memory)
        return;
    memcpy(&block, (char *)memory - sizeof block, sizeof block);
    if (block.mapped)
        munmap(block.begin, block.mapped);
    else
        free(block.begin);
}

/* One copy, with a change of layout on the way. */
static bool convert(struct stream *stream, const dnnl_memory_desc_t *from_md, void *from,
                    const dnnl_memory_desc_t *to_md, void *to, struct err *err)
{
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_memory_t memory[2] = {NULL, NULL};
    dnnl_status_t status =
        dnnl_reorder_primitive_desc_create(&desc, from_md, stream->engine, to_md, stream->engine, NULL);

    if (status == dnnl_success)
        status = dnnl_primitive_create(&reorder, desc);
    if (status == dnnl_success)
        status = dnnl_memory_create(&memory[0], from_md, stream->engine, from);
    if (status == dnnl_success)
        status = dnnl_memory_create(&memory[1], to_md, stream->engine, to);
    if (status == dnnl_success) {
        dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, memory[0]}, {DNNL_ARG_TO, memory[1]}};

        status = dnnl_primitive_execute(reorder, stream->queue, 2, args);
    }
    for (int i = 0; i < 2; i++)
        if (memory[i])
            dnnl_memory_destroy(memory[i]);
    if (reorder)
        dnnl_primitive_destroy(reorder);
    if (desc)
        dnnl_primitive_desc_destroy(desc);
    return status == dnnl_success || stream_fail(status, "reorder", err);
}

bool stream_write(struct stream *stream, const struct tensor *tensor, const void *src, struct err *err)
{
    const struct layout *layout = tensor->layout;

    if (layout)
        return convert(stream, &layout->plain, (void *)(uintptr_t)src, &layout->md, tensor->data, err);
    memcpy(tensor->data, src, tensor_plain_bytes(tensor));
    return true;
}

bool stream_read(struct stream *stream, const struct tensor *tensor, void *dst, struct err *err)
{
    const struct layout *layout = tensor->layout;

    if (layout)
        return convert(stream, &layout->md, tensor->data, &layout->plain, dst, err);
    memcpy(dst, tensor->data, tensor_plain_bytes(tensor));
    return true;
}

static bool layout_is(const struct layout *layout, const dnnl_memory_desc_t *md, const dnnl_memory_desc_t *plain,
                      const dnnl_memory_desc_t *ready)
{
    return dnnl_memory_desc_equal(&layout->md, md) && dnnl_memory_desc_equal(&layout->plain, plain) &&
           !layout->ready_offset == !ready && (!ready || dnnl_memory_desc_equal(&layout->ready, ready));
}

bool stream_set_layout(struct stream *stream, struct tensor *tensor, const dnnl_memory_desc_t *md,
                       const dnnl_memory_desc_t *plain, const dnnl_memory_desc_t *ready, struct err *err)
{
    struct layout *layout = stream->layouts;

    if (dnnl_memory_desc_equal(md, plain) && !ready) {
        tensor->layout = NULL;
        tensor->bytes = tensor_plain_bytes(tensor);
        return true;
    }
    while (layout && !layout_is(layout, md, plain, ready))
        layout = layout->next;
    if (!layout) {
        layout = calloc(1, sizeof *layout);
        if (!layout)
            return err_set(err, ERR_MEMORY, "no memory for a layout");
        layout->md = *md;
        layout->plain = *plain;
        if (ready) {
            layout->ready = *ready;
            layout->ready_offset = align(dnnl_memory_desc_get_size(md));
        }
        layout->next = stream->layouts;
        stream->layouts = layout;
    }
    tensor->layout = layout;
    tensor->bytes = ready ? layout->ready_offset + dnnl_memory_desc_get_size(ready) : dnnl_memory_desc_get_size(md);
    return true;
}

/* All dims here come from tensors, whose shapes the graph has bounded, so that describing them cannot fail. */
static void init_md(dnnl_memory_desc_t *ret, int rank, const dnnl_dim_t *dims, dnnl_format_tag_t tag)
{
    dnnl_dims_t all = {0};

    memcpy(all, dims, (size_t)rank * sizeof *dims);
    dnnl_memory_desc_init_by_tag(ret, rank, all, dnnl_f32, tag);
}

static int activation_dims(const struct tensor *tensor, dnnl_dim_t *dims)
{
    const int64_t *s = tensor->shape;

    if (tensor->rank == 4) {
        dims[0] = s[0]; // (N, H, W, C) as (N, C, H, W)
        dims[1] = s[3];
        dims[2] = s[1];
        dims[3] = s[2];
        return 4;
    }
    dims[0] = tensor_rows(tensor);
    dims[1] = tensor_channels(tensor);
    return 2;
}

void activation_plain_md(const struct tensor *tensor, dnnl_memory_desc_t *ret)
{
    dnnl_dims_t dims = {0};
    int rank = activation_dims(tensor, dims);

    init_md(ret, rank, dims, rank == 4 ? dnnl_nhwc : dnnl_ab);
}

void activation_wanted_md(const struct stream *stream, const struct tensor *tensor, dnnl_memory_desc_t *ret)
{
    dnnl_dims_t dims = {0};
    int rank = activation_dims(tensor, dims), block = stream->simd->block;

    if (activation_planes(stream->simd, tensor))
        init_md(ret, rank, dims, block == 16 ? dnnl_nChw16c : dnnl_nChw8c);
    else
        activation_plain_md(tensor, ret);
}

int64_t activation_planes(const struct simd *simd, const struct tensor *tensor)
{
    int64_t channels = tensor_channels(tensor), planes = (channels + simd->block - 1) / simd->block;

    return tensor->rank == 4 && tensor->dtype == DTYPE_F32 && 3 * planes * simd->block <= 4 * channels ? planes : 0;
}

size_t activation_wanted_bytes(const struct simd *simd, const struct tensor *tensor)
{
    int64_t planes = activation_planes(simd, tensor);

    return planes ? (size_t)(tensor_rows(tensor) * planes * simd->block) * sizeof(float) : tensor_plain_bytes(tensor);
}

int activation_plane_channels(const struct simd *simd, const struct tensor *tensor, int64_t plane)
{
    int64_t left = tensor_channels(tensor) - plane * simd->block;

    return left < simd->block ? (int)left : simd->block;
}

void activation_clear_padding(const struct stream *stream, const struct tensor *tensor)
{
    int block = stream->simd->block;
    int64_t planes = activation_planes(stream->simd, tensor);
    int channels = planes ? activation_plane_channels(stream->simd, tensor, planes - 1) : block;

    if (channels == block || !activation_is_blocked(stream, tensor))
        return;
    for (int64_t image = 0; image < tensor->shape[0]; image++)
        for (int64_t pixel = 0; pixel < tensor->shape[1] * tensor->shape[2]; pixel++) {
            int64_t at = ((image + 1) * planes - 1) * tensor->shape[1] * tensor->shape[2] + pixel;

            memset((float *)tensor->data + at * block + channels, 0, (size_t)(block - channels) * sizeof(float));
        }
}

void activation_md(const struct tensor *tensor, dnnl_memory_desc_t *ret)
{
    const struct layout *layout = tensor->layout;

    if (layout)
        *ret = layout->md;
    else
        activation_plain_md(tensor, ret);
}

void activation_planar_md(const struct tensor *tensor, dnnl_memory_desc_t *ret)
{
    dnnl_dims_t dims = {0};

    init_md(ret, activation_dims(tensor, dims), dims, dnnl_nchw);
}

bool activation_output_md(struct stream *stream, struct tensor *tensor, dnnl_memory_desc_t *ret, struct err *err)
{
    dnnl_memory_desc_t plain;

    if (!tensor->fixed) {
        activation_wanted_md(stream, tensor, ret);
        activation_plain_md(tensor, &plain);
        if (!stream_set_layout(stream, tensor, ret, &plain, NULL, err))
            return false;
    }
    activation_md(tensor, ret);
    return true;
}

void activation_like(struct tensor *tensor, const struct tensor *like)
{
    if (!tensor->fixed) {
        tensor->layout = like->layout;
        tensor->bytes = like->bytes;
    }
}

bool activation_is_blocked(const struct stream *stream, const struct tensor *tensor)
{
    dnnl_memory_desc_t md, wanted;

    activation_md(tensor, &md);
    activation_wanted_md(stream, tensor, &wanted);
    return tensor->layout && dnnl_memory_desc_equal(&md, &wanted);
}

static void weight_init_md(const struct tensor *tensor, int groups, bool any, dnnl_memory_desc_t *ret)
{
    const int64_t *s = tensor->shape;
    const dnnl_dims_t grouped = {groups, s[0] / groups, s[1], s[2], s[3]};

    if (groups > 1)
        init_md(ret, 5, grouped, any ? dnnl_format_tag_any : dnnl_goihw);
    else
        init_md(ret, 4, s, any ? dnnl_format_tag_any : dnnl_oihw);
}

void weight_plain_md(const struct tensor *tensor, int groups, dnnl_memory_desc_t *ret)
{
    weight_init_md(tensor, groups, false, ret);
}

void weight_any_md(const struct tensor *tensor, int groups, dnnl_memory_desc_t *ret)
{
    weight_init_md(tensor, groups, true, ret);
}

void weight_md(const struct tensor *tensor, int groups, dnnl_memory_desc_t *ret)
{
    const struct layout *layout = tensor->layout;

    if (layout)
        *ret = layout->md;
    else
        weight_plain_md(tensor, groups, ret);
}

void weight_problem_md(const struct tensor *tensor, int groups, dnnl_memory_desc_t *ret)
{
    if (tensor->fixed)
        weight_md(tensor, groups, ret);
    else
        weight_any_md(tensor, groups, ret);
}

void matrix_md(int64_t rows, int64_t columns, dnnl_memory_desc_t *ret)
{
    const dnnl_dim_t dims[] = {rows, columns};

    init_md(ret, 2, dims, dnnl_ab);
}

void vector_md(int64_t n, dnnl_memory_desc_t *ret)
{
    init_md(ret, 1, &n, dnnl_a);
}
