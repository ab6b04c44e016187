/* nn.c - see nn.h */
#include "engine/nn.h"

#include <math.h>

#define COUNT(list) (int)(sizeof(list) / sizeof *(list))

static tensor_id param(struct graph *graph, const char *name, int rank, const int64_t *shape, struct init init)
{
    tensor_id id = graph_tensor(graph, TENSOR_PARAM, DTYPE_F32, rank, shape, name);

    graph->tensors[id].init = init;
    return id;
}

/* An initial distribution with the scale that follows from the weight's shape (O, I, …). torch.nn.init's fans: I or O
 * times the numbers of a kernel. */
static struct init resolve(struct init init, int rank, const int64_t *shape)
{
    double area = rank == 4 ? (double)(shape[2] * shape[3]) : 1;
    double fan_in = (double)shape[1] * area, fan_out = (double)shape[0] * area;

    switch (init.kind) {
    case INIT_KAIMING:
        return (struct init){INIT_NORMAL, sqrt(2 / fan_out)};
    case INIT_XAVIER:
        return (struct init){INIT_UNIFORM, sqrt(6 / (fan_in + fan_out))};
    case INIT_TORCH:
        return (struct init){INIT_UNIFORM, sqrt(1 / fan_in)};
    default:
        return init;
    }
}

tensor_id nn_param(struct graph *graph, const char *name, int rank, const int64_t *shape, struct init init)
{
    return param(graph, name, rank, shape, rank < 2 ? init : resolve(init, rank, shape));
}

static tensor_id buffer(struct graph *graph, const char *name, enum dtype dtype, int rank, const int64_t *shape,
                        enum init_kind kind)
{
    tensor_id id = graph_tensor(graph, TENSOR_BUFFER, dtype, rank, shape, name);

    graph->tensors[id].init = (struct init){kind, 0};
    return id;
}

tensor_id nn_buffer(struct graph *graph, const char *name, enum dtype dtype, int rank, const int64_t *shape,
                    const void *values)
{
    tensor_id id = buffer(graph, name, dtype, rank, shape, INIT_VALUES);

    graph->tensors[id].values = values;
    return id;
}

/* An op with one output of x's shape. */
static tensor_id elementwise(struct graph *graph, enum op_type type, const struct op_attrs *attrs, int input_count,
                             const tensor_id *inputs)
{
    tensor_id y = graph_like(graph, TENSOR_ACTIVATION, inputs[0]);

    graph_op(graph, type, attrs, input_count, inputs, 1, &y);
    return y;
}

/* Is x of this rank? Otherwise the graph has failed. */
static bool has_rank(struct graph *graph, const char *what, tensor_id x, int rank)
{
    if (graph->tensors[x].rank == rank)
        return true;
    graph_fail(graph, ERR_BUG, "%s%s: input has %d dimensions, not %d", graph->scope, what, graph->tensors[x].rank,
               rank);
    return false;
}

tensor_id nn_image(struct graph *graph, tensor_id x)
{
    struct tensor image = graph->tensors[x];
    tensor_id y = graph_tensor(graph, TENSOR_ACTIVATION, DTYPE_F32, image.rank, image.shape, NULL);

    graph_op(graph, OP_IMAGE, NULL, 1, &x, 1, &y);
    return y;
}

/* The output's height or width of a sliding window; below 1 when the input is too small. */
static int64_t windows(const struct op_attrs *attrs, int64_t size, int axis)
{
    int64_t span = size + 2 * attrs->padding[axis] - attrs->kernel[axis];

    return span < 0 ? 0 : span / attrs->stride[axis] + 1;
}

static tensor_id window_output(struct graph *graph, const struct op_attrs *attrs, tensor_id x, int64_t channels)
{
    const struct tensor *in = &graph->tensors[x];

    return graph_tensor(
        graph, TENSOR_ACTIVATION, in->dtype, 4,
        (int64_t[]){in->shape[0], windows(attrs, in->shape[1], 0), windows(attrs, in->shape[2], 1), channels}, NULL);
}

