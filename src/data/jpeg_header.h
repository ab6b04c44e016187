/* jpeg_header.h - which JPEG files a decoder in hardware is asked for: by what their markers say, and only whole ones.
 */
#ifndef RFUAV_DATA_JPEG_HEADER_H
#define RFUAV_DATA_JPEG_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/jpeg_picture.h"

/* True for a baseline file of 8 bits, with Y, Cb and Cr in one scan, 4:2:0 or 4:4:4, without restarts, at least
 * JPEG_LEAST_SIDE pixels each way, that ends with its end marker and has no other marker within its scan (a truncated
 * or pieced together one has). Then *ret is filled but for the weights. */
enum { JPEG_LEAST_SIDE = 16 };
bool jpeg_header_suits(const void *data, size_t size, struct jpeg_picture *ret);

#endif
