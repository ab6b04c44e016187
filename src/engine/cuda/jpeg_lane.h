/* jpeg_lane.h - what decodes one batch of JPEG files at a time: a state of nvJPEG with a queue and memory of its own.
 * Two of them keep the GPU's engines busy: while they decode one lane's pictures, the other's go to the device and the
 * results of the one before come back. */
#ifndef RFUAV_ENGINE_CUDA_JPEG_LANE_H
#define RFUAV_ENGINE_CUDA_JPEG_LANE_H

#include "engine/cuda/jpeg_kernels.h"
#include "engine/cuda/nvjpeg.h"

/* A batch being put together. */
struct jpeg_load {
    const struct jpeg_picture *pictures[JPEG_BATCH];
    int count;
    size_t work, tables; /* bytes that its pictures take */
};

/* Adds the picture where it fits; false: it belongs to another batch, or with nothing else in this one to none. */
bool jpeg_load_add(struct jpeg_load *load, const struct jpeg_picture *picture, int image_size);

struct jpeg_lane {
    int image_size;
    cudaStream_t queue;
    cudaEvent_t done;
    nvjpegHandle_t handle; /* the owner's */
    nvjpegJpegState_t state;
    int initialized;      /* batch size that nvJPEG expects */
    char *work;           /* device: tables, planes, rows, results of a batch */
    char *tables, *files; /* pinned: weights; the files, since copies from other memory hold up the queue */
    uint8_t *results;     /* pinned: (count, image_size, image_size, 3) of the last batch */
};

/* On the current device. After either, jpeg_lane_close(). */
bool jpeg_lane_open(struct jpeg_lane *lane, nvjpegHandle_t handle, int image_size);
void jpeg_lane_close(struct jpeg_lane *lane);

/* Waits until the pictures are in `results`, in their order. Any thread, with the device current. */
bool jpeg_lane_run(struct jpeg_lane *lane, const struct jpeg_load *load);

#endif