tensor_id nn_conv2d_op(struct graph *graph, const struct op_attrs *attrs, tensor_id x, tensor_id weight, tensor_id bias,
                       tensor_id residual)
{
    tensor_id inputs[] = {x, weight, bias, residual}, y;

    if (!has_rank(graph, "convolution", x, 4))
        return 0;
    y = window_output(graph, attrs, x, graph->tensors[weight].shape[0]);
    graph_op(graph, OP_CONV2D, attrs, COUNT(inputs), inputs, 1, &y);
    return y;
}

struct layer nn_conv2d_params(struct graph *graph, const char *name, int64_t in, struct conv2d conv)
{
    int groups = conv.groups ? conv.groups : 1;
    int64_t shape[] = {conv.channels, in / groups, conv.kernel, conv.kernel};
    size_t scope = graph_push(graph, "%s", name);
    struct layer layer = {param(graph, "weight", 4, shape, resolve(conv.weight, 4, shape)), NO_TENSOR};

    if (in % groups || conv.channels % groups)
        graph_fail(graph, ERR_BUG, "%schannels do not divide into %d groups", graph->scope, groups);
    if (conv.bias)
        layer.bias = param(graph, "bias", 1, shape, resolve(conv.bias_init, 4, shape));
    graph_pop(graph, scope);
    return layer;
}

tensor_id nn_conv2d(struct graph *graph, const char *name, tensor_id x, struct conv2d conv)
{
    int stride = conv.stride ? conv.stride : 1;
    struct op_attrs attrs = {.kernel = {conv.kernel, conv.kernel},
                             .stride = {stride, stride},
                             .padding = {conv.padding, conv.padding},
                             .groups = conv.groups ? conv.groups : 1};
    struct layer layer = nn_conv2d_params(graph, name, tensor_channels(&graph->tensors[x]), conv);

    return nn_conv2d_op(graph, &attrs, x, layer.weight, layer.bias, NO_TENSOR);
}

tensor_id nn_batch_norm(struct graph *graph, const char *name, tensor_id x)
{
    return nn_batch_norm_with(graph, name, x, 1e-5f, 0.1f);
}

tensor_id nn_batch_norm_with(struct graph *graph, const char *name, tensor_id x, float eps, float momentum)
{
    struct op_attrs attrs = {.training = graph->training, .eps = eps, .momentum = momentum};
    const int64_t shape[] = {tensor_channels(&graph->tensors[x])};
    size_t scope = graph_push(graph, "%s", name);
    tensor_id inputs[] = {
        [BN_X] = x,
        [BN_WEIGHT] = param(graph, "weight", 1, shape, (struct init){.kind = INIT_ONE}),
        [BN_BIAS] = param(graph, "bias", 1, shape, (struct init){.kind = INIT_ZERO}),
        [BN_RUNNING_MEAN] = buffer(graph, "running_mean", DTYPE_F32, 1, shape, INIT_ZERO),
        [BN_RUNNING_VAR] = buffer(graph, "running_var", DTYPE_F32, 1, shape, INIT_ONE),
        [BN_BATCHES] = buffer(graph, "num_batches_tracked", DTYPE_I64, 0, NULL, INIT_ZERO),
    };
    tensor_id outputs[] = {[BN_Y] = graph_like(graph, TENSOR_ACTIVATION, x),
                           [BN_SAVE_MEAN] = NO_TENSOR,
                           [BN_SAVE_INVSTD] = NO_TENSOR,
                           [BN_MASK] = NO_TENSOR};

    if (graph->training) {
        outputs[BN_SAVE_MEAN] = graph_tensor(graph, TENSOR_ACTIVATION, DTYPE_F32, 1, shape, NULL);
        outputs[BN_SAVE_INVSTD] = graph_tensor(graph, TENSOR_ACTIVATION, DTYPE_F32, 1, shape, NULL);
        outputs[BN_MASK] = graph_like(graph, TENSOR_STATE, x);
    }
    graph_op(graph, OP_BATCH_NORM, &attrs, COUNT(inputs), inputs, COUNT(outputs), outputs);
    graph_pop(graph, scope);
    return outputs[BN_Y];
}

