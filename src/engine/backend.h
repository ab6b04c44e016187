/* backend.h - what a kind of device must offer: memory, copies, and one kernel for each op.
 *
 * How a graph becomes a run (plan.c):
 *   1. prepare of every op, in the order in which they will run, prologue last. No memory exists yet: kernels choose
 *      algorithms and layouts and book scratch.
 *   2. Lifetimes give every tensor an offset in one arena; memory is allocated once; tensor->data and op->scratch are
 *      set. They change only when the arena has to grow for another plan: run reads them each time.
 *   3. run of every op, for each step. It only launches: it allocates nothing and waits for nothing. Values that change
 *      from step to step (images, labels, Adam's step count, statistics) are tensors, so that a device can record the
 *      launches of a step once and replay them.
 *
 * Layouts. The producer of a tensor decides its layout; consumers take the layout they find, or book scratch and
 * reorder into it.
 *   - Before an op's prepare its outputs are set to plain (layout NULL, bytes dense). prepare may set layout and bytes
 * of outputs that are not `fixed`. INPUT tensors are plain and fixed.
 *   - Persistent and DERIVED inputs that are not fixed yet: the first op that uses them decides. Its prepare may set
 *     layout and bytes; afterwards they are fixed for all plans of the net. So a convolution picks its weight's layout,
 *     and FOLD_BATCH_NORM, prepared after the convolutions, writes the layout that it finds in its outputs.
 *   - The gradient of a PARAM, and its MOMENTs, have the parameter's layout; they come to prepare fixed. That makes the
 *     optimizer element-wise over raw memory; padding must stay 0 in weights and gradients.
 *   - A layout may be any pointer that the backend interns for the life of its stream. */
#ifndef RFUAV_ENGINE_BACKEND_H
#define RFUAV_ENGINE_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/graph.h"

struct stream;       /* a backend's own: a device, its queue, its interned layouts */
struct jpeg_engines; /* likewise: what decodes JPEG */
struct jpeg_picture;

struct stream_config {
    const char *device; /* cuda: the GPU's UUID; else NULL */
    int threads;        /* CPU threads; 0: all cores */
    bool deterministic; /* algorithms are chosen without timing them, so that every process chooses alike */
};

/* One row per op. A row without `run` is missing: plan_new() names the op. */
struct kernel {
    /* (optional; absent: everything plain, no scratch) Called once per plan. Sets layouts and bytes as said above,
     * op->scratch_bytes, op->state. Memory for the state: graph_alloc(). */
    bool (*prepare)(struct stream *stream, struct graph *graph, struct op *op, struct err *err);
    bool (*run)(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err);
    /* (optional) Gives back what op->state holds beyond graph_alloc(); op->state may be NULL. */
    void (*release)(struct op *op);
    /* Knows plain activations only: the plan puts a REORDER before each input in another layout. (`ref`'s rows are so,
     * which lets another backend borrow them.) */
    bool plain;
    /* Output memory must not be an input's memory. */
    bool not_in_place;
};

struct backend {
    const char *name; /* "ref", "cpu", "cuda" */

    bool (*available)(void); /* (optional) Is its code there? Opens nothing. */

    bool (*stream_open)(const struct stream_config *config, struct stream **ret, struct err *err);
    struct stream *(*stream_close)(struct stream *stream); /* accepts and returns NULL */

    /* Device memory, zeroed, aligned to 64 bytes or more. */
    bool (*alloc)(struct stream *stream, size_t size, void **ret, struct err *err);
    void (*free)(struct stream *stream, void *memory); /* accepts NULL */

    /* Copies between host bytes, plain in the tensor's shape and dtype, and tensor->data in its layout. write may
     * return before the copy is done only if `src` may be reused at once; read waits for all work before it. */
    bool (*write)(struct stream *stream, const struct tensor *tensor, const void *src, struct err *err);
    bool (*read)(struct stream *stream, const struct tensor *tensor, void *dst, struct err *err);

    const struct kernel *kernels; /* [OP_COUNT] */

    /* (optional, all or none) A device that runs beside the host. wait: until all work is done. record: what is
     * enqueued from now on is kept, not run; recorded: ends that and gives the recording; replay: enqueues it; forget:
     * frees it. A recording holds addresses, so it is good until memory moves. */
    bool (*wait)(struct stream *stream, struct err *err);
    bool (*record)(struct stream *stream, struct err *err);
    bool (*recorded)(struct stream *stream, void **ret, struct err *err);
    bool (*replay)(struct stream *stream, void *recording, struct err *err);
    void (*forget)(void *recording); /* accepts NULL */

    /* (optional) Bytes in use on the device, by anybody, and what there are. */
    bool (*memory)(struct stream *stream, uint64_t *used, uint64_t *total, struct err *err);

    /* (optional) Host memory from which the device copies by itself, for the next write of an INPUT of that many bytes;
     * waits until what was in it has left. */
    bool (*input_buffer)(struct stream *stream, size_t bytes, void **ret, struct err *err);

    /* (optional, all or none) JPEG by engines of the device, see jpeg.h. decode, ready: on any thread. */
    bool (*jpeg_open)(const char *device, int image_size, struct jpeg_engines **ret, struct err *err);
    bool (*jpeg_decode)(struct jpeg_engines *engines, const struct jpeg_picture *picture, uint8_t *out);
    bool (*jpeg_ready)(struct jpeg_engines *engines);
    struct jpeg_engines *(*jpeg_close)(struct jpeg_engines *engines);

    int oldest_capability; /* major compute capability of a GPU that it can use; 0: any */
    bool half_precision;   /* BF16 activations and gradients (precision.h) */

    /* Activations of at least so many bytes are rather made again in the backward than kept (recompute.h): where memory
     * is scarcer than time; inference nets there keep no weights but those that are read in each run. 0: all are kept.
     */
    size_t recompute_bytes;

    /* The rest needs no stream and touches no device: for the forecast of memory in the daemon (net_plan). */
    /* (optional) Sets op->scratch_bytes, and bytes of outputs and of DERIVED inputs, to what prepare is likely to
     * choose; they come as plain sizes, STATE outputs as 0. Called once for ops of equal attributes, shapes and roles.
     */
    void (*estimate)(struct graph *graph, struct op *op);
    int input_copies;             /* device buffers that inputs pass through, each as large as all inputs of a call */
    uint64_t library_bytes;       /* resident memory of process and libraries beyond what is planned, measured */
    const char *(*version)(void); /* (optional) "oneDNN 2.6.3" */
};

/* NULL: unknown. A backend that this build can only forecast for has no stream_open. */
const struct backend *backend_find(const char *name);

#endif
