/* library.h - cuDNN and cuBLASLt, found and opened at run time, so that this object loads where they are missing and
 * can say which one is. Their functions are called through the table `libs`. */
#ifndef RFUAV_ENGINE_CUDA_LIBRARY_H
#define RFUAV_ENGINE_CUDA_LIBRARY_H

#include <cublasLt.h>
#include <cudnn_graph.h>

#include "base/err.h"

#define CUDNN_FUNCTIONS(X)                                                                                             \
    X(cudnnGetVersion)                                                                                                 \
    X(cudnnGetErrorString)                                                                                             \
    X(cudnnGetLastErrorString)                                                                                         \
    X(cudnnCreate)                                                                                                     \
    X(cudnnDestroy)                                                                                                    \
    X(cudnnSetStream)                                                                                                  \
    X(cudnnBackendCreateDescriptor)                                                                                    \
    X(cudnnBackendDestroyDescriptor)                                                                                   \
    X(cudnnBackendSetAttribute)                                                                                        \
    X(cudnnBackendGetAttribute)                                                                                        \
    X(cudnnBackendFinalize)                                                                                            \
    X(cudnnBackendExecute)

#define CUBLASLT_FUNCTIONS(X)                                                                                          \
    X(cublasLtGetVersion)                                                                                              \
    X(cublasLtCreate)                                                                                                  \
    X(cublasLtDestroy)                                                                                                 \
    X(cublasLtMatmul)                                                                                                  \
    X(cublasLtMatmulAlgoGetHeuristic)                                                                                  \
    X(cublasLtMatmulDescCreate)                                                                                        \
    X(cublasLtMatmulDescDestroy)                                                                                       \
    X(cublasLtMatmulDescSetAttribute)                                                                                  \
    X(cublasLtMatrixLayoutCreate)                                                                                      \
    X(cublasLtMatrixLayoutDestroy)                                                                                     \
    X(cublasLtMatmulPreferenceCreate)                                                                                  \
    X(cublasLtMatmulPreferenceDestroy)                                                                                 \
    X(cublasLtMatmulPreferenceSetAttribute)

struct libs {
#define X(name) __typeof__ (&(name))(name);
    CUDNN_FUNCTIONS(X)
    CUBLASLT_FUNCTIONS(X)
#undef X
};

extern struct libs libs;

/* Opens both, once per process. The message names the library, the places that were searched, or the version that was
 * found and the one that is needed. Places: RFUAV_CUDA_LIBRARIES (folders with colons between them; Python's folder
 * "…/site-packages/nvidia" will do), this object's folder, the dynamic linker's, CUDA's folder, the nvidia packages of
 * Python's site-packages. */
bool libs_open(struct err *err);

/* The first of the names, space-separated, that can be opened in one of those places; NULL: none. */
void *libs_open_first(const char *names);

/* "cuDNN 9.19.0 (/…/libcudnn.so.9), cuBLASLt 13.1.0 (/…)", once they are open. */
const char *libs_version(void);

#endif
