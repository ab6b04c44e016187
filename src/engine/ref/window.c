/* window.c - Swin v2's attention in windows, its position bias, and patch merging. See ref.h, op.h, window.h
 * Liu et al., "Swin Transformer V2: Scaling Up Capacity and Resolution", CVPR 2022. */
#include "engine/ref/ref.h"

#include <math.h>
#include <string.h>

#include "engine/window.h"

static const float shortest = 1e-12f, masked = -100, largest_scale = 100, largest_bias = 16;

bool ref_position_bias(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *weight2 = op_input(graph, op, POSITION_WEIGHT2), *table = op_output(graph, op, 0);
    const float *coords = ref_f32(op_input(graph, op, POSITION_COORDS)), *w2 = ref_f32(weight2);
    const float *w1 = ref_f32(op_input(graph, op, POSITION_WEIGHT1)),
                *b1 = ref_f32(op_input(graph, op, POSITION_BIAS1));
    int64_t heads = weight2->shape[0], middle = weight2->shape[1], places = table->shape[1];

    (void)stream, (void)err;
    for (int64_t p = 0; p < places; p++)
        for (int64_t head = 0; head < heads; head++) {
            double sum = 0;

            for (int64_t m = 0; m < middle; m++) {
                float hidden = w1[2 * m] * coords[2 * p] + w1[2 * m + 1] * coords[2 * p + 1] + b1[m];

                sum += hidden > 0 ? (double)(hidden * w2[head * middle + m]) : 0;
            }
            ref_f32(table)[head * places + p] = largest_bias / (1 + expf((float)-sum));
        }
    return true;
}

bool ref_position_bias_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *weight2 = op_input(graph, op, POSITIONB_WEIGHT2),
                        *table = op_input(graph, op, POSITIONB_TABLE);
    const float *dtable = ref_f32(op_input(graph, op, POSITIONB_DTABLE)), *w2 = ref_f32(weight2);
    const float *coords = ref_f32(op_input(graph, op, POSITIONB_COORDS));
    const float *w1 = ref_f32(op_input(graph, op, POSITIONB_WEIGHT1));
    const float *b1 = ref_f32(op_input(graph, op, POSITIONB_BIAS1));
    float *dw1 = ref_f32(op_output(graph, op, POSITIONB_DWEIGHT1)),
          *db1 = ref_f32(op_output(graph, op, POSITIONB_DBIAS1));
    float *dw2 = ref_f32(op_output(graph, op, POSITIONB_DWEIGHT2));
    int64_t heads = weight2->shape[0], middle = weight2->shape[1], places = table->shape[1];

    (void)stream, (void)err;
    memset(dw2, 0, weight2->bytes);
    for (int64_t m = 0; m < middle; m++) {
        double sums[3] = {0}; /* of the two weights and the bias */

        for (int64_t p = 0; p < places; p++) {
            float hidden = w1[2 * m] * coords[2 * p] + w1[2 * m + 1] * coords[2 * p + 1] + b1[m], dhidden = 0;

            for (int64_t head = 0; head < heads && hidden > 0; head++) {
                float y = ref_f32(table)[head * places + p];
                float dz = dtable[head * places + p] * y * (1 - y / largest_bias);

                dw2[head * middle + m] += dz * hidden;
                dhidden += dz * w2[head * middle + m];
            }
            sums[0] += (double)(dhidden * coords[2 * p]);
            sums[1] += (double)(dhidden * coords[2 * p + 1]);
            sums[2] += (double)dhidden;
        }
        dw1[2 * m] = (float)sums[0];
        dw1[2 * m + 1] = (float)sums[1];
        db1[m] = (float)sums[2];
    }
    return true;
}

/* One head of one window, in scratch. */
struct attention {
    struct window_grid grid;
    int64_t head, channels, row; /* channels of a head; numbers of a pixel's qkv */
    const float *qkv_bias, *table;
    float scale;
    float *parts[3];     /* q, k, v (tokens, channels), q and k of length 1 */
    float *lengths[2];   /* (tokens), by which q and k were divided */
    float *cosines, *p;  /* (tokens, tokens) */
    float *dparts[3];    /* (tokens, channels) */
    float *dlogits, *dy; /* (tokens, tokens), (tokens, channels) */
};

