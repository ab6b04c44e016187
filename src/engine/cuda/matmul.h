/* matmul.h - matrix products through cuBLASLt: a problem in, the fastest algorithm for it out.
 * cuBLASLt counts in columns, so that a plain (rows, columns) matrix of ours is its (columns, rows). */
#ifndef RFUAV_ENGINE_CUDA_MATMUL_H
#define RFUAV_ENGINE_CUDA_MATMUL_H

#include "engine/cuda/stream.h"

/* One operand as it lies: so many columns of `height` numbers; turned before the product or not. */
struct matrix {
    enum number number;
    int64_t height, columns;
    bool turned;
};

/* d = a b, + d's height of biases (MATMUL_BIAS), then cut off at 0 (MATMUL_RELU); or, beside d, the sums of b's turned
 * columns, as many as d has (MATMUL_SUMS). Biases and sums are of d's numbers. add: a matrix like d is added. */
enum { MATMUL_BIAS = 1, MATMUL_RELU = 2, MATMUL_SUMS = 4 };

struct matmul_problem {
    struct matrix a, b, d;
    int epilogue;
    bool add;
};

struct matmul {
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace;
};

struct matmul_operands {
    const void *a, *b, *add; /* add: d's memory, or NULL */
    void *d;
    const void *vector; /* biases or sums; NULL: none */
    void *workspace;
};

/* Looks for the fastest algorithm: in the cache, else by timing what cuBLASLt's heuristics propose. false without an
 * error in *err when it has none for the problem (then err->message is empty). */
bool matmul_find(struct stream *stream, const struct matmul_problem *problem, struct matmul *ret, struct err *err);
bool matmul_run(struct stream *stream, const struct matmul *matmul, const struct matmul_operands *operands,
                struct err *err);
void matmul_release(struct matmul *matmul);

#endif
