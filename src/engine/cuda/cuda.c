/* cuda.c - the table of the CUDA backend, and the one symbol of this object. */
#include "engine/cuda/jpeg.h"
#include "engine/cuda/kernels.h"
#include "engine/cuda/nvjpeg.h"
#include "engine/cuda_object.h"

#include <stdio.h>

static const struct kernel kernels[OP_COUNT] = {
    [OP_IMAGE] = {.prepare = cuda_image_prepare, .run = cuda_image},
    [OP_CONV2D] = {.prepare = cuda_conv2d_prepare,
                   .run = cuda_conv2d,
                   .release = cuda_conv2d_release,
                   .not_in_place = true},
    [OP_CONV2D_BACKWARD_DATA] = {.prepare = cuda_conv2d_backward_data_prepare,
                                 .run = cuda_conv2d_backward_data,
                                 .release = cuda_conv2d_release},
    [OP_CONV2D_BACKWARD_WEIGHT] = {.prepare = cuda_conv2d_backward_weight_prepare,
                                   .run = cuda_conv2d_backward_weight,
                                   .release = cuda_conv2d_release},
    [OP_BATCH_NORM] = {.prepare = cuda_batch_norm_prepare, .run = cuda_batch_norm},
    [OP_BATCH_NORM_BACKWARD] = {.prepare = cuda_batch_norm_backward_prepare, .run = cuda_batch_norm_backward},
    [OP_BATCH_NORM_APPLY] = {.run = cuda_batch_norm_apply},
    [OP_ACTIVATION] = {.run = cuda_activation},
    [OP_ACTIVATION_BACKWARD] = {.run = cuda_activation_backward},
    [OP_ADD] = {.run = cuda_add},
    [OP_SCALE] = {.run = cuda_scale},
    [OP_SCALE_BACKWARD] = {.run = cuda_scale_backward},
    [OP_DROPOUT] = {.run = cuda_dropout},
    [OP_DROPOUT_BACKWARD] = {.run = cuda_dropout_backward},
    [OP_MAX_POOL] = {.prepare = cuda_max_pool_prepare, .run = cuda_max_pool},
    [OP_MAX_POOL_BACKWARD] = {.run = cuda_max_pool_backward},
    [OP_GLOBAL_AVG_POOL] = {.run = cuda_global_avg_pool},
    [OP_GLOBAL_AVG_POOL_BACKWARD] = {.run = cuda_global_avg_pool_backward},
    [OP_LINEAR] = {.prepare = cuda_linear_prepare, .run = cuda_linear, .release = cuda_linear_release},
    [OP_LINEAR_BACKWARD_DATA] = {.prepare = cuda_linear_backward_data_prepare,
                                 .run = cuda_linear_backward_data,
                                 .release = cuda_linear_release},
    [OP_LINEAR_BACKWARD_WEIGHT] = {.prepare = cuda_linear_backward_weight_prepare,
                                   .run = cuda_linear_backward_weight,
                                   .release = cuda_linear_release},
    [OP_LAYER_NORM] = {.run = cuda_layer_norm},
    [OP_LAYER_NORM_BACKWARD] = {.prepare = cuda_layer_norm_backward_prepare, .run = cuda_layer_norm_backward},
    [OP_PATCHES] = {.run = cuda_patches},
    [OP_PATCHES_BACKWARD] = {.run = cuda_patches_backward},
    [OP_TOKENS] = {.run = cuda_tokens},
    [OP_TOKENS_BACKWARD] = {.run = cuda_tokens_backward},
    [OP_FIRST_TOKEN] = {.run = cuda_first_token},
    [OP_FIRST_TOKEN_BACKWARD] = {.run = cuda_first_token_backward},
    [OP_ATTENTION] = {.prepare = cuda_attention_prepare, .run = cuda_attention},
    [OP_ATTENTION_BACKWARD] = {.prepare = cuda_attention_backward_prepare, .run = cuda_attention_backward},
    [OP_CROSS_ENTROPY] = {.run = cuda_cross_entropy},
    [OP_CROSS_ENTROPY_BACKWARD] = {.run = cuda_cross_entropy_backward},
    [OP_POSITION_BIAS] = {.prepare = cuda_position_bias_prepare, .run = cuda_position_bias},
    [OP_POSITION_BIAS_BACKWARD] = {.prepare = cuda_position_bias_prepare, .run = cuda_position_bias_backward},
    [OP_WINDOW_ATTENTION] = {.prepare = cuda_window_attention_prepare, .run = cuda_window_attention},
    [OP_WINDOW_ATTENTION_BACKWARD] = {.prepare = cuda_window_attention_backward_prepare,
                                      .run = cuda_window_attention_backward},
    [OP_PATCH_MERGE] = {.prepare = cuda_patch_merge_prepare, .run = cuda_patch_merge},
    [OP_PATCH_MERGE_BACKWARD] = {.prepare = cuda_patch_merge_prepare, .run = cuda_patch_merge_backward},
    [OP_FOLD_BATCH_NORM] = {.prepare = cuda_fold_batch_norm_prepare, .run = cuda_fold_batch_norm},
    [OP_ADAM] = {.prepare = cuda_adam_prepare, .run = cuda_adam, .release = cuda_adam_release},
    [OP_REORDER] = {.run = cuda_reorder},
};

/* "CUDA 13.0, cuDNN 9.19.0, cuBLASLt 13.1.0, nvJPEG", or what is missing; nvJPEG may be. */
static const char *version(void)
{
    static char text[1200];
    struct err err;

    if (libs_open(&err))
        snprintf(text, sizeof text, "CUDA %d.%d, %s%s", CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10,
                 libs_version(), nvjpeg_open(&err) ? ", nvJPEG" : "");
    else
        snprintf(text, sizeof text, "%s", err.message);
    return text;
}

/* Everything else is hidden, so that names may be the CPU backend's too. */
__attribute__((visibility("default"))) extern const struct cuda_object rfuav_cuda_object;
const struct cuda_object rfuav_cuda_object = {
    .abi = CUDA_OBJECT_ABI,
    .backend =
        {
            .name = "cuda",
            .stream_open = stream_open,
            .stream_close = stream_close,
            .alloc = stream_alloc,
            .free = stream_free,
            .write = stream_write,
            .read = stream_read,
            .kernels = kernels,
            .version = version,
            .wait = stream_wait,
            .record = stream_record,
            .recorded = stream_recorded,
            .replay = stream_replay,
            .forget = stream_forget,
            .memory = stream_memory,
            .input_buffer = staging_buffer,
            .jpeg_open = jpeg_engines_open,
            .jpeg_decode = jpeg_engines_decode,
            .jpeg_ready = jpeg_engines_ready,
            .jpeg_close = jpeg_engines_close,
            .half_precision = true,
        },
};