bool ref_window_attention_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    bool backward = op->type == OP_WINDOW_ATTENTION_BACKWARD;
    size_t tokens = (size_t)op->attrs.kernel[0] * (size_t)op->attrs.kernel[1];
    size_t channels = (size_t)tensor_channels(op_input(graph, op, backward ? WINDOWB_QKV : WINDOW_QKV)) / 3;

    (void)stream, (void)err;
    op->scratch_bytes =
        (7 * tokens * channels / (size_t)op->attrs.heads + 2 * tokens + 3 * tokens * tokens) * sizeof(float);
    return true;
}

static float *take(float **scratch, int64_t count)
{
    *scratch += count;
    return *scratch - count;
}

static struct attention attention_of(const struct op *op, const struct tensor *qkv, const struct tensor *qkv_bias,
                                     const struct tensor *table)
{
    struct attention a = {
        .grid = window_grid_of(&op->attrs, qkv), .qkv_bias = ref_f32(qkv_bias), .table = ref_f32(table)};
    int64_t tokens = a.grid.tokens;
    float *scratch = op->scratch;

    a.row = tensor_channels(qkv);
    a.channels = a.row / 3 / op->attrs.heads;
    for (int i = 0; i < 3; i++) {
        a.parts[i] = take(&scratch, tokens * a.channels);
        a.dparts[i] = take(&scratch, tokens * a.channels);
    }
    a.dy = take(&scratch, tokens * a.channels);
    a.lengths[0] = take(&scratch, tokens);
    a.lengths[1] = take(&scratch, tokens);
    a.cosines = take(&scratch, tokens * tokens);
    a.p = take(&scratch, tokens * tokens);
    a.dlogits = take(&scratch, tokens * tokens);
    return a;
}

/* Where the head's part (0 q, 1 k, 2 v) begins in a pixel's qkv. */
static int64_t part_at(const struct attention *a, int part)
{
    return part * a->row / 3 + a->head * a->channels;
}

/* q, k, v of the window's tokens, q and k divided by their lengths. qkv: of the image. */
static void load_window(struct attention *a, const float *qkv, int window)
{
    for (int part = 0; part < 3; part++)
        for (int t = 0; t < a->grid.tokens; t++) {
            int pixel = window_pixel(&a->grid, window, t);
            float *to = a->parts[part] + t * a->channels, length;
            double squares = 0;

            for (int64_t c = 0; c < a->channels; c++) {
                float bias = part == 1 ? 0 : a->qkv_bias[part_at(a, part) + c];

                to[c] = (pixel < 0 ? 0 : qkv[pixel * a->row + part_at(a, part) + c]) + bias;
                squares += (double)to[c] * (double)to[c];
            }
            if (part == 2)
                continue;
            length = fmaxf((float)sqrt(squares), shortest);
            a->lengths[part][t] = length;
            for (int64_t c = 0; c < a->channels; c++)
                to[c] /= length;
        }
}

static float dot(const float *x, const float *y, int64_t count)
{
    float sum = 0;

#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++)
        sum += x[i] * y[i];
    return sum;
}

/* Cosines and the softmax of the logits. */
static void attend(struct attention *a, const float *qkv, int window, float logit_scale)
{
    int tokens = a->grid.tokens;
    int64_t places = (2 * a->grid.size[0] - 1) * (2 * a->grid.size[1] - 1);

    a->scale = expf(fminf(logit_scale, logf(largest_scale)));
    load_window(a, qkv, window);
    for (int i = 0; i < tokens; i++) {
        float *p = a->p + i * tokens, *cosines = a->cosines + i * tokens, most = -INFINITY;
        int region = window_region(&a->grid, window, i);
        double sum = 0;

        for (int j = 0; j < tokens; j++) {
            bool apart = window_region(&a->grid, window, j) != region;

            cosines[j] = dot(a->parts[0] + i * a->channels, a->parts[1] + j * a->channels, a->channels);
            p[j] = a->scale * cosines[j] + a->table[a->head * places + window_distance(&a->grid, i, j)] +
                   (apart ? masked : 0);
            most = fmaxf(most, p[j]);
        }
        for (int j = 0; j < tokens; j++) {
            p[j] = expf(p[j] - most);
            sum += (double)p[j];
        }
        for (int j = 0; j < tokens; j++)
            p[j] /= (float)sum;
    }
}

