/* stream.h - what the CPU backend's kernels share: the oneDNN engine, the number of threads, the layouts in use.
 *
 * Layouts. An activation (N,H,W,C) lies as oneDNN's nChw16c (nChw8c without AVX-512): planes of `block` channels, which
 * is what its fastest convolutions want, Winograd among them. The last plane of an image is filled up with zeros, which
 * every op keeps; where that would be more than a quarter of the memory, the activation is plain. Images come in planes
 * of one channel. Every other activation is plain. Weights lie as the forward convolution asks. */
#ifndef RFUAV_ENGINE_CPU_STREAM_H
#define RFUAV_ENGINE_CPU_STREAM_H

#include <dnnl.h>

#include "engine/backend.h"
#include "engine/cpu/simd.h"

/* How a tensor lies, and what its plain form is. tensor->layout points to one; equal ones are the same pointer.
 * Weights that change rarely may lie there twice: behind them, at ready_offset, once more as Winograd transforms them,
 * a form that only some batch sizes can use and from which there is no way back. */
struct layout {
    dnnl_memory_desc_t md, plain;
    dnnl_memory_desc_t ready; /* if ready_offset > 0 */
    size_t ready_offset;      /* 0: not there */
    struct layout *next;
};

struct stream {
    dnnl_engine_t engine;
    dnnl_stream_t queue;
    int threads;
    const struct simd *simd;
    struct layout *layouts;
};

/* The loops that fit oneDNN's convolutions: both go by blocks of 16 channels only with AVX-512, which oneDNN may have
 * been told not to use (ONEDNN_MAX_CPU_ISA). */
const struct simd *stream_simd(void);

/* *err from a oneDNN status; always false. what: "convolution". */
bool stream_fail(dnnl_status_t status, const char *what, struct err *err);

/* Gives `tensor` the layout `md`, whose plain form is `plain` (same dims), and `ready` (NULL: not) behind; layout NULL
 * if it is plain alone. The tensor must not be fixed. */
bool stream_set_layout(struct stream *stream, struct tensor *tensor, const dnnl_memory_desc_t *md,
                       const dnnl_memory_desc_t *plain, const dnnl_memory_desc_t *ready, struct err *err);

/* How an activation lies; rank 4 as dims (N,C,H,W), else as a matrix of tensor_rows() by tensor_channels(). */
void activation_md(const struct tensor *tensor, dnnl_memory_desc_t *ret);

/* The plain and the preferred form of an activation, whatever it lies in now. They are equal when blocking does not
 * fit. */
void activation_plain_md(const struct tensor *tensor, dnnl_memory_desc_t *ret);
void activation_wanted_md(const struct stream *stream, const struct tensor *tensor, dnnl_memory_desc_t *ret);

/* How many planes an image of an activation has in the layout that is wanted of it; 0: it is wanted plain. And the
 * bytes of that layout. */
int64_t activation_planes(const struct simd *simd, const struct tensor *tensor);
size_t activation_wanted_bytes(const struct simd *simd, const struct tensor *tensor);

/* Channels of plane `plane`: the block, or less of the last one. */
int activation_plane_channels(const struct simd *simd, const struct tensor *tensor, int64_t plane);

/* Writes zeros behind the channels of an activation in planes, after an op that does not keep them. */
void activation_clear_padding(const struct stream *stream, const struct tensor *tensor);

/* Plane after plane, one channel each: how the first convolution wants images of up to three channels. */
void activation_planar_md(const struct tensor *tensor, dnnl_memory_desc_t *ret);

/* Gives an output its preferred layout unless it is fixed, and tells how it lies. */
bool activation_output_md(struct stream *stream, struct tensor *tensor, dnnl_memory_desc_t *ret, struct err *err);

/* Gives an output the layout of `like`, an activation of the same shape. */
void activation_like(struct tensor *tensor, const struct tensor *like);

/* Does it lie in planes of simd->block channels? */
bool activation_is_blocked(const struct stream *stream, const struct tensor *tensor);

/* Convolution weights (O, I/groups, KH, KW) as oneDNN sees them: with groups > 1 dims (groups, O/groups, ...). */
void weight_md(const struct tensor *tensor, int groups, dnnl_memory_desc_t *ret);
void weight_plain_md(const struct tensor *tensor, int groups, dnnl_memory_desc_t *ret);

void weight_any_md(const struct tensor *tensor, int groups, dnnl_memory_desc_t *ret); /* format to be chosen */

/* As it lies, or `any` while nobody has decided. */
void weight_problem_md(const struct tensor *tensor, int groups, dnnl_memory_desc_t *ret);

/* A plain matrix of floats, and a vector. */
void matrix_md(int64_t rows, int64_t columns, dnnl_memory_desc_t *ret);
void vector_md(int64_t n, dnnl_memory_desc_t *ret);

/* The backend's functions of memory; see struct backend. */
bool stream_open(const struct stream_config *config, struct stream **ret, struct err *err);
struct stream *stream_close(struct stream *stream);
bool stream_alloc(struct stream *stream, size_t size, void **ret, struct err *err);
void stream_free(struct stream *stream, void *memory);
bool stream_write(struct stream *stream, const struct tensor *tensor, const void *src, struct err *err);
bool stream_read(struct stream *stream, const struct tensor *tensor, void *dst, struct err *err);

#endif
