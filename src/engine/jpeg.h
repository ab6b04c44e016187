/* jpeg.h - JPEG decoded and resized by a device that has engines for it, much faster than all cores of its host.
 *
 * The result is that of libjpeg-turbo and Pillow to the bit (tests/gpu/jpeg.c compares): the engines' inverse transform
 * gives the same samples, and upsampling, colours and resize are exact integer arithmetic. Only of a damaged file whose
 * structure is whole may the bytes differ. */
#ifndef RFUAV_ENGINE_JPEG_H
#define RFUAV_ENGINE_JPEG_H

#include "base/jpeg_picture.h"

struct jpeg_decoder;

/* Pictures that it decodes at a time, one for each engine of an H100; threads that keep it busy: two such batches are
 * under way, one waits, one is being read; and what it takes on the device. */
enum { JPEG_BATCH = 7, JPEG_THREADS = 4 * JPEG_BATCH, JPEG_DEVICE_BYTES = 208 << 20 };

/* For results of (image_size, image_size, 3). Takes nothing of the device before the first picture. NULL: the backend
 * has no such engines, the library nvJPEG is not there, or RFUAV_JPEG is "cpu". */
struct jpeg_decoder *jpeg_decoder_open(const char *backend, const char *device, int image_size);
struct jpeg_decoder *jpeg_decoder_free(struct jpeg_decoder *decoder); /* accepts and returns NULL */

/* Waits until the picture is decoded to `out`; many threads at once. False: not this one, or not now: the caller does
 * it. The first call opens the engines in the background, which takes most of a second; until they are ready, and where
 * the device has none, the answer is false. */
bool jpeg_decoder_run(struct jpeg_decoder *decoder, const struct jpeg_picture *picture, uint8_t *out);
bool jpeg_decoder_ready(struct jpeg_decoder *decoder);

#endif