bool ref_window_attention(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *qkv = op_input(graph, op, WINDOW_QKV), *y = op_output(graph, op, 0);
    const float *logit_scale = ref_f32(op_input(graph, op, WINDOW_LOGIT_SCALE));
    struct attention a = attention_of(op, qkv, op_input(graph, op, WINDOW_QKV_BIAS), op_input(graph, op, WINDOW_TABLE));
    int64_t pixels = qkv->shape[1] * qkv->shape[2];

    (void)stream, (void)err;
    for (int64_t n = 0; n < qkv->shape[0]; n++)
        for (int window = 0; window < a.grid.rows * a.grid.columns; window++)
            for (a.head = 0; a.head < op->attrs.heads; a.head++) {
                attend(&a, ref_f32(qkv) + n * pixels * a.row, window, logit_scale[a.head]);
                for (int i = 0; i < a.grid.tokens; i++) {
                    int pixel = window_pixel(&a.grid, window, i);

                    for (int64_t c = 0; c < a.channels && pixel >= 0; c++) {
                        float sum = 0;

                        for (int j = 0; j < a.grid.tokens; j++)
                            sum += a.p[i * a.grid.tokens + j] * a.parts[2][j * a.channels + c];
                        ref_f32(y)[(n * pixels + pixel) * a.row / 3 + part_at(&a, 0) + c] = sum;
                    }
                }
            }
    return true;
}

/* From dy of the window to dlogits = p (dp - sum p dp), and from those to the gradients of v, and of q and k of
 * length 1.
 */
static void attend_backward(struct attention *a)
{
    int tokens = a->grid.tokens;
    int64_t channels = a->channels;

    for (int part = 0; part < 3; part++)
        memset(a->dparts[part], 0, (size_t)(tokens * channels) * sizeof(float));
    for (int i = 0; i < tokens; i++) {
        const float *p = a->p + i * tokens, *dy = a->dy + i * channels;
        float *dlogits = a->dlogits + i * tokens, sum = 0;

        for (int j = 0; j < tokens; j++) {
            dlogits[j] = dot(dy, a->parts[2] + j * channels, channels); /* dp */
            sum += p[j] * dlogits[j];
        }
        for (int j = 0; j < tokens; j++) {
            dlogits[j] = p[j] * (dlogits[j] - sum);
            for (int64_t c = 0; c < channels; c++) {
                a->dparts[0][i * channels + c] += a->scale * dlogits[j] * a->parts[1][j * channels + c];
                a->dparts[1][j * channels + c] += a->scale * dlogits[j] * a->parts[0][i * channels + c];
                a->dparts[2][j * channels + c] += p[j] * dy[c];
            }
        }
    }
}

/* The gradients of q and k before they were divided by their lengths. */
static void lengthen(struct attention *a)
{
    for (int part = 0; part < 2; part++)
        for (int t = 0; t < a->grid.tokens; t++) {
            float *d = a->dparts[part] + t * a->channels, length = a->lengths[part][t];
            const float *unit = a->parts[part] + t * a->channels;
            float along = length > shortest ? dot(d, unit, a->channels) : 0;

            for (int64_t c = 0; c < a->channels; c++)
                d[c] = (d[c] - along * unit[c]) / length;
        }
}

/* The window's gradients to the image's, and to the sums for the bias. */
static void store_backward(const struct attention *a, int window, float *dqkv, float *dqkv_bias)
{
    for (int part = 0; part < 3; part++)
        for (int t = 0; t < a->grid.tokens; t++) {
            int pixel = window_pixel(&a->grid, window, t);
            const float *d = a->dparts[part] + t * a->channels;

            for (int64_t c = 0; c < a->channels; c++) {
                if (pixel >= 0)
                    dqkv[pixel * a->row + part_at(a, part) + c] = d[c];
                if (part != 1)
                    dqkv_bias[part_at(a, part) + c] += d[c];
            }
        }
}

