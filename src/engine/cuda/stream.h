/* stream.h - what the CUDA backend's kernels share: a device, its queue, the libraries' handles, layouts.
 *
 * Layouts. Activations are dense (N, H, W, C), which is plain, but for the network's first: its 3 channels are filled
 * up with zeros to 4 in F32 and 8 in BF16, since matrix units take no 3. Convolution weights (O, I, KH, KW) lie as (O,
 * KH, KW, I), I filled up likewise. In BF16 behind the floats of a weight lies its copy in BF16 (tensor->extra), made
 * when weights are written and by Adam.
 *
 * Blocked layouts, for the 7x7 convolution of stride 2 and padding 3 over images: four pixels are one of 16 channels
 * (2 by 2 by 3, and 4 zeros), with a border of 2 zeros before and 1 behind, so that it becomes a 4x4 convolution of
 * stride 1 without padding, which takes a third of the time. The image is (N, H/2+3, W/2+3, 16), the weight (O, 4, 4,
 * 16); weight[2a+p-1][2b+q-1] of channel c is number (p 2 + q) 3 + c at (a, b), where there is no such row or column
 * (-1) it is 0. */
#ifndef RFUAV_ENGINE_CUDA_STREAM_H
#define RFUAV_ENGINE_CUDA_STREAM_H

#include "engine/backend.h"
#include "engine/cuda/fault.h"
#include "engine/cuda/launch.h"
#include "engine/cuda/library.h"
#include "engine/cuda/sizes.h"

/* tensor->layout points to one of these. channels: as they lie, 0 for as many as the tensor has. */
struct layout {
    bool weight; /* (O, KH, KW, I); else an activation */
    bool blocked;
    int channels;
};
extern const struct layout layout_weight, layout_weight4, layout_weight8, layout_weight_blocked;
extern const struct layout layout_image4, layout_image8, layout_image_blocked;

struct staging;
struct cudnn_cache;

struct stream {
    int device;
    struct cudaDeviceProp properties;
    cudaStream_t queue;
    cudnnHandle_t cudnn;
    cublasLtHandle_t cublas;
    unsigned *ticket; /* a zero on the device, for Adam */
    struct staging *staging;
    struct cudnn_cache *cache;
    void *trial; /* device memory for timing algorithms, freed before real memory is taken */
    size_t trial_bytes;
    bool allow_tf32;
    bool deterministic; /* algorithms are not chosen by their time */
};

/* true for success, else as cuda_fail(). */
static inline bool cuda_ok(cudaError_t status, const char *what, struct err *err)
{
    return status == cudaSuccess || cuda_fail(status, what, err);
}

static inline enum number number_of(const struct tensor *tensor)
{
    return tensor->dtype == DTYPE_BF16 ? NUMBER_BF16 : NUMBER_F32;
}

static inline void *data_of(const struct tensor *tensor)
{
    return tensor ? tensor->data : NULL;
}

/* Channels of an activation, or input channels of a convolution's weight, as they lie in memory. */
int layout_channels(const struct tensor *tensor);

/* Numbers of a tensor as they lie: padding counted, the copy not. */
int64_t layout_numbers(const struct tensor *tensor);

bool layout_is_blocked(const struct tensor *tensor);

/* The layout of a convolution's weight that goes with x, the activation on its input side. */
const struct layout *layout_of_weight(const struct tensor *x);

/* Gives a weight that is not fixed its layout (NULL: a matrix); copy: with a copy in BF16 behind. */
void layout_set_weight(struct tensor *weight, const struct layout *layout, bool copy);

/* The weight in the numbers asked for: its floats or its bf16 copy. */
const void *layout_weight_data(const struct tensor *weight, enum number number);

/* At least `bytes` of device memory to time algorithms on, filled with numbers; dead at the next stream_alloc(). */
bool stream_trial(struct stream *stream, size_t bytes, void **ret, struct err *err);

/* Sets device and properties to those of the device with this UUID, or of the first one for NULL. */
bool stream_find_device(struct stream *stream, const char *uuid, struct err *err);

/* The backend's functions; see struct backend. */
bool stream_open(const struct stream_config *config, struct stream **ret, struct err *err);
struct stream *stream_close(struct stream *stream);
bool stream_alloc(struct stream *stream, size_t size, void **ret, struct err *err);
void stream_free(struct stream *stream, void *memory);
bool stream_write(struct stream *stream, const struct tensor *tensor, const void *src, struct err *err);
bool stream_read(struct stream *stream, const struct tensor *tensor, void *dst, struct err *err);
bool stream_wait(struct stream *stream, struct err *err);
bool stream_record(struct stream *stream, struct err *err);
bool stream_recorded(struct stream *stream, void **ret, struct err *err);
bool stream_replay(struct stream *stream, void *recording, struct err *err);
void stream_forget(void *recording);
bool stream_memory(struct stream *stream, uint64_t *used, uint64_t *total, struct err *err);

/* Pinned and device buffers that inputs pass through (staging.c), so that their copy overlaps with the step before. */
/* staging_buffer: the pinned one for the next large input; given as `src` to the next staging_write(), it is not
 * copied.
 */
bool staging_buffer(struct stream *stream, size_t bytes, void **ret, struct err *err);
bool staging_write(struct stream *stream, void *dst, const void *src, size_t bytes, struct err *err);
struct staging *staging_free(struct staging *staging);

#endif
