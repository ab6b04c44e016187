/* nvjpeg.h - the few functions of nvJPEG that decode on a GPU's JPEG engines, declared here, since CUDA can be
 * installed without it, and opened at run time (library.h says where it is looked for). */
#ifndef RFUAV_ENGINE_CUDA_NVJPEG_H
#define RFUAV_ENGINE_CUDA_NVJPEG_H

#include <cuda_runtime.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

typedef struct nvjpeg_handle *nvjpegHandle_t;
typedef struct nvjpeg_state *nvjpegJpegState_t;

enum { NVJPEG_BACKEND_HARDWARE = 3, NVJPEG_FLAGS_HW_DECODE_NO_PIPELINE = 1, NVJPEG_OUTPUT_YUV = 1 };

struct nvjpeg_image { /* three planes */
    unsigned char *channel[4];
    size_t pitch[4];
};

/* All return a status, 0 being success. */
struct nvjpeg {
    int (*CreateEx)(int backend, void *device_allocator, void *pinned_allocator, unsigned flags, nvjpegHandle_t *ret);
    int (*Destroy)(nvjpegHandle_t handle);
    int (*JpegStateCreate)(nvjpegHandle_t handle, nvjpegJpegState_t *ret);
    int (*JpegStateDestroy)(nvjpegJpegState_t state);
    int (*DecodeBatchedInitialize)(nvjpegHandle_t handle, nvjpegJpegState_t state, int batch_size, int cpu_threads,
                                   int output_format);
    int (*DecodeBatched)(nvjpegHandle_t handle, nvjpegJpegState_t state, const unsigned char *const *data,
                         const size_t *lengths, struct nvjpeg_image *destinations, cudaStream_t stream);
};
extern struct nvjpeg nvjpeg;

/* Opens the library, once per process. */
bool nvjpeg_open(struct err *err);

#endif
