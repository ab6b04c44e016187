/* fuzz_image.c - picture files of any format: decoding gives a whole picture within the bound, or an error that says
 * something. Corpus: a few of tests/golden/images. */
#include <stdlib.h>
#include <string.h>

#include "data/image_format.h"

enum { MAX_PIXELS = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct image image = {0};
    struct err err = {0};

    if (image_decode_bounded(data, size, MAX_PIXELS, &image, &err)) {
        uint8_t small[4 * 4 * 3];

        if (image.width <= 0 || image.height <= 0 || image.width > MAX_PIXELS / image.height)
            abort();
        if (!image_resize(&image, 4, 4, small, &err)) /* reads every pixel */
            abort();
    } else if (image.rgb || err.message[0] == '\0') {
        abort();
    }
    image_release(&image);
    return 0;
}
