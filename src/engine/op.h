/* op.h - the operations that a graph is made of: names, numbers of inputs and outputs, and what each one means.
 *
 * Shapes. Activations are (N, H, W, C) or (N, …, C): channels last, whatever a backend does physically. Parameters have
 * torchvision's shapes: convolution weights (O, I/groups, KH, KW), linear weights (O, I). Everything is F32 unless
 * said. A gradient has the shape of what it is the gradient of. The backend `ref` is the definition of every op; this
 * is the summary. `?` marks a slot that may be absent (NO_TENSOR), `*` one that is written too (always a persistent
 * tensor), `act` is attrs.activation, applied last; no backward op has one unless said.
 *
 * IMAGE: x U8 (N,H,W,3) -> y
 *     y = x / 255. attrs.kernel, stride, padding: those of the convolution that is its only reader, 0 when it is
 * another op or there are several; a backend may lay y out for it.
 *
 * CONV2D: x, weight, bias?, residual? -> y
 * CONV2D_BACKWARD_DATA: dy, weight -> dx
 * CONV2D_BACKWARD_WEIGHT: dy, x -> dweight, dbias?
 *     y = act(conv(x, weight) + bias + residual), cross-correlation as in PyTorch
 *
 * BATCH_NORM: x, weight, bias, running_mean*, running_var*, num_batches_tracked*, residual?
 *             -> y, save_mean?, save_invstd?, mask?
 *     y = act((x - mean) / sqrt(var + eps) * weight + bias + residual), mean and var for each of the C channels.
 *     attrs.training: mean and biased variance of the batch; running = (1 - momentum) running + momentum batch, with
 *     the unbiased variance (0 when there is one value a channel); num_batches_tracked += 1; save_* (C) are for the
 *     backward; mask is a STATE (below) for backends that would rather keep bits than look at y again.
 *     Else: the running ones; nothing is written; save_* and mask are absent.
 * BATCH_NORM_BACKWARD: dy, x, y?, weight, save_mean, save_invstd, mask?, dy2?, bias?
 *                      -> dx, dweight, dbias, dresidual?
 *     g = (dy + dy2) act'; dresidual = g; the others follow from g. act is the one whose backward it is: act' from y
 *     or, for an activation that needs what went into it, from (x - mean) invstd weight + bias, and then bias is given
 *     and there was no residual (activation.h).
 *     dy2: the second of two gradients of y, added here instead of by an ADD of its own.
 *     With RELU y is there, or a mask that the forward has written: the plan then takes y away, so that it need not
 *     live on.
 * BATCH_NORM_APPLY: x, weight, bias, save_mean, save_invstd, residual? -> y
 *     What BATCH_NORM has computed (up to rounding), once more from what it has saved; writes nothing else. It has no
 *     gradient: recompute.h puts it into the backward, when gradients are there.
 *
 * LAYER_NORM: x (…,C), weight, bias, residual? -> y, save_mean?, save_invstd?
 *     y = (x - mean) / sqrt(var + eps) * weight + bias + residual, mean and biased variance of each row of C numbers;
 *     save_* (rows) are for the backward, absent in inference.
 * LAYER_NORM_BACKWARD: dy, x, weight, save_mean, save_invstd, add? -> dx, dweight, dbias
 *     add: a gradient of x that came another way; dx is the sum of the two.
 *
 * ACTIVATION: x -> y
 * ACTIVATION_BACKWARD: dy, y or x -> dx     (act is the one whose backward it is; which one: activation.h)
 * ADD: a, b -> y
 *     y = act(a + b)
 *
 * SCALE: x (N,H,W,C), s (N,C) -> y
 * SCALE_BACKWARD: dy, x, s -> dx, ds
 *     y = x s: every channel of every image has a factor of its own (squeeze and excitation).
 *
 * DROPOUT: x, step I64 (), residual? -> y
 * DROPOUT_BACKWARD: dy, step -> dx
 *     y = x m / (1 - p) + residual with m 0 or 1, each number's own, or with attrs.rows each image's (one for an index
 *     of the first dimension: stochastic depth). Element e (of x as it is plain, or of the images) has word e % 4 of
 *     philox_dropout(attrs.seed, attrs.number, step, e / 4), and m = 1 where that is at least p 2^32. Nothing is kept
 *     for the backward, which draws the same.
 *
 * MAX_POOL: x -> y, where?
 * MAX_POOL_BACKWARD: dy, where -> dx
 *     Padding counts as -inf; of equal values the first in (kh, kw) order gets the gradient. where: a STATE, absent in
 *     inference.
 * GLOBAL_AVG_POOL: x (N,H,W,C) -> y (N,C)
 * GLOBAL_AVG_POOL_BACKWARD: dy (N,C) -> dx (N,H,W,C)
 *
 * LINEAR: x (…,I), weight (O,…), bias? (O), residual? -> y (…,O)
 * LINEAR_BACKWARD_DATA: dy (…,O), weight -> dx (…,I)
 * LINEAR_BACKWARD_WEIGHT: dy, x -> dweight, dbias?
 *     y = act(x weight^T + bias + residual); the weight's dimensions after the first are taken as one, I
 *
 * PATCHES: x (N,H,W,C) F32 or U8 -> y (N,L,C K K)
 * PATCHES_BACKWARD: dy -> dx
 *     The image cut into L = (H / K) (W / K) squares, row by row, K = attrs.kernel[0], each as the weight of a
 *     convolution has it: (C,K,K). Of bytes y = x / 255.
 *
 * TOKENS: x (N,L,C), class_token (1,1,C), pos_embedding (1,L+1,C) -> y (N,L+1,C)
 * TOKENS_BACKWARD: dy -> dx, dclass_token, dpos_embedding
 *     y = concatenation(class_token, x) + pos_embedding
 * FIRST_TOKEN: x (N,L,C) -> y (N,C)
 * FIRST_TOKEN_BACKWARD: dy -> dx
 *     y[n] = x[n][0]
 *
 * ATTENTION: qkv (N,L,3C) -> y (N,L,C), stats?
 * ATTENTION_BACKWARD: dy, qkv, y, stats -> dqkv
 *     For each of attrs.heads heads of D = C / heads channels, with its slices Q, K, V (L,D) of the three parts of qkv:
 *     y's slice = softmax(attrs.scale Q K^T) V. stats: a STATE for the backward, absent in inference.
 *
 * CROSS_ENTROPY: logits (N,K), labels I32 (N), stats*? F64 (4) -> loss (), probabilities (N,K)
 * CROSS_ENTROPY_BACKWARD: probabilities, labels -> dlogits
 *     loss: mean over N of -log softmax(logits)[label]; dlogits for dloss = 1.
 *     stats += {loss, 1, images whose arg-max is right, N}; of equal logits the first is the arg-max.
 *
 * POSITION_BIAS: coords (1,A,A,2), weight1 (M,2), bias1 (M), weight2 (heads,M) -> table (heads,A A)
 * POSITION_BIAS_BACKWARD: dtable, table, coords, weight1, bias1, weight2 -> dweight1, dbias1, dweight2
 *     table = 16 sigmoid(relu(coords weight1^T + bias1) weight2^T)^T, for each distance of two places in a window, A =
 *     2 window - 1: the continuous position bias of Swin v2 (Liu et al. 2022). Stays F32.
 *
 * WINDOW_ATTENTION: qkv (N,H,W,3 C), qkv_bias (3 C), logit_scale (heads,1,1), table (heads,A A) -> y (N,H,W,C)
 * WINDOW_ATTENTION_BACKWARD: dy, qkv, qkv_bias, logit_scale, table -> dqkv, dqkv_bias, dlogit_scale, dtable
 *     Cosine attention of Swin v2 in windows of attrs.kernel pixels. The image is filled up with zeros below and right
 *     to whole windows and rolled up and left by attrs.shift (0 where one window is all). In each window and head, with
 *     q and v after their bias, k without (torchvision zeroes it):
 *     y_i = sum_j softmax_j(exp(min(logit_scale, ln 100)) cos(q_i, k_j) + table[place i - place j] + mask_ij) v_j;
 *     lengths of q and k count as at least 1e-12; mask is -100 where i and j were no neighbours before the roll
 *     (window.h). A padded pixel has qkv 0 and takes part. dqkv_bias of k is 0.
 *
 * PATCH_MERGE: x (N,H,W,C) -> y (N,ceil(H/2),ceil(W/2),4 C)
 * PATCH_MERGE_BACKWARD: dy -> dx
 *     Pixels (0,0), (1,0), (0,1), (1,1) (row, column) of each 2 by 2, one after the other; 0 beyond the image.
 *
 * FOLD_BATCH_NORM: weight, bias?, bn_weight, bn_bias, running_mean, running_var -> weight2, bias2
 *     s = bn_weight / sqrt(running_var + eps); weight2[o] = s[o] weight[o]; bias2 = bn_bias + s (bias - running_mean)
 *
 * ADAM: step* I64 (), then for each parameter: param*, grad, exp_avg*, exp_avg_sq*
 *     torch.optim.Adam: step += 1; m = beta1 m + (1-beta1) g; v = beta2 v + (1-beta2) g^2;
 *     param -= lr / (1-beta1^step) * m / (sqrt(v) / sqrt(1-beta2^step) + eps).
 *     Element-wise over raw memory: the four have one layout. Of several in a graph only the last, counts_step, leaves
 *     step changed; it comes after every op that reads step.
 *
 * REORDER: x -> y
 *     The same values in y's layout.
 *
 * STATE: a tensor with role TENSOR_STATE is opaque: the forward kernel's prepare sets its bytes (0: not used), the
 * backward kernel of the same backend reads it. */
