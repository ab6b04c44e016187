/* launch.h - the CUDA kernels of our own as C functions: each enqueues its work on a stream and returns what the launch
 * said. Activations are dense (rows, channels), channels last; `enum number` tells what activations hold, statistics
 * and parameters of batch norm are floats. Sums run in a fixed order: equal inputs give equal bits. */
#ifndef RFUAV_ENGINE_CUDA_LAUNCH_H
#define RFUAV_ENGINE_CUDA_LAUNCH_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/cuda/sizes.h"

#include "engine/op.h"

#ifdef __cplusplus
extern "C" {
#endif

enum number { NUMBER_F32, NUMBER_BF16 };

/* --- batch norm (norm.cu) ------------------------------------------------------------------------------------------
 */

/* The shared arguments. scratch: norm_scratch_bytes(); clusters: the device has them (compute capability 9).
 * mask: one bit a number, set where y > 0, or NULL; only where channels are a multiple of 8. */
struct norm_launch {
    enum number number;
    int64_t rows;
    int channels;
    enum activation activation;
    bool clusters;
    float eps, momentum;
    void *scratch;
};

struct norm_forward_args {
    const void *x, *residual; /* residual may be NULL, or y's memory */
    const float *weight, *bias;
    float *running_mean, *running_var;
    int64_t *batches;
    float *save_mean, *save_invstd; /* training; norm_apply reads them */
    void *y;
    uint8_t *mask;
};

struct norm_backward_args {
    const void *dy, *dy2, *x, *y; /* dy2, y may be NULL */
    const uint8_t *mask;          /* instead of y */
    const float *bias;            /* for an activation whose slope follows from what goes into it; else NULL */
    const float *weight, *save_mean, *save_invstd;
    void *dx, *dresidual; /* dresidual may be NULL; each may be dy's or dy2's memory */
    float *dweight, *dbias;
};

size_t norm_scratch_bytes(int64_t rows, int channels);
cudaError_t norm_forward_training(cudaStream_t stream, const struct norm_launch *launch,
                                  const struct norm_forward_args *f);
cudaError_t norm_forward_inference(cudaStream_t stream, const struct norm_launch *launch,
                                   const struct norm_forward_args *f);
/* y alone, from the statistics that norm_forward_training() has saved. */
cudaError_t norm_apply(cudaStream_t stream, const struct norm_launch *launch, const struct norm_forward_args *f);
cudaError_t norm_backward(cudaStream_t stream, const struct norm_launch *launch, const struct norm_backward_args *b);

/* out[c] = sum over rows of x[row][c], for gradients of biases. Scratch as above. */
cudaError_t column_sums(cudaStream_t stream, const struct norm_launch *launch, const void *x, float *out);

/* --- elementwise (elementwise.cu) ----------------------------------------------------------------------------------
 */

/* (rows, 3) bytes to (rows, channels) numbers in [0, 1]; channels past 3 become 0. */
cudaError_t image_convert(cudaStream_t stream, enum number number, const uint8_t *x, int64_t rows, int channels,
                          void *y);

/* y = act(x + bias[c] + residual); bias, residual may be NULL; y may be x or residual. y's numbers may differ from x's.
 */
cudaError_t epilogue(cudaStream_t stream, enum number in, enum number out, const void *x, int64_t rows, int channels,
                     const void *bias, enum number bias_number, const void *residual, enum activation activation,
                     void *y);

/* dx = dy act'(at); at: y or x, as the activation needs */
cudaError_t activation_backward(cudaStream_t stream, enum number number, enum activation activation, const void *dy,
                                const void *at, int64_t count, void *dx);

/* Dropout as op.h has it, of `count` numbers in rows of `row` (0: each draws for itself). residual may be NULL; y may
 * be x or residual. step: device memory. */
struct dropout_launch {
    enum number number;
    int64_t count, row;
    float p;
    uint64_t seed;
    uint32_t op; /* running number */
    const int64_t *step;
};
cudaError_t dropout(cudaStream_t stream, const struct dropout_launch *d, const void *x, const void *residual, void *y);

/* Between (O, I, area) floats and (O, area, padded I) numbers, zeros in the padding; and back. */
cudaError_t weight_pack(cudaStream_t stream, const float *oihw, int64_t out, int in, int area, int padded,
                        enum number number, void *packed);
cudaError_t weight_unpack(cudaStream_t stream, enum number number, const void *packed, int64_t out, int in, int area,
                          int padded, float *oihw);

/* (rows, from channels) to (rows, to channels): cut, or filled up with zeros. */
cudaError_t channels_copy(cudaStream_t stream, enum number number, const void *x, int64_t rows, int from, int to,
                          void *y);

cudaError_t numbers_copy(cudaStream_t stream, enum number from, const void *x, enum number to, void *y, int64_t count);

/* weight2[o] = s[o] weight[o] over rows of `row` numbers, bias2 = bn_bias + s (bias - mean), s = bn_weight / sqrt(var +
 * eps); weight2 and bias2 hold `number`s. bias may be NULL. */
struct fold_launch {
    const float *weight, *bias, *bn_weight, *bn_bias, *running_mean, *running_var;
    int64_t out, row;
    float eps;
    enum number number;
    void *weight2, *bias2;
};
cudaError_t fold_batch_norm(cudaStream_t stream, const struct fold_launch *f);

/* Small normal-looking numbers, for timing. */
cudaError_t numbers_fill(cudaStream_t stream, enum number number, void *x, int64_t count);

/* The stream does nothing for so many microseconds. */
cudaError_t device_pause(cudaStream_t stream, int us);

/* --- blocked images and weights (blocked.cu), see stream.h ----------------------------------------------------------
 */

/* (n, h, w, 3) bytes to (n, h/2+3, w/2+3, 16) numbers in [0, 1], the border included. */
cudaError_t image_block(cudaStream_t stream, enum number number, const uint8_t *x, int n, int h, int w, void *y);

/* Between (out, 3, 7, 7) and (out, 4, 4, 16) floats, or numbers on the way back. */
cudaError_t blocked_weight_pack(cudaStream_t stream, const float *oihw, int64_t out, float *packed);
cudaError_t blocked_weight_unpack(cudaStream_t stream, enum number number, const void *packed, int64_t out,
                                  float *oihw);

/* Zeros where (out, 4, 4, 16) stands for no weight. */
cudaError_t blocked_weight_mask(cudaStream_t stream, enum number number, int64_t out, void *packed);

/* --- layer norm (layer_norm.cu) ------------------------------------------------------------------------------------
 */

struct layer_norm_args {
    const void *x, *residual; /* residual may be NULL; y may be either's memory */
    const float *weight, *bias;
    void *y;
    float *save_mean, *save_invstd; /* both NULL in inference */
};

struct layer_norm_backward_args {
    const void *dy, *x, *add; /* add may be NULL; dx may be the memory of any of them */
    const float *weight, *save_mean, *save_invstd;
    void *dx;
    float *dweight, *dbias;
};

size_t layer_norm_scratch_bytes(int64_t rows, int channels); /* of the backward */
cudaError_t layer_norm(cudaStream_t stream, enum number number, int64_t rows, int channels, float eps,
                       const struct layer_norm_args *args);
cudaError_t layer_norm_backward(cudaStream_t stream, enum number number, int64_t rows, int channels, void *scratch,
                                const struct layer_norm_backward_args *args);

/* --- attention (attention.cu, attention_mma.cu) ----------------------------------------------------------------------
 */

enum { ATTENTION_MOST_DIM = 128 };

/* heads of dim channels, at most ATTENTION_MOST_DIM; scale as in op.h, above 0. stats: a float for each row of each
 * head. */
struct attention_launch {
    enum number number;
    int n, tokens, heads, dim;
    float scale;
};

struct attention_backward_args {
    const void *dy, *qkv, *y;
    const float *stats;
    float *products; /* scratch */
    void *dqkv;
};

size_t attention_scratch_bytes(const struct attention_launch *a); /* of the backward */
cudaError_t attention(cudaStream_t stream, const struct attention_launch *a, const void *qkv, void *y, float *stats);
cudaError_t attention_backward(cudaStream_t stream, const struct attention_launch *a,
                               const struct attention_backward_args *b);

/* --- tokens (tokens.cu), see op.h ------------------------------------------------------------------------------------
 */

struct patches_launch {
    int n, h, w, channels, size;
};
cudaError_t patches(cudaStream_t stream, enum number number, const struct patches_launch *p, bool bytes, const void *x,
                    void *y);
cudaError_t patches_backward(cudaStream_t stream, enum number number, const struct patches_launch *p, const void *dy,
                             void *dx);

/* tokens: the class token counted. */
struct tokens_launch {
    int n, tokens, channels;
};
cudaError_t tokens(cudaStream_t stream, enum number number, const struct tokens_launch *t, const void *x,
                   const float *class_token, const float *pos_embedding, void *y);
cudaError_t tokens_backward(cudaStream_t stream, enum number number, const struct tokens_launch *t, const void *dy,
                            void *dx, void *dclass_token, void *dpos_embedding);
cudaError_t first_token(cudaStream_t stream, enum number number, const struct tokens_launch *t, const void *x, void *y);
cudaError_t first_token_backward(cudaStream_t stream, enum number number, const struct tokens_launch *t, const void *dy,
                                 void *dx);

/* --- pooling (pool.cu) ---------------------------------------------------------------------------------------------
 */

struct pool_launch {
    enum number number;
    int n, h, w, channels, oh, ow;
    int kernel[2], stride[2], padding[2];
};
/* where: for each output the position in its window, or NULL. */
cudaError_t max_pool(cudaStream_t stream, const struct pool_launch *p, const void *x, void *y, uint8_t *where);
cudaError_t max_pool_backward(cudaStream_t stream, const struct pool_launch *p, const void *dy, const uint8_t *where,
                              void *dx);
cudaError_t global_avg_pool(cudaStream_t stream, enum number number, const void *x, int n, int plane, int channels,
                            void *y);
cudaError_t global_avg_pool_backward(cudaStream_t stream, enum number number, const void *dy, int n, int plane,
                                     int channels, void *dx);

/* --- loss (loss.cu) ------------------------------------------------------------------------------------------------
 */

cudaError_t cross_entropy(cudaStream_t stream, const float *logits, const int32_t *labels, int n, int classes,
                          float *loss, float *probabilities, double *stats);
cudaError_t cross_entropy_backward(cudaStream_t stream, const float *probabilities, const int32_t *labels, int n,
                                   int classes, enum number number, void *dlogits);

/* --- Adam (adam.cu) ------------------------------------------------------------------------------------------------
 */

/* One parameter; `copy`: its bf16 copy, written too, or NULL. */
struct adam_tensor {
    float *param, *exp_avg, *exp_avg_sq;
    const void *grad;
    void *copy;
    int64_t count;
    enum number grad_number;
};
/* Which part of which parameter a block of threads takes. */
struct adam_chunk {
    int tensor;
    int64_t first;
};
enum { ADAM_CHUNK = 4096 };
struct adam_launch {
    const struct adam_tensor *tensors; /* device memory */
    const struct adam_chunk *chunks;   /* device memory */
    int chunk_count;
    int64_t *step;
    bool counts_step; /* step += 1 in the end */
    unsigned *ticket; /* a zero, left as a zero */
    double learning_rate, beta1, beta2;
    float eps;
};
cudaError_t adam_update(cudaStream_t stream, const struct adam_launch *a);

/* --- direct convolution (direct.cu): any shape, slow; for what cuDNN has no engine for ------------------------------
 */

struct direct_launch {
    enum number number;        /* of x, y, dx, dy and the weights */
    enum number weight_number; /* of dweight */
    int n, h, w, c, oh, ow, o; /* c: channels of x as they lie */
    int kernel[2], stride[2], padding[2], groups;
};
/* weight (O, KH, KW, c / groups) */
cudaError_t direct_forward(cudaStream_t stream, const struct direct_launch *d, const void *x, const void *weight,
                           void *y);
cudaError_t direct_backward_data(cudaStream_t stream, const struct direct_launch *d, const void *dy, const void *weight,
                                 void *dx);
cudaError_t direct_backward_weight(cudaStream_t stream, const struct direct_launch *d, const void *dy, const void *x,
                                   void *dweight);

/* --- attention in windows (window.cu), see op.h ----------------------------------------------------------------------
 */

struct window_launch {
    enum number number;
    int images, height, width, channels, heads; /* channels: WINDOW_DIM a head */
    int rows, columns, shift[2];                /* windows of WINDOW_SIDE pixels squared; see window.h */
    int processors;                             /* of the device */
};

/* dqkv may be qkv's memory. */
struct window_gradients {
    void *dqkv;
    float *dqkv_bias;
    void *dlogit_scale, *dtable;
    enum number scale_number, table_number;
};

cudaError_t window_attention(cudaStream_t stream, const struct window_launch *l, const void *qkv, const float *qkv_bias,
                             const float *logit_scale, const float *table, void *y);
size_t window_scratch_bytes(const struct window_launch *l); /* of the backward */
cudaError_t window_attention_backward(cudaStream_t stream, const struct window_launch *l, const void *dy,
                                      const void *qkv, const float *qkv_bias, const float *logit_scale,
                                      const float *table, void *scratch, const struct window_gradients *d);

/* --- position bias and patch merging of Swin v2 (swin.cu), see op.h -------------------------------------------------
 */

enum { POSITION_MOST_HEADS = 32 };

struct position_launch {
    int places, middle, heads; /* heads: POSITION_MOST_HEADS at most */
    const float *coords, *weight1, *bias1, *weight2;
};
cudaError_t position_bias(cudaStream_t stream, const struct position_launch *l, float *table);
/* `number`: of the gradients of the weights. */
cudaError_t position_bias_backward(cudaStream_t stream, const struct position_launch *l, const float *dtable,
                                   const float *table, enum number number, void *dweight1, float *dbias1,
                                   void *dweight2);

/* (n, h, w, channels) to (n, (h+1)/2, (w+1)/2, 4 channels), and back. */
cudaError_t patch_merge(cudaStream_t stream, enum number number, const void *x, int n, int h, int w, int channels,
                        void *y);
cudaError_t patch_merge_backward(cudaStream_t stream, enum number number, const void *dy, int n, int h, int w,
                                 int channels, void *dx);

/* --- depthwise convolution (depthwise.cu) --------------------------------------------------------------------------
 */

/* Is it a depthwise convolution of 3x3 or 5x5 that keeps the size but for its stride of 1 or 2, with a multiple of 8
 * channels? Only for those are the rest. */
bool depthwise_fits(const struct direct_launch *d);

struct depthwise_epilogue {
    const void *bias; /* or NULL */
    enum number bias_number;
    enum activation activation;
};

/* weight (C, K, K) in d's numbers */
cudaError_t depthwise_forward(cudaStream_t stream, const struct direct_launch *d, const struct depthwise_epilogue *e,
                              const void *x, const void *weight, void *y);
cudaError_t depthwise_backward_data(cudaStream_t stream, const struct direct_launch *d, const void *dy,
                                    const void *weight, void *dx);
/* scratch: depthwise_scratch_bytes() of sizes.h */
cudaError_t depthwise_backward_weight(cudaStream_t stream, const struct direct_launch *d, const void *dy, const void *x,
                                      void *scratch, void *dweight);

/* --- linear layers over a few rows (few_rows.cu) --------------------------------------------------------------------
 */

enum { FEW_ROWS = 16 }; /* at most so many; `in` is a multiple of 8 */

struct few_rows_launch {
    enum number number, result; /* of x, weight and dy; of y or dweight */
    int rows, in, out;
    enum activation activation; /* of the forward */
};
cudaError_t few_rows_forward(cudaStream_t stream, const struct few_rows_launch *l, const void *x, const void *weight,
                             const float *bias, void *y);
/* dbias: of either numbers, or NULL */
cudaError_t few_rows_gradient(cudaStream_t stream, const struct few_rows_launch *l, const void *dy, const void *x,
                              void *dweight, void *dbias, enum number bias_number);

/* --- squeeze and excitation (scale.cu) -----------------------------------------------------------------------------
 */

/* (n, plane, channels) times (n, channels) */
cudaError_t scale(cudaStream_t stream, enum number number, const void *x, const void *s, int n, int plane, int channels,
                  void *y);
/* dx = dy s, which may be dy's memory; ds = sums of dy x over the plane */
cudaError_t scale_backward(cudaStream_t stream, enum number number, const void *dy, const void *x, const void *s, int n,
                           int plane, int channels, void *dx, void *ds);

#ifdef __cplusplus
}
#endif

#endif