tensor_id nn_layer_norm_op(struct graph *graph, tensor_id x, tensor_id weight, tensor_id bias, double eps)
{
    struct op_attrs attrs = {.eps = (float)eps};
    const int64_t rows[] = {tensor_rows(&graph->tensors[x])};
    tensor_id inputs[] = {[LN_X] = x, [LN_WEIGHT] = weight, [LN_BIAS] = bias};
    tensor_id outputs[] = {
        [LN_Y] = graph_like(graph, TENSOR_ACTIVATION, x), [LN_SAVE_MEAN] = NO_TENSOR, [LN_SAVE_INVSTD] = NO_TENSOR};

    if (graph->training) {
        outputs[LN_SAVE_MEAN] = graph_tensor(graph, TENSOR_ACTIVATION, DTYPE_F32, 1, rows, NULL);
        outputs[LN_SAVE_INVSTD] = graph_tensor(graph, TENSOR_ACTIVATION, DTYPE_F32, 1, rows, NULL);
    }
    graph_op(graph, OP_LAYER_NORM, &attrs, COUNT(inputs), inputs, COUNT(outputs), outputs);
    return outputs[LN_Y];
}

struct layer nn_layer_norm_params(struct graph *graph, const char *name, int64_t channels)
{
    size_t scope = graph_push(graph, "%s", name);
    struct layer layer = {param(graph, "weight", 1, &channels, (struct init){.kind = INIT_ONE}),
                          param(graph, "bias", 1, &channels, (struct init){.kind = INIT_ZERO})};

    graph_pop(graph, scope);
    return layer;
}

tensor_id nn_layer_norm(struct graph *graph, const char *name, tensor_id x, double eps)
{
    struct layer layer = nn_layer_norm_params(graph, name, tensor_channels(&graph->tensors[x]));

    return nn_layer_norm_op(graph, x, layer.weight, layer.bias, eps);
}

tensor_id nn_activation(struct graph *graph, enum activation activation, tensor_id x)
{
    return elementwise(graph, OP_ACTIVATION, &(struct op_attrs){.activation = activation}, 1, &x);
}

tensor_id nn_relu(struct graph *graph, tensor_id x)
{
    return nn_activation(graph, ACTIVATION_RELU, x);
}

tensor_id nn_add(struct graph *graph, tensor_id a, tensor_id b)
{
    if (!tensor_same_shape(&graph->tensors[a], &graph->tensors[b]))
        graph_fail(graph, ERR_BUG, "%sadd: shapes differ", graph->scope);
    return elementwise(graph, OP_ADD, NULL, 2, (tensor_id[]){a, b});
}

tensor_id nn_scale(struct graph *graph, tensor_id x, tensor_id s)
{
    const struct tensor *image = &graph->tensors[x], *factors = &graph->tensors[s];

    if (!has_rank(graph, "scale", x, 4) || !has_rank(graph, "scale", s, 2))
        return 0;
    if (image->shape[0] != factors->shape[0] || image->shape[3] != factors->shape[1])
        graph_fail(graph, ERR_BUG, "%sscale: shapes do not match", graph->scope);
    return elementwise(graph, OP_SCALE, NULL, 2, (tensor_id[]){x, s});
}

static tensor_id dropout(struct graph *graph, tensor_id x, double p, bool rows)
{
    struct op_attrs attrs = {.p = (float)p, .rows = rows, .seed = graph->seed};

    if (p < 0 || p >= 1)
        graph_fail(graph, ERR_BUG, "%sdropout of %g", graph->scope, p);
    if (!graph->training || graph->no_dropout || p <= 0)
        return x;
    attrs.number = ++graph->random_count;
    return elementwise(graph, OP_DROPOUT, &attrs, 2,
                       (tensor_id[]){[DROPOUT_X] = x, [DROPOUT_STEP] = graph_step(graph)});
}

tensor_id nn_dropout(struct graph *graph, tensor_id x, double p)
{
    return dropout(graph, x, p, false);
}

tensor_id nn_stochastic_depth(struct graph *graph, tensor_id x, double p)
{
    return dropout(graph, x, p, true);
}