#ifndef RFUAV_ENGINE_OP_H
#define RFUAV_ENGINE_OP_H

#include <stdbool.h>
#include <stdint.h>

/* name; most inputs (-1: any number), most outputs; then for outputs 0 and 3 the set of inputs whose memory the output
 * may take over when that input is not needed afterwards (bit i: input i). A kernel must therefore work both in place
 * and not; a backend can forbid it for a row (struct kernel). */
#define OPS(X)                                                                                                         \
    X(IMAGE, 1, 1, 0, 0)                                                                                               \
    X(CONV2D, 4, 1, 1 << 3, 0)                                                                                         \
    X(CONV2D_BACKWARD_DATA, 2, 1, 0, 0)                                                                                \
    X(CONV2D_BACKWARD_WEIGHT, 2, 2, 0, 0)                                                                              \
    X(BATCH_NORM, 7, 4, 1 << 0 | 1 << 6, 0)                                                                            \
    X(BATCH_NORM_BACKWARD, 9, 4, 1 << 0 | 1 << 7, 1 << 0 | 1 << 7)                                                     \
    X(LAYER_NORM, 4, 3, 1 << 0 | 1 << 3, 0)                                                                            \
    X(LAYER_NORM_BACKWARD, 6, 3, 1 << 0 | 1 << 1 | 1 << 5, 0)                                                          \
    X(BATCH_NORM_APPLY, 6, 1, 1 << 0 | 1 << 5, 0)                                                                      \
    X(ACTIVATION, 1, 1, 1 << 0, 0)                                                                                     \
    X(ACTIVATION_BACKWARD, 2, 1, 1 << 0, 0)                                                                            \
    X(ADD, 2, 1, 1 << 0 | 1 << 1, 0)                                                                                   \
    X(SCALE, 2, 1, 1 << 0, 0)                                                                                          \
    X(SCALE_BACKWARD, 3, 2, 1 << 0, 0)                                                                                 \
    X(DROPOUT, 3, 1, 1 << 0 | 1 << 2, 0)                                                                               \
    X(DROPOUT_BACKWARD, 2, 1, 1 << 0, 0)                                                                               \
    X(MAX_POOL, 1, 2, 0, 0)                                                                                            \
    X(MAX_POOL_BACKWARD, 2, 1, 0, 0)                                                                                   \
    X(GLOBAL_AVG_POOL, 1, 1, 0, 0)                                                                                     \
    X(GLOBAL_AVG_POOL_BACKWARD, 1, 1, 0, 0)                                                                            \
    X(LINEAR, 4, 1, 1 << 3, 0)                                                                                         \
    X(LINEAR_BACKWARD_DATA, 2, 1, 0, 0)                                                                                \
    X(LINEAR_BACKWARD_WEIGHT, 2, 2, 0, 0)                                                                              \
    X(PATCHES, 1, 1, 0, 0)                                                                                             \
    X(PATCHES_BACKWARD, 1, 1, 0, 0)                                                                                    \
    X(TOKENS, 3, 1, 0, 0)                                                                                              \
    X(TOKENS_BACKWARD, 1, 3, 0, 0)                                                                                     \
    X(FIRST_TOKEN, 1, 1, 0, 0)                                                                                         \
    X(FIRST_TOKEN_BACKWARD, 1, 1, 0, 0)                                                                                \
    X(ATTENTION, 1, 2, 0, 0)                                                                                           \
    X(ATTENTION_BACKWARD, 4, 1, 0, 0)                                                                                  \
    X(CROSS_ENTROPY, 3, 2, 0, 0)                                                                                       \
    X(CROSS_ENTROPY_BACKWARD, 2, 1, 1 << 0, 0)                                                                         \
    X(POSITION_BIAS, 4, 1, 0, 0)                                                                                       \
    X(POSITION_BIAS_BACKWARD, 6, 3, 0, 0)                                                                              \
    X(WINDOW_ATTENTION, 4, 1, 0, 0)                                                                                    \
    X(WINDOW_ATTENTION_BACKWARD, 5, 4, 1 << 1, 0)                                                                      \
    X(PATCH_MERGE, 1, 1, 0, 0)                                                                                         \
    X(PATCH_MERGE_BACKWARD, 1, 1, 0, 0)                                                                                \
    X(FOLD_BATCH_NORM, 6, 2, 0, 0)                                                                                     \
    X(ADAM, -1, 0, 0, 0)                                                                                               \
    X(REORDER, 1, 1, 0, 0)

