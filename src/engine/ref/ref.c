/* ref.c - the reference backend: memory, copies and the table of kernels. See ref.h */
#include "engine/ref/ref.h"

#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

struct stream {
    int threads;
};

static const char hwio;
const void *const ref_layout_hwio = &hwio;

static bool stream_open(const struct stream_config *config, struct stream **ret, struct err *err)
{
    struct stream *stream = calloc(1, sizeof *stream);

    if (!stream)
        return err_set(err, ERR_MEMORY, "no memory for a stream");
    stream->threads = config->threads;
#ifdef _OPENMP
    omp_set_num_threads(config->threads > 0 ? config->threads : omp_get_num_procs());
#endif
    *ret = stream;
    return true;
}

static struct stream *stream_close(struct stream *stream)
{
    free(stream);
    return NULL;
}

static bool alloc(struct stream *stream, size_t size, void **ret, struct err *err)
{
    size_t rounded = (size + 63) / 64 * 64;
    void *memory = rounded < size ? NULL : aligned_alloc(64, rounded ? rounded : 64);

    (void)stream;
    if (!memory)
        return err_set(err, ERR_MEMORY, "no memory for %zu bytes", size);
    memset(memory, 0, rounded);
    *ret = memory;
    return true;
}

static void free_memory(struct stream *stream, void *memory)
{
    (void)stream;
    free(memory);
}

/* Between (O, I, KH, KW) on the host and (KH, KW, I, O) here. */
static void copy_weights(const struct tensor *tensor, float *hwio_data, float *oihw_data, bool to_hwio)
{
    int64_t out = tensor->shape[0], in = tensor->shape[1], area = tensor->shape[2] * tensor->shape[3];

    for (int64_t o = 0; o < out; o++)
        for (int64_t i = 0; i < in; i++)
            for (int64_t k = 0; k < area; k++) {
                float *a = &hwio_data[(k * in + i) * out + o], *b = &oihw_data[(o * in + i) * area + k];

                if (to_hwio)
                    *a = *b;
                else
                    *b = *a;
            }
}

static bool write_tensor(struct stream *stream, const struct tensor *tensor, const void *src, struct err *err)
{
    (void)stream, (void)err;
    if (tensor->layout == ref_layout_hwio)
        copy_weights(tensor, tensor->data, (float *)(uintptr_t)src, true);
    else
        memcpy(tensor->data, src, tensor->bytes);
    return true;
}

static bool read_tensor(struct stream *stream, const struct tensor *tensor, void *dst, struct err *err)
{
    (void)stream, (void)err;
    if (tensor->layout == ref_layout_hwio)
        copy_weights(tensor, tensor->data, dst, false);
    else
        memcpy(dst, tensor->data, tensor->bytes);
    return true;
}

