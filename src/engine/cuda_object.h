/* cuda_object.h - the CUDA backend as the rest of the program sees it: a shared object that is opened when the first
 * stream is, so that a machine without CUDA, and the daemon, never load it. */
#ifndef RFUAV_ENGINE_CUDA_OBJECT_H
#define RFUAV_ENGINE_CUDA_OBJECT_H

#include "engine/backend.h"

/* What librfuav_cuda.so exports as `rfuav_cuda_object`. The number grows with every change of the structs that both
 * sides see, so that an object of another build is refused. */
enum { CUDA_OBJECT_ABI = 5 };
struct cuda_object {
    int abi;
    struct backend backend;
};

/* Forecasts without the object; its stream_open loads it and fills in the rest. */
extern struct backend cuda_backend;

/* Its estimate (backend.h). */
void cuda_estimate(struct graph *graph, struct op *op);

/* Opens librfuav_cuda.so: RFUAV_CUDA_OBJECT, beside this program, or in ../lib from there. */
bool cuda_object_load(struct err *err);

#endif
