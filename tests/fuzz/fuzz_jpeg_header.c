/* fuzz_jpeg_header.c - what a decoder in hardware is asked for. Whatever is, libjpeg reads the same size from it. */
#include <stdlib.h>

#include "data/image.h"
#include "data/jpeg_header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct jpeg_picture picture;
    struct image image = {0};
    struct err err;

    if (!jpeg_header_suits(data, size, &picture))
        return 0;
    if (picture.width < JPEG_LEAST_SIDE || picture.height < JPEG_LEAST_SIDE || picture.width > 65535 ||
        picture.height > 65535 || picture.size != size)
        abort();
    if (picture.width * picture.height < 1 << 18 && image_decode(data, size, &image, &err) &&
        (image.width != picture.width || image.height != picture.height))
        abort();
    image_release(&image);
    return 0;
}
