/* jpeg.h - the GPU's JPEG engines behind the backend's table; see engine/jpeg.h */
#ifndef RFUAV_ENGINE_CUDA_JPEG_H
#define RFUAV_ENGINE_CUDA_JPEG_H

#include "base/err.h"
#include "engine/jpeg.h"

struct jpeg_engines;

bool jpeg_engines_open(const char *device, int image_size, struct jpeg_engines **ret, struct err *err);
bool jpeg_engines_decode(struct jpeg_engines *engines, const struct jpeg_picture *picture, uint8_t *out);
bool jpeg_engines_ready(struct jpeg_engines *engines);
struct jpeg_engines *jpeg_engines_close(struct jpeg_engines *engines);

#endif
