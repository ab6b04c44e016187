/* linear.c - matrix products through cuBLASLt. It counts in columns, so that a plain (rows, columns) matrix of ours is
 * its (columns, rows): y^T = weight x^T, dx^T = weight^T dy^T, dweight^T = x^T dy. */
#include "engine/cuda/kernels.h"

enum { WORKSPACE = 4 << 20 };

struct linear_state {
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace;
    bool epilogue; /* bias and activation by a kernel of their own */
};

/* One operand as it lies: so many columns of `height` numbers; turned before the product or not. */
struct matrix {
    enum number number;
    int64_t height, columns;
    bool turned;
};

static cudaDataType_t type_of(enum number number)
{
    return number == NUMBER_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

static bool blas_fail(cublasStatus_t status, const char *what, struct err *err)
{
    return err_set(err, status == CUBLAS_STATUS_ALLOC_FAILED ? ERR_MEMORY : ERR_DEVICE, "cuBLASLt %s: status %d", what,
                   (int)status);
}

static cublasStatus_t make_layout(cublasLtMatrixLayout_t *ret, const struct matrix *m)
{
    return libs.cublasLtMatrixLayoutCreate(ret, type_of(m->number), (uint64_t)m->height, (uint64_t)m->columns,
                                           m->height);
}

static cublasStatus_t choose_algorithm(struct stream *stream, struct linear_state *state)
{
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t result;
    size_t most = WORKSPACE;
    int count = 0;
    cublasStatus_t status = libs.cublasLtMatmulPreferenceCreate(&preference);

    if (status == CUBLAS_STATUS_SUCCESS)
        status = libs.cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most,
                                                           sizeof most);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = libs.cublasLtMatmulAlgoGetHeuristic(stream->cublas, state->product, state->a, state->b, state->d,
                                                     state->d, preference, 1, &result, &count);
    if (preference)
        libs.cublasLtMatmulPreferenceDestroy(preference);
    if (status == CUBLAS_STATUS_SUCCESS && !count)
        status = CUBLAS_STATUS_NOT_SUPPORTED;
    if (status == CUBLAS_STATUS_SUCCESS) {
        state->algorithm = result.algo;
        state->workspace = result.workspaceSize;
    }
    return status;
}

/* op->state for d = a b, with the epilogue where one is asked for. */
static bool prepare_product(struct stream *stream, struct graph *graph, struct op *op, const struct matrix *a,
                            const struct matrix *b, const struct matrix *d, cublasLtEpilogue_t epilogue,
                            struct err *err)
{
    struct linear_state *state = graph_alloc(graph, sizeof *state);
    cublasOperation_t turn_a = a->turned ? CUBLAS_OP_T : CUBLAS_OP_N, turn_b = b->turned ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasStatus_t status;

    if (!state)
        return err_set(err, ERR_MEMORY, "no memory for a matrix product");
    op->state = state;
    status = libs.cublasLtMatmulDescCreate(&state->product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (status == CUBLAS_STATUS_SUCCESS)
        status =
            libs.cublasLtMatmulDescSetAttribute(state->product, CUBLASLT_MATMUL_DESC_TRANSA, &turn_a, sizeof turn_a);
    if (status == CUBLAS_STATUS_SUCCESS)
        status =
            libs.cublasLtMatmulDescSetAttribute(state->product, CUBLASLT_MATMUL_DESC_TRANSB, &turn_b, sizeof turn_b);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = libs.cublasLtMatmulDescSetAttribute(state->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                                     sizeof epilogue);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = make_layout(&state->a, a);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = make_layout(&state->b, b);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = make_layout(&state->d, d);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = choose_algorithm(stream, state);
    if (status != CUBLAS_STATUS_SUCCESS)
        return blas_fail(status, "matrix product", err);
    op->scratch_bytes = (state->workspace + 255) / 256 * 256;
    return true;
}

/* d = a b + c; c may be NULL, or d's memory. */
static bool run_product(struct stream *stream, const struct op *op, const void *a, const void *b, const void *c,
                        void *d, struct err *err)
{
    struct linear_state *state = op->state;
    const float one = 1, beta = c ? 1 : 0;
    cublasStatus_t status =
        libs.cublasLtMatmul(stream->cublas, state->product, &one, a, state->a, b, state->b, &beta, c ? c : d, state->d,
                            d, state->d, &state->algorithm, op->scratch, state->workspace, stream->queue);

    return status == CUBLAS_STATUS_SUCCESS || blas_fail(status, "matrix product", err);
}

void cuda_linear_release(struct op *op)
{
    struct linear_state *state = op->state;

    if (state->d)
        libs.cublasLtMatrixLayoutDestroy(state->d);
    if (state->b)
        libs.cublasLtMatrixLayoutDestroy(state->b);
    if (state->a)
        libs.cublasLtMatrixLayoutDestroy(state->a);
    if (state->product)
        libs.cublasLtMatmulDescDestroy(state->product);
}

bool cuda_linear_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    const struct tensor *x = op_input(graph, op, 0), *y = op_output(graph, op, 0);
    struct tensor *weight = op_input(graph, op, 1);
    bool bias = op_input(graph, op, 2), relu = op->attrs.activation == ACTIVATION_RELU;
    bool general = op->attrs.activation > ACTIVATION_RELU;
    bool fused = number_of(y) == NUMBER_F32 && !general; /* a bias has the type of y there, and ours are floats */
    int64_t in = tensor_channels(x), out = tensor_channels(y), rows = tensor_rows(x);
    cublasLtEpilogue_t epilogue = bias && relu ? CUBLASLT_EPILOGUE_RELU_BIAS
                                  : bias       ? CUBLASLT_EPILOGUE_BIAS
                                  : relu       ? CUBLASLT_EPILOGUE_RELU
                                               : CUBLASLT_EPILOGUE_DEFAULT;

