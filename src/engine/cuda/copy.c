/* copy.c - values between host and device, with the change of layout on the way; layouts themselves. See stream.h */
#include <string.h>

#include "engine/cuda/stream.h"

const struct layout layout_weight = {.weight = true};
const struct layout layout_weight4 = {.weight = true, .channels = 4};
const struct layout layout_weight8 = {.weight = true, .channels = 8};
const struct layout layout_image4 = {.channels = 4};
const struct layout layout_image8 = {.channels = 8};
const struct layout layout_weight_blocked = {.weight = true, .blocked = true, .channels = BLOCKED_CHANNELS};
const struct layout layout_image_blocked = {.blocked = true, .channels = BLOCKED_CHANNELS};

static const struct layout *layout_of(const struct tensor *tensor)
{
    return tensor->layout;
}

int layout_channels(const struct tensor *tensor)
{
    const struct layout *layout = layout_of(tensor);

    if (layout && layout->channels)
        return layout->channels;
    return (int)(layout && layout->weight ? tensor->shape[1] : tensor_channels(tensor));
}

bool layout_is_blocked(const struct tensor *tensor)
{
    return layout_of(tensor) && layout_of(tensor)->blocked;
}

int64_t layout_numbers(const struct tensor *tensor)
{
    const struct layout *layout = layout_of(tensor);
    const int64_t *s = tensor->shape;

    if (!layout || !layout->channels)
        return tensor_elements(tensor);
    if (layout->blocked)
        return layout->weight ? s[0] * BLOCKED_KERNEL * BLOCKED_KERNEL * BLOCKED_CHANNELS
                              : s[0] * (s[1] / 2 + BLOCKED_BORDER) * (s[2] / 2 + BLOCKED_BORDER) * BLOCKED_CHANNELS;
    return tensor_elements(tensor) / (layout->weight ? s[1] : tensor_channels(tensor)) * layout->channels;
}

const struct layout *layout_of_weight(const struct tensor *x)
{
    const struct layout *layout = layout_of(x);

    return layout == &layout_image_blocked ? &layout_weight_blocked
           : layout == &layout_image4      ? &layout_weight4
           : layout == &layout_image8      ? &layout_weight8
                                           : &layout_weight;
}

static size_t rounded(size_t bytes)
{
    return (bytes + WEIGHT_COPY_ALIGNMENT - 1) / WEIGHT_COPY_ALIGNMENT * WEIGHT_COPY_ALIGNMENT;
}

void layout_set_weight(struct tensor *weight, const struct layout *layout, bool copy)
{
    size_t floats;

    if (weight->fixed)
        return;
    weight->layout = layout;
    floats = (size_t)layout_numbers(weight) * dtype_size(weight->dtype);
    weight->extra = copy ? rounded(floats) - floats + (size_t)layout_numbers(weight) * dtype_size(DTYPE_BF16) : 0;
    weight->bytes = floats + weight->extra;
}

static void *copy_of(const struct tensor *weight)
{
    return weight->extra ? (char *)weight->data + rounded(weight->bytes - weight->extra) : NULL;
}

const void *layout_weight_data(const struct tensor *weight, enum number number)
{
    return number_of(weight) == number ? weight->data : copy_of(weight);
}

/* A device buffer for one conversion: cudaMalloc, as conversions happen when weights are loaded or saved only. */
static bool temporary(size_t bytes, void **ret, struct err *err)
{
    return cuda_ok(cudaMalloc(ret, bytes), "a copy of weights", err);
}

/* (O, I, KH, KW) floats as (O, KH, KW, I). */
static bool write_weight(struct stream *stream, const struct tensor *tensor, const void *src, struct err *err)
{
    int64_t out = tensor->shape[0];
    int in = (int)tensor->shape[1], area = (int)(tensor->shape[2] * tensor->shape[3]);
    size_t bytes = (size_t)tensor_elements(tensor) * sizeof(float);
    void *plain;
    bool ok;

    if (tensor->dtype != DTYPE_F32)
        return err_set(err, ERR_BUG, "weights are written as F32 only");
    if (!temporary(bytes, &plain, err))
        return false;
    ok = cuda_ok(cudaMemcpyAsync(plain, src, bytes, cudaMemcpyHostToDevice, stream->queue), "a copy of weights", err) &&
         cuda_ok(layout_is_blocked(tensor) ? blocked_weight_pack(stream->queue, plain, out, tensor->data)
                                           : weight_pack(stream->queue, plain, out, in, area, layout_channels(tensor),
                                                         number_of(tensor), tensor->data),
                 "a copy of weights", err) &&
         stream_wait(stream, err);
    cudaFree(plain);
    return ok;
}