const struct kernel ref_kernels[OP_COUNT] = {
    [OP_IMAGE] = {.run = ref_image, .plain = true},
    [OP_CONV2D] = {.prepare = ref_conv2d_prepare, .run = ref_conv2d, .plain = true},
    [OP_CONV2D_BACKWARD_DATA] = {.run = ref_conv2d_backward_data, .plain = true},
    [OP_CONV2D_BACKWARD_WEIGHT] = {.run = ref_conv2d_backward_weight, .plain = true},
    [OP_BATCH_NORM] = {.prepare = ref_batch_norm_prepare, .run = ref_batch_norm, .plain = true},
    [OP_BATCH_NORM_BACKWARD] = {.prepare = ref_batch_norm_backward_prepare,
                                .run = ref_batch_norm_backward,
                                .plain = true},
    [OP_LAYER_NORM] = {.run = ref_layer_norm, .plain = true},
    [OP_LAYER_NORM_BACKWARD] = {.prepare = ref_layer_norm_backward_prepare,
                                .run = ref_layer_norm_backward,
                                .plain = true},
    [OP_BATCH_NORM_APPLY] = {.run = ref_batch_norm_apply, .plain = true},
    [OP_ACTIVATION] = {.run = ref_activation, .plain = true},
    [OP_ACTIVATION_BACKWARD] = {.run = ref_activation_backward, .plain = true},
    [OP_ADD] = {.run = ref_add, .plain = true},
    [OP_SCALE] = {.run = ref_scale, .plain = true},
    [OP_SCALE_BACKWARD] = {.run = ref_scale_backward, .plain = true},
    [OP_DROPOUT] = {.run = ref_dropout, .plain = true},
    [OP_DROPOUT_BACKWARD] = {.run = ref_dropout_backward, .plain = true},
    [OP_MAX_POOL] = {.prepare = ref_max_pool_prepare, .run = ref_max_pool, .plain = true},
    [OP_MAX_POOL_BACKWARD] = {.run = ref_max_pool_backward, .plain = true},
    [OP_GLOBAL_AVG_POOL] = {.run = ref_global_avg_pool, .plain = true},
    [OP_GLOBAL_AVG_POOL_BACKWARD] = {.run = ref_global_avg_pool_backward, .plain = true},
    [OP_LINEAR] = {.run = ref_linear, .plain = true},
    [OP_LINEAR_BACKWARD_DATA] = {.run = ref_linear_backward_data, .plain = true},
    [OP_LINEAR_BACKWARD_WEIGHT] = {.run = ref_linear_backward_weight, .plain = true},
    [OP_PATCHES] = {.run = ref_patches, .plain = true},
    [OP_PATCHES_BACKWARD] = {.run = ref_patches_backward, .plain = true},
    [OP_TOKENS] = {.run = ref_tokens, .plain = true},
    [OP_TOKENS_BACKWARD] = {.run = ref_tokens_backward, .plain = true},
    [OP_FIRST_TOKEN] = {.run = ref_first_token, .plain = true},
    [OP_FIRST_TOKEN_BACKWARD] = {.run = ref_first_token_backward, .plain = true},
    [OP_ATTENTION] = {.prepare = ref_attention_prepare, .run = ref_attention, .plain = true},
    [OP_ATTENTION_BACKWARD] = {.run = ref_attention_backward, .plain = true},
    [OP_CROSS_ENTROPY] = {.run = ref_cross_entropy, .plain = true},
    [OP_CROSS_ENTROPY_BACKWARD] = {.run = ref_cross_entropy_backward, .plain = true},
    [OP_POSITION_BIAS] = {.run = ref_position_bias, .plain = true},
    [OP_POSITION_BIAS_BACKWARD] = {.run = ref_position_bias_backward, .plain = true},
    [OP_WINDOW_ATTENTION] = {.prepare = ref_window_attention_prepare, .run = ref_window_attention, .plain = true},
    [OP_WINDOW_ATTENTION_BACKWARD] = {.prepare = ref_window_attention_prepare,
                                      .run = ref_window_attention_backward,
                                      .plain = true},
    [OP_PATCH_MERGE] = {.run = ref_patch_merge, .plain = true},
    [OP_PATCH_MERGE_BACKWARD] = {.run = ref_patch_merge_backward, .plain = true},
    [OP_FOLD_BATCH_NORM] = {.prepare = ref_fold_batch_norm_prepare, .run = ref_fold_batch_norm},
    [OP_ADAM] = {.run = ref_adam},
    [OP_REORDER] = {.run = ref_reorder},
};

/* As the kernels' prepare would choose. */
static void estimate(struct graph *graph, struct op *op)
{
    struct err err;

    if (ref_kernels[op->type].prepare)
        ref_kernels[op->type].prepare(NULL, graph, op, &err);
}

const struct backend ref_backend = {
    .name = "ref",
    .stream_open = stream_open,
    .stream_close = stream_close,
    .alloc = alloc,
    .free = free_memory,
    .write = write_tensor,
    .read = read_tensor,
    .kernels = ref_kernels,
    .estimate = estimate,
    .library_bytes = 12 << 20,
};