tensor_id nn_max_pool_op(struct graph *graph, const struct op_attrs *attrs, tensor_id x)
{
    tensor_id outputs[2] = {0, NO_TENSOR};

    if (!has_rank(graph, "max pool", x, 4))
        return 0;
    outputs[0] = window_output(graph, attrs, x, tensor_channels(&graph->tensors[x]));
    if (graph->training)
        outputs[1] = graph_like(graph, TENSOR_STATE, outputs[0]);
    graph_op(graph, OP_MAX_POOL, attrs, 1, &x, COUNT(outputs), outputs);
    return outputs[0];
}

tensor_id nn_max_pool(struct graph *graph, tensor_id x, int kernel, int stride, int padding)
{
    struct op_attrs attrs = {.kernel = {kernel, kernel}, .stride = {stride, stride}, .padding = {padding, padding}};

    return nn_max_pool_op(graph, &attrs, x);
}

tensor_id nn_global_avg_pool(struct graph *graph, tensor_id x)
{
    struct tensor in = graph->tensors[x];
    tensor_id y;

    if (!has_rank(graph, "global average pool", x, 4))
        return 0;
    y = graph_tensor(graph, TENSOR_ACTIVATION, in.dtype, 2, (int64_t[]){in.shape[0], in.shape[3]}, NULL);
    graph_op(graph, OP_GLOBAL_AVG_POOL, NULL, 1, &x, 1, &y);
    return y;
}

tensor_id nn_linear_op(struct graph *graph, tensor_id x, tensor_id weight, tensor_id bias)
{
    struct tensor out = graph->tensors[x];
    tensor_id inputs[] = {x, weight, bias}, y;

    if (out.rank < 1 || graph->tensors[weight].rank < 2 ||
        out.shape[out.rank - 1] * graph->tensors[weight].shape[0] != tensor_elements(&graph->tensors[weight])) {
        graph_fail(graph, ERR_BUG, "%slinear: input and weight do not match", graph->scope);
        return 0;
    }
    out.shape[out.rank - 1] = graph->tensors[weight].shape[0];
    y = graph_tensor(graph, TENSOR_ACTIVATION, out.dtype, out.rank, out.shape, NULL);
    graph_op(graph, OP_LINEAR, NULL, COUNT(inputs), inputs, 1, &y);
    return y;
}

struct layer nn_linear_params(struct graph *graph, const char *name, int64_t in, struct linear linear)
{
    int64_t shape[] = {linear.features, in, 1, 1};
    size_t scope = graph_push(graph, "%s", name);
    struct layer layer = {param(graph, "weight", linear.pixel ? 4 : 2, shape, resolve(linear.weight, 2, shape)),
                          NO_TENSOR};

    if (!linear.no_bias)
        layer.bias = param(graph, "bias", 1, shape, resolve(linear.bias, 2, shape));
    graph_pop(graph, scope);
    return layer;
}

tensor_id nn_linear(struct graph *graph, const char *name, tensor_id x, struct linear linear)
{
    struct layer layer = nn_linear_params(graph, name, tensor_channels(&graph->tensors[x]), linear);

    return nn_linear_op(graph, x, layer.weight, layer.bias);
}

tensor_id nn_cross_entropy(struct graph *graph, tensor_id logits)
{
    int64_t n = graph->tensors[logits].shape[0];
    tensor_id labels = graph_tensor(graph, TENSOR_INPUT, DTYPE_I32, 1, &n, "labels");
    tensor_id stats = graph_tensor(graph, TENSOR_COUNTER, DTYPE_F64, 1, (int64_t[]){4}, "stats");
    tensor_id inputs[] = {logits, labels, stats};
    tensor_id outputs[] = {graph_tensor(graph, TENSOR_ACTIVATION, DTYPE_F32, 0, NULL, "loss"),
                           graph_like(graph, TENSOR_ACTIVATION, logits)};

    graph_op(graph, OP_CROSS_ENTROPY, NULL, COUNT(inputs), inputs, COUNT(outputs), outputs);
    graph->labels = labels;
    graph->logits = logits;
    graph->loss = outputs[0];
    return outputs[0];
}