static bool read_weight(struct stream *stream, const struct tensor *tensor, void *dst, struct err *err)
{
    int64_t out = tensor->shape[0], count = tensor_elements(tensor);
    int in = (int)tensor->shape[1], area = (int)(tensor->shape[2] * tensor->shape[3]);
    float *plain;
    void *last;
    bool ok;

    if (!temporary(2 * (size_t)count * sizeof(float), &last, err))
        return false;
    plain = (float *)last + count;
    ok = cuda_ok(layout_is_blocked(tensor)
                     ? blocked_weight_unpack(stream->queue, number_of(tensor), tensor->data, out, plain)
                     : weight_unpack(stream->queue, number_of(tensor), tensor->data, out, in, area,
                                     layout_channels(tensor), plain),
                 "a copy of weights", err) &&
         cuda_ok(numbers_copy(stream->queue, NUMBER_F32, plain, number_of(tensor), last, count), "a copy of weights",
                 err) &&
         cuda_ok(cudaMemcpyAsync(dst, last, tensor_plain_bytes(tensor), cudaMemcpyDeviceToHost, stream->queue),
                 "a copy of weights", err) &&
         stream_wait(stream, err);
    cudaFree(last);
    return ok;
}

/* An activation with padded channels. */
static bool read_padded(struct stream *stream, const struct tensor *tensor, void *dst, struct err *err)
{
    void *plain;
    bool ok;

    if (layout_is_blocked(tensor))
        return err_set(err, ERR_BUG, "an image in blocks cannot be read");
    if (!temporary(tensor_plain_bytes(tensor), &plain, err))
        return false;
    ok = cuda_ok(channels_copy(stream->queue, number_of(tensor), tensor->data, tensor_rows(tensor),
                               layout_channels(tensor), (int)tensor_channels(tensor), plain),
                 "a copy to the host", err) &&
         cuda_ok(cudaMemcpyAsync(dst, plain, tensor_plain_bytes(tensor), cudaMemcpyDeviceToHost, stream->queue),
                 "a copy to the host", err) &&
         stream_wait(stream, err);
    cudaFree(plain);
    return ok;
}

bool stream_write(struct stream *stream, const struct tensor *tensor, const void *src, struct err *err)
{
    const struct layout *layout = layout_of(tensor);
    bool ok;

    if (tensor->role == TENSOR_INPUT)
        return staging_write(stream, tensor->data, src, tensor_plain_bytes(tensor), err);
    if (layout && layout->weight)
        ok = write_weight(stream, tensor, src, err);
    else if (layout)
        return err_set(err, ERR_BUG, "only weights and plain tensors can be written");
    else
        ok = cuda_ok(
                 cudaMemcpyAsync(tensor->data, src, tensor_plain_bytes(tensor), cudaMemcpyHostToDevice, stream->queue),
                 "a copy to the GPU", err) &&
             stream_wait(stream, err);
    if (ok && tensor->extra)
        ok = cuda_ok(
            numbers_copy(stream->queue, NUMBER_F32, tensor->data, NUMBER_BF16, copy_of(tensor), layout_numbers(tensor)),
            "a copy of weights", err);
    return ok;
}

bool stream_read(struct stream *stream, const struct tensor *tensor, void *dst, struct err *err)
{
    const struct layout *layout = layout_of(tensor);

    if (layout)
        return layout->weight ? read_weight(stream, tensor, dst, err) : read_padded(stream, tensor, dst, err);
    return cuda_ok(
               cudaMemcpyAsync(dst, tensor->data, tensor_plain_bytes(tensor), cudaMemcpyDeviceToHost, stream->queue),
               "a copy to the host", err) &&
           stream_wait(stream, err);
}
