/* jpeg.h - JPEG decoded and resized by a device that has engines for it, much faster than all cores of its host.
 *
 * The result is that of libjpeg-turbo and Pillow to the bit (tests/gpu/jpeg.c compares): the engines' inverse transform
 * gives the same samples, and upsampling, colours and resize are exact integer arithmetic. Only of a damaged file whose
 * structure is whole may the bytes differ. */
#ifndef RFUAV_ENGINE_JPEG_H
#define RFUAV_ENGINE_JPEG_H

#include "base/jpeg_picture.h"

struct jpeg_decoder;

/* Pictures that it decodes at a time, so that twice as many threads keep it busy; and what it takes on the device. */
enum { JPEG_BATCH = 21, JPEG_DEVICE_BYTES = 192 << 20 };

/* For results of (image_size, image_size, 3). Opens in the background, which takes most of a second. NULL: this device
 * has no such engines, the library nvJPEG is not there, or RFUAV_JPEG is "cpu". */
struct jpeg_decoder *jpeg_decoder_open(const char *backend, const char *device, int image_size);
struct jpeg_decoder *jpeg_decoder_free(struct jpeg_decoder *decoder); /* accepts and returns NULL */

/* Waits until the picture is decoded to `out`; many threads at once. False: not this one, or not now: the caller does
 * it.
 */
bool jpeg_decoder_run(struct jpeg_decoder *decoder, const struct jpeg_picture *picture, uint8_t *out);

#endif