enum op_type {
#define X(name, inputs, outputs, inplace0, inplace3) OP_##name,
    OPS(X)
#undef X
        OP_COUNT
};

/* One row of the list above, for code that treats all ops alike. */
struct op_info {
    const char *name; /* "CONV2D" */
    int max_inputs, max_outputs;
    unsigned inplace0, inplace3;
};

const struct op_info *op_info(enum op_type type);

enum activation {
    ACTIVATION_NONE,
    ACTIVATION_RELU,
    ACTIVATION_HARDSWISH,   /* x min(max(x + 3, 0), 6) / 6 */
    ACTIVATION_HARDSIGMOID, /* min(max(x + 3, 0), 6) / 6 */
    ACTIVATION_GELU,        /* x Φ(x), exact, by the error function */
    ACTIVATION_COUNT
};

/* Attributes; those that an op does not use are 0. [0] is vertical, [1] horizontal. */
struct op_attrs {
    int kernel[2], stride[2], padding[2], groups; /* CONV2D*, MAX_POOL* (groups 0 there), PATCHES* (kernel alone) */
    int heads;                                    /* ATTENTION*, WINDOW_ATTENTION* */
    float scale;                                  /* ATTENTION* */
    int shift[2];                                 /* WINDOW_ATTENTION*; kernel: its window */
    enum activation activation;
    bool training;        /* BATCH_NORM */
    float eps, momentum;  /* BATCH_NORM*, FOLD_BATCH_NORM; eps of LAYER_NORM, ADAM */
    double learning_rate; /* ADAM */
    double beta1, beta2;  /* ADAM */
    bool counts_step;     /* ADAM */
    float p;              /* DROPOUT*: share of zeros, 0 ≤ p < 1 */
    bool rows;            /* DROPOUT*: one draw an image */
    uint64_t seed;        /* DROPOUT*: the net's */
    uint32_t number;      /* DROPOUT*: running number in the graph, from 1 */
};

