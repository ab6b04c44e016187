/* matmul.c - see matmul.h. cuBLASLt's heuristics give a list of algorithms, the likely best first; the first few are
 * timed on the device, and the number of the fastest is remembered beside cuDNN's plans. A deterministic stream takes
 * the first. */
#include "engine/cuda/matmul.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/cuda/cudnn_cache.h"

enum {
    WORKSPACE = 32 << 20, /* what NVIDIA advises for Hopper */
    MOST_ALGORITHMS = 8,
    RUNS = 6,      /* timed runs of each, after one that is not */
    DELAY_US = 60, /* the device waits so long, while the host enqueues the runs */
};

struct candidates {
    cublasLtMatmulHeuristicResult_t results[MOST_ALGORITHMS];
    int count;
};

static cudaDataType_t type_of(enum number number)
{
    return number == NUMBER_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

static bool blas_fail(cublasStatus_t status, struct err *err)
{
    if (cuda_broken("a matrix product", err))
        return false;
    return err_set(err, status == CUBLAS_STATUS_ALLOC_FAILED ? ERR_MEMORY : ERR_DEVICE,
                   "cuBLASLt matrix product: status %d", (int)status);
}

void matmul_release(struct matmul *matmul)
{
    if (matmul->d)
        libs.cublasLtMatrixLayoutDestroy(matmul->d);
    if (matmul->b)
        libs.cublasLtMatrixLayoutDestroy(matmul->b);
    if (matmul->a)
        libs.cublasLtMatrixLayoutDestroy(matmul->a);
    if (matmul->product)
        libs.cublasLtMatmulDescDestroy(matmul->product);
    *matmul = (struct matmul){0};
}

static cublasStatus_t set(struct matmul *matmul, cublasLtMatmulDescAttributes_t attribute, const void *value,
                          size_t size)
{
    return libs.cublasLtMatmulDescSetAttribute(matmul->product, attribute, value, size);
}

static cublasStatus_t make_layout(cublasLtMatrixLayout_t *ret, const struct matrix *m)
{
    return libs.cublasLtMatrixLayoutCreate(ret, type_of(m->number), (uint64_t)m->height, (uint64_t)m->columns,
                                           m->height);
}

static cublasStatus_t describe(const struct matmul_problem *p, struct matmul *ret)
{
    static const cublasLtEpilogue_t epilogues[] = {
        [0] = CUBLASLT_EPILOGUE_DEFAULT,          [MATMUL_BIAS] = CUBLASLT_EPILOGUE_BIAS,
        [MATMUL_RELU] = CUBLASLT_EPILOGUE_RELU,   [MATMUL_BIAS | MATMUL_RELU] = CUBLASLT_EPILOGUE_RELU_BIAS,
        [MATMUL_SUMS] = CUBLASLT_EPILOGUE_BGRADB,
    };
    cublasOperation_t turn_a = p->a.turned ? CUBLAS_OP_T : CUBLAS_OP_N,
                      turn_b = p->b.turned ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasStatus_t status = libs.cublasLtMatmulDescCreate(&ret->product, CUBLAS_COMPUTE_32F, CUDA_R_32F);

    if (status == CUBLAS_STATUS_SUCCESS)
        status = set(ret, CUBLASLT_MATMUL_DESC_TRANSA, &turn_a, sizeof turn_a);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = set(ret, CUBLASLT_MATMUL_DESC_TRANSB, &turn_b, sizeof turn_b);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = set(ret, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogues[p->epilogue], sizeof epilogues[0]);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = make_layout(&ret->a, &p->a);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = make_layout(&ret->b, &p->b);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = make_layout(&ret->d, &p->d);
    return status;
}

static cublasStatus_t list_algorithms(struct stream *stream, const struct matmul *matmul, struct candidates *ret)
{
    cublasLtMatmulPreference_t preference = NULL;
    size_t most = WORKSPACE;
    cublasStatus_t status = libs.cublasLtMatmulPreferenceCreate(&preference);

    if (status == CUBLAS_STATUS_SUCCESS)
        status = libs.cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most,
                                                           sizeof most);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = libs.cublasLtMatmulAlgoGetHeuristic(stream->cublas, matmul->product, matmul->a, matmul->b, matmul->d,
                                                     matmul->d, preference, MOST_ALGORITHMS, ret->results, &ret->count);
    if (preference)
        libs.cublasLtMatmulPreferenceDestroy(preference);
    return status;
}

static void take(const struct candidates *c, int choice, struct matmul *ret)
{
    ret->algorithm = c->results[choice].algo;
    ret->workspace = c->results[choice].workspaceSize;
}

bool matmul_run(struct stream *stream, const struct matmul *matmul, const struct matmul_operands *o, struct err *err)
{
    const float one = 1, beta = o->add ? 1 : 0;
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;

    if (o->vector)
        status = libs.cublasLtMatmulDescSetAttribute(matmul->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &o->vector,
                                                     sizeof o->vector);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = libs.cublasLtMatmul(stream->cublas, matmul->product, &one, o->a, matmul->a, o->b, matmul->b, &beta,
                                     o->add ? o->add : o->d, matmul->d, o->d, matmul->d, &matmul->algorithm,
                                     o->workspace, matmul->workspace, stream->queue);
    return status == CUBLAS_STATUS_SUCCESS || blas_fail(status, err);
}

static size_t bytes_of(const struct matrix *m)
{
    size_t bytes = (size_t)(m->height * m->columns) * (m->number == NUMBER_BF16 ? 2 : 4);

    return (bytes + 511) / 512 * 512;
}