bool ref_window_attention_backward(struct stream *stream, const struct graph *graph, const struct op *op,
                                   struct err *err)
{
    const struct tensor *dy = op_input(graph, op, WINDOWB_DY), *qkv = op_input(graph, op, WINDOWB_QKV);
    const struct tensor *table = op_input(graph, op, WINDOWB_TABLE), *dbias = op_output(graph, op, WINDOWB_DQKV_BIAS);
    const float *logit_scale = ref_f32(op_input(graph, op, WINDOWB_LOGIT_SCALE));
    float *dlogit_scale = ref_f32(op_output(graph, op, WINDOWB_DLOGIT_SCALE));
    float *dtable = ref_f32(op_output(graph, op, WINDOWB_DTABLE));
    struct attention a = attention_of(op, qkv, op_input(graph, op, WINDOWB_QKV_BIAS), table);
    int64_t pixels = qkv->shape[1] * qkv->shape[2];

    (void)stream, (void)err;
    memset(ref_f32(dbias), 0, dbias->bytes);
    memset(dtable, 0, table->bytes);
    memset(dlogit_scale, 0, (size_t)op->attrs.heads * sizeof(float));
    for (int64_t n = 0; n < qkv->shape[0]; n++)
        for (int window = 0; window < a.grid.rows * a.grid.columns; window++)
            for (a.head = 0; a.head < op->attrs.heads; a.head++) {
                attend(&a, ref_f32(qkv) + n * pixels * a.row, window, logit_scale[a.head]);
                for (int t = 0; t < a.grid.tokens; t++) {
                    int pixel = window_pixel(&a.grid, window, t);

                    for (int64_t c = 0; c < a.channels; c++)
                        a.dy[t * a.channels + c] =
                            pixel < 0 ? 0 : ref_f32(dy)[(n * pixels + pixel) * a.row / 3 + part_at(&a, 0) + c];
                }
                attend_backward(&a);
                for (int i = 0; i < a.grid.tokens * a.grid.tokens; i++) {
                    int distance = window_distance(&a.grid, i / a.grid.tokens, i % a.grid.tokens);

                    dtable[a.head * table->shape[1] + distance] += a.dlogits[i];
                    if (logit_scale[a.head] <= logf(largest_scale))
                        dlogit_scale[a.head] += a.dlogits[i] * a.cosines[i] * a.scale;
                }
                lengthen(&a);
                store_backward(&a, window, ref_f32(op_output(graph, op, WINDOWB_DQKV)) + n * pixels * a.row,
                               ref_f32(dbias));
            }
    return true;
}

/* Goes over the pixels of the larger image, `image`, and their places in the merged one; to_merged: copies there. */
static void merge(const struct tensor *image, const struct tensor *merged, bool to_merged)
{
    int64_t h = image->shape[1], w = image->shape[2], c = image->shape[3], mh = merged->shape[1], mw = merged->shape[2];

    for (int64_t n = 0; n < image->shape[0]; n++)
        for (int64_t y = 0; y < h; y++)
            for (int64_t x = 0; x < w; x++) {
                float *pixel = ref_f32(image) + ((n * h + y) * w + x) * c;
                float *place = ref_f32(merged) + (((n * mh + y / 2) * mw + x / 2) * 4 + y % 2 + 2 * (x % 2)) * c;

                memcpy(to_merged ? place : pixel, to_merged ? pixel : place, (size_t)c * sizeof(float));
            }
}

bool ref_patch_merge(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *y = op_output(graph, op, 0);

    (void)stream, (void)err;
    memset(y->data, 0, y->bytes);
    merge(op_input(graph, op, 0), y, true);
    return true;
}

bool ref_patch_merge_backward(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    (void)stream, (void)err;
    merge(op_output(graph, op, 0), op_input(graph, op, 0), false);
    return true;
}