bool op_attrs_equal(const struct op_attrs *a, const struct op_attrs *b);

/* Positions in op.inputs and op.outputs. */
enum {
    CONV2D_X = 0,
    CONV2D_WEIGHT,
    CONV2D_BIAS,
    CONV2D_RESIDUAL,

    BN_X = 0,
    BN_WEIGHT,
    BN_BIAS,
    BN_RUNNING_MEAN,
    BN_RUNNING_VAR,
    BN_BATCHES,
    BN_RESIDUAL,

    BN_Y = 0, /* outputs */
    BN_SAVE_MEAN,
    BN_SAVE_INVSTD,
    BN_MASK,

    BNB_DY = 0,
    BNB_X,
    BNB_Y,
    BNB_WEIGHT,
    BNB_SAVE_MEAN,
    BNB_SAVE_INVSTD,
    BNB_MASK,
    BNB_DY2,
    BNB_BIAS,

    BNB_DX = 0, /* outputs */
    BNB_DWEIGHT,
    BNB_DBIAS,
    BNB_DRESIDUAL,

    LINEAR_X = 0,
    LINEAR_WEIGHT,
    LINEAR_BIAS,
    LINEAR_RESIDUAL,

    TOKENS_X = 0, /* or their gradients, outputs */
    TOKENS_CLASS,
    TOKENS_POS,

