/* cpu.c - the table of the CPU backend. */
#include "engine/cpu/cpu.h"

#include <stdio.h>

#include "engine/cpu/estimate.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/stream.h"
#include "engine/ref/ref.h"

static const struct kernel kernels[OP_COUNT] = {
    [OP_IMAGE] = {.prepare = cpu_image_prepare, .run = cpu_image},
    [OP_CONV2D] = {.prepare = cpu_conv2d_prepare, .run = cpu_conv2d, .release = cpu_conv2d_release},
    [OP_CONV2D_BACKWARD_DATA] = {.prepare = cpu_conv2d_backward_data_prepare,
                                 .run = cpu_conv2d_backward_data,
                                 .release = cpu_conv2d_release},
    [OP_CONV2D_BACKWARD_WEIGHT] = {.prepare = cpu_conv2d_backward_weight_prepare,
                                   .run = cpu_conv2d_backward_weight,
                                   .release = cpu_conv2d_release},
    [OP_BATCH_NORM] = {.prepare = cpu_batch_norm_prepare, .run = cpu_batch_norm, .release = cpu_batch_norm_release},
    [OP_BATCH_NORM_BACKWARD] = {.prepare = cpu_batch_norm_backward_prepare,
                                .run = cpu_batch_norm_backward,
                                .release = cpu_batch_norm_release},
    [OP_LAYER_NORM] = {.run = cpu_layer_norm, .plain = true},
    [OP_LAYER_NORM_BACKWARD] = {.prepare = cpu_layer_norm_backward_prepare,
                                .run = cpu_layer_norm_backward,
                                .plain = true},
    [OP_BATCH_NORM_APPLY] = {.prepare = cpu_batch_norm_apply_prepare,
                             .run = cpu_batch_norm_apply,
                             .release = cpu_batch_norm_release},
    [OP_ACTIVATION] = {.prepare = cpu_activation_prepare, .run = cpu_activation},
    [OP_ACTIVATION_BACKWARD] = {.prepare = cpu_pair_prepare,
                                .run = cpu_activation_backward,
                                .release = cpu_pair_release},
    [OP_ADD] = {.prepare = cpu_pair_prepare, .run = cpu_add, .release = cpu_pair_release},
    [OP_SCALE] = {.prepare = cpu_scale_prepare, .run = cpu_scale, .release = cpu_scale_release},
    [OP_SCALE_BACKWARD] = {.prepare = cpu_scale_backward_prepare,
                           .run = cpu_scale_backward,
                           .release = cpu_scale_release},
    [OP_DROPOUT] = {.run = ref_dropout, .plain = true},
    [OP_DROPOUT_BACKWARD] = {.run = ref_dropout_backward, .plain = true},
    [OP_MAX_POOL] = {.prepare = cpu_max_pool_prepare, .run = cpu_max_pool, .release = cpu_pool_release},
    [OP_MAX_POOL_BACKWARD] = {.prepare = cpu_max_pool_backward_prepare,
                              .run = cpu_max_pool_backward,
                              .release = cpu_pool_release},
    [OP_GLOBAL_AVG_POOL] = {.prepare = cpu_global_avg_pool_prepare,
                            .run = cpu_global_avg_pool,
                            .release = cpu_pool_release},
    [OP_GLOBAL_AVG_POOL_BACKWARD] = {.prepare = cpu_global_avg_pool_backward_prepare,
                                     .run = cpu_global_avg_pool_backward},
    [OP_LINEAR] = {.prepare = cpu_linear_prepare, .run = cpu_linear, .release = cpu_linear_release, .plain = true},
    [OP_LINEAR_BACKWARD_DATA] = {.prepare = cpu_linear_backward_data_prepare,
                                 .run = cpu_linear_backward_data,
                                 .release = cpu_linear_release,
                                 .plain = true},
    [OP_LINEAR_BACKWARD_WEIGHT] = {.prepare = cpu_linear_backward_weight_prepare,
                                   .run = cpu_linear_backward_weight,
                                   .release = cpu_linear_release,
                                   .plain = true},
    [OP_PATCHES] = {.run = cpu_patches, .plain = true},
    [OP_PATCHES_BACKWARD] = {.run = ref_patches_backward, .plain = true},
    [OP_TOKENS] = {.run = cpu_tokens, .plain = true},
    [OP_TOKENS_BACKWARD] = {.run = cpu_tokens_backward, .plain = true},
    [OP_FIRST_TOKEN] = {.run = ref_first_token, .plain = true},
    [OP_FIRST_TOKEN_BACKWARD] = {.run = ref_first_token_backward, .plain = true},
    [OP_ATTENTION] = {.prepare = cpu_attention_prepare, .run = cpu_attention, .plain = true},
    [OP_ATTENTION_BACKWARD] = {.prepare = cpu_attention_backward_prepare, .run = cpu_attention_backward, .plain = true},
    [OP_CROSS_ENTROPY] = {.run = ref_cross_entropy, .plain = true},
    [OP_CROSS_ENTROPY_BACKWARD] = {.run = ref_cross_entropy_backward, .plain = true},
    [OP_POSITION_BIAS] = {.prepare = cpu_position_bias_prepare, .run = cpu_position_bias, .plain = true},
    [OP_POSITION_BIAS_BACKWARD] = {.prepare = cpu_position_bias_prepare,
                                   .run = cpu_position_bias_backward,
                                   .plain = true},
    [OP_WINDOW_ATTENTION] = {.prepare = cpu_window_attention_prepare, .run = cpu_window_attention, .plain = true},
    [OP_WINDOW_ATTENTION_BACKWARD] = {.prepare = cpu_window_attention_prepare,
                                      .run = cpu_window_attention_backward,
                                      .plain = true},
    [OP_PATCH_MERGE] = {.run = cpu_patch_merge, .plain = true},
    [OP_PATCH_MERGE_BACKWARD] = {.run = cpu_patch_merge_backward, .plain = true},
    [OP_FOLD_BATCH_NORM] = {.prepare = cpu_fold_batch_norm_prepare,
                            .run = cpu_fold_batch_norm,
                            .release = cpu_fold_batch_norm_release},
    [OP_ADAM] = {.run = cpu_adam},
    [OP_REORDER] = {.prepare = cpu_reorder_prepare, .run = cpu_reorder, .release = cpu_reorder_release},
};

static const char *version(void)
{
    static char text[64];
    const dnnl_version_t *v = dnnl_version();

    snprintf(text, sizeof text, "oneDNN %d.%d.%d (%s)", v->major, v->minor, v->patch, stream_simd()->name);
    return text;
}

const struct backend cpu_backend = {
    .name = "cpu",
    .stream_open = stream_open,
    .stream_close = stream_close,
    .alloc = stream_alloc,
    .free = stream_free,
    .write = stream_write,
    .read = stream_read,
    .kernels = kernels,
    .estimate = cpu_estimate,
    .library_bytes = 24 << 20,
    .version = version,
};