/* Memory to try the problem on, filled with numbers. */
static bool trial_operands(struct stream *stream, const struct matmul_problem *p, struct matmul_operands *ret,
                           struct err *err)
{
    size_t a = bytes_of(&p->a), b = bytes_of(&p->b), d = bytes_of(&p->d);
    size_t vector = (size_t)(p->d.height > p->d.columns ? p->d.height : p->d.columns) * sizeof(float);
    char *memory;

    vector = (vector + 511) / 512 * 512;
    if (!stream_trial(stream, a + b + 2 * d + vector + WORKSPACE, (void **)&memory, err) ||
        !cuda_ok(numbers_fill(stream->queue, p->a.number, memory,
                              (int64_t)((a + b + 2 * d) / (p->a.number == NUMBER_BF16 ? 2 : 4))),
                 "timing algorithms", err) ||
        !cuda_ok(cudaMemsetAsync(memory + a + b + 2 * d, 0, vector, stream->queue), "timing algorithms", err))
        return false;
    *ret = (struct matmul_operands){
        .a = memory,
        .b = memory + a,
        .d = memory + a + b,
        .add = p->add ? memory + a + b + d : NULL,
        .vector = p->epilogue & (MATMUL_BIAS | MATMUL_SUMS) ? memory + a + b + 2 * d : NULL,
        .workspace = memory + a + b + 2 * d + vector,
    };
    return true;
}

/* Microseconds of one of `runs` runs. */
static bool time_runs(struct stream *stream, const struct matmul *matmul, const struct matmul_operands *operands,
                      cudaEvent_t events[2], int runs, float *us)
{
    struct err err;
    float ms = 0;
    bool ok = cudaEventRecord(events[0], stream->queue) == cudaSuccess;

    for (int i = 0; i < runs && ok; i++)
        ok = matmul_run(stream, matmul, operands, &err);
    ok = ok && cudaEventRecord(events[1], stream->queue) == cudaSuccess &&
         cudaStreamSynchronize(stream->queue) == cudaSuccess &&
         cudaEventElapsedTime(&ms, events[0], events[1]) == cudaSuccess;
    *us = ms * 1000 / (float)runs;
    return ok;
}

/* The number of the fastest; CACHE_NO_PLAN where nothing can be timed. */
static int fastest_of(struct stream *stream, const struct matmul_problem *p, const struct matmul *matmul,
                      const struct candidates *c, const char *text)
{
    struct matmul_operands operands;
    struct matmul tried = *matmul;
    cudaEvent_t events[2] = {NULL, NULL};
    struct err err;
    int choice = CACHE_NO_PLAN;
    float best = 0, us;

    if (!trial_operands(stream, p, &operands, &err) || cudaEventCreate(&events[0]) != cudaSuccess)
        return choice;
    if (cudaEventCreate(&events[1]) == cudaSuccess)
        for (int i = 0; i < c->count; i++) {
            take(c, i, &tried);
            if (!time_runs(stream, &tried, &operands, events, 1, &us) ||
                device_pause(stream->queue, DELAY_US) != cudaSuccess ||
                !time_runs(stream, &tried, &operands, events, RUNS, &us))
                continue;
            if (getenv("RFUAV_CUDA_VERBOSE"))
                fprintf(stderr, "cublas: %s: %d of %d: %.1f us, workspace %zu\n", text, i, c->count, (double)us,
                        tried.workspace);
            if (best == 0 || us < best) {
                best = us;
                choice = i;
            }
        }
    cudaEventDestroy(events[0]);
    if (events[1])
        cudaEventDestroy(events[1]);
    return choice;
}

static void problem_text(const struct matmul_problem *p, char *text, size_t size)
{
    const struct matrix *m[] = {&p->a, &p->b, &p->d};
    int length = snprintf(text, size, "product epilogue %d%s", p->epilogue, p->add ? " add" : "");

    for (int i = 0; i < 3 && length > 0 && (size_t)length < size; i++)
        length += snprintf(text + length, size - (size_t)length, " %lldx%lld%s%s", (long long)m[i]->height,
                           (long long)m[i]->columns, m[i]->turned ? "^T" : "", m[i]->number == NUMBER_BF16 ? "h" : "");
}

bool matmul_find(struct stream *stream, const struct matmul_problem *problem, struct matmul *ret, struct err *err)
{
    struct candidates candidates = {.count = 0};
    struct matmul made = {0};
    char text[160];
    int choice = 0;
    cublasStatus_t status = describe(problem, &made);

    err->message[0] = '\0';
    if (status == CUBLAS_STATUS_SUCCESS) {
        status = list_algorithms(stream, &made, &candidates);
        if (status == CUBLAS_STATUS_NOT_SUPPORTED || (status == CUBLAS_STATUS_SUCCESS && !candidates.count)) {
            matmul_release(&made);
            return false;
        }
    }
    if (status != CUBLAS_STATUS_SUCCESS) {
        matmul_release(&made);
        return blas_fail(status, err);
    }
    problem_text(problem, text, sizeof text);
    if (!stream->deterministic && candidates.count > 1 &&
        (!cudnn_cache_find(stream->cache, text, &choice) || choice < 0 || choice >= candidates.count)) {
        choice = fastest_of(stream, problem, &made, &candidates, text);
        if (choice != CACHE_NO_PLAN)
            cudnn_cache_add(stream->cache, text, choice);
    }
    take(&candidates, choice == CACHE_NO_PLAN ? 0 : choice, &made);
    *ret = made;
    return true;
}