    ATTENTION_QKV = 0,

    ATTENTION_Y = 0, /* outputs */
    ATTENTION_STATS,

    ATTNB_DY = 0,
    ATTNB_QKV,
    ATTNB_Y,
    ATTNB_STATS,

    LN_X = 0,
    LN_WEIGHT,
    LN_BIAS,
    LN_RESIDUAL,

    LN_Y = 0, /* outputs */
    LN_SAVE_MEAN,
    LN_SAVE_INVSTD,

    LNB_DY = 0,
    LNB_X,
    LNB_WEIGHT,
    LNB_SAVE_MEAN,
    LNB_SAVE_INVSTD,
    LNB_ADD,

    LNB_DX = 0, /* outputs */
    LNB_DWEIGHT,
    LNB_DBIAS,

    POSITION_COORDS = 0,
    POSITION_WEIGHT1,
    POSITION_BIAS1,
    POSITION_WEIGHT2,

    POSITIONB_DTABLE = 0,
    POSITIONB_TABLE,
    POSITIONB_COORDS,
    POSITIONB_WEIGHT1,
    POSITIONB_BIAS1,
    POSITIONB_WEIGHT2,

    POSITIONB_DWEIGHT1 = 0, /* outputs */
    POSITIONB_DBIAS1,
    POSITIONB_DWEIGHT2,

    WINDOW_QKV = 0,
    WINDOW_QKV_BIAS,
    WINDOW_LOGIT_SCALE,
    WINDOW_TABLE,

    WINDOWB_DY = 0,
    WINDOWB_QKV,
    WINDOWB_QKV_BIAS,
    WINDOWB_LOGIT_SCALE,
    WINDOWB_TABLE,

    WINDOWB_DQKV = 0, /* outputs */
    WINDOWB_DQKV_BIAS,
    WINDOWB_DLOGIT_SCALE,
    WINDOWB_DTABLE,

    BNA_X = 0,
    BNA_WEIGHT,
    BNA_BIAS,
    BNA_SAVE_MEAN,
    BNA_SAVE_INVSTD,
    BNA_RESIDUAL,

    DROPOUT_X = 0, /* or dy */
    DROPOUT_STEP,
    DROPOUT_RESIDUAL,

    FOLD_WEIGHT = 0,
    FOLD_BIAS,
    FOLD_BN_WEIGHT,
    FOLD_BN_BIAS,
    FOLD_RUNNING_MEAN,
    FOLD_RUNNING_VAR,

    ADAM_STEP = 0, /* then groups of four */
    ADAM_FIRST = 1,
    ADAM_PARAM = 0,
    ADAM_GRAD,
    ADAM_EXP_AVG,
    ADAM_EXP_AVG_SQ,
    ADAM_GROUP,
};

#endif