    layout_set_weight(weight, NULL, number_of(x) != number_of(weight));
    if (!prepare_product(stream, graph, op, &(struct matrix){number_of(x), in, out, true},
                         &(struct matrix){number_of(x), in, rows, false},
                         &(struct matrix){number_of(y), out, rows, false}, fused ? epilogue : CUBLASLT_EPILOGUE_DEFAULT,
                         err))
        return false;
    ((struct linear_state *)op->state)->epilogue = !fused && (bias || relu || general);
    return true;
}

bool cuda_linear(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct linear_state *state = op->state;
    const struct tensor *x = op_input(graph, op, 0), *y = op_output(graph, op, 0);
    const void *bias = data_of(op_input(graph, op, 2));
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;

    if (bias && !state->epilogue)
        status =
            libs.cublasLtMatmulDescSetAttribute(state->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
    if (status != CUBLAS_STATUS_SUCCESS)
        return blas_fail(status, "bias", err);
    if (!run_product(stream, op, layout_weight_data(op_input(graph, op, 1), number_of(x)), x->data,
                     data_of(op_input(graph, op, LINEAR_RESIDUAL)), y->data, err))
        return false;
    return !state->epilogue ||
           cuda_ok(epilogue(stream->queue, number_of(y), number_of(y), y->data, tensor_rows(y), (int)tensor_channels(y),
                            bias, NUMBER_F32, NULL, op->attrs.activation, y->data),
                   "a bias", err);
}

bool cuda_linear_backward_data_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    const struct tensor *dy = op_input(graph, op, 0), *dx = op_output(graph, op, 0);
    int64_t in = tensor_channels(dx), out = tensor_channels(dy), rows = tensor_rows(dx);

    layout_set_weight(op_input(graph, op, 1), NULL, number_of(dy) != number_of(op_input(graph, op, 1)));
    return prepare_product(stream, graph, op, &(struct matrix){number_of(dy), in, out, false},
                           &(struct matrix){number_of(dy), out, rows, false},
                           &(struct matrix){number_of(dx), in, rows, false}, CUBLASLT_EPILOGUE_DEFAULT, err);
}

bool cuda_linear_backward_data(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct tensor *dy = op_input(graph, op, 0);

    return run_product(stream, op, layout_weight_data(op_input(graph, op, 1), number_of(dy)), dy->data, NULL,
                       op_output(graph, op, 0)->data, err);
}

bool cuda_linear_backward_weight_prepare(struct stream *stream, struct graph *graph, struct op *op, struct err *err)
{
    const struct tensor *dy = op_input(graph, op, 0), *x = op_input(graph, op, 1), *dweight = op_output(graph, op, 0);
    int64_t in = tensor_channels(x), out = tensor_channels(dy), rows = tensor_rows(x);

    if (!prepare_product(stream, graph, op, &(struct matrix){number_of(x), in, rows, false},
                         &(struct matrix){number_of(dy), out, rows, true},
                         &(struct matrix){number_of(dweight), in, out, false}, CUBLASLT_EPILOGUE_DEFAULT, err))
        return false;
    if (op_output(graph, op, 1))
        op->scratch_bytes += norm_scratch_bytes(rows, (int)out);
    return true;
}

bool cuda_linear_backward_weight(struct stream *stream, const struct graph *graph, const struct op *op, struct err *err)
{
    const struct linear_state *state = op->state;
    const struct tensor *dy = op_input(graph, op, 0), *x = op_input(graph, op, 1), *dbias = op_output(graph, op, 1);
    const struct norm_launch launch = {
        .number = number_of(dy),
        .rows = tensor_rows(dy),
        .channels = (int)tensor_channels(dy),
        .scratch = op->scratch ? (char *)op->scratch + (state->workspace + 255) / 256 * 256 : NULL,
    };

    if (!run_product(stream, op, x->data, dy->data, NULL, op_output(graph, op, 0)->data, err))
        return false;
    return !dbias || cuda_ok(column_sums(stream->queue, &launch, dy->data, dbias->data), "a bias's gradient", err);
}
