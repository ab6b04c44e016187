/* image_webp.c - WebP (of an animation the first frame, on its canvas) through libwebp's animation decoder, as Pillow
 * reads it; alpha dropped. */
#include "data/image_format.h"

#include <webp/decode.h>
#include <webp/demux.h>

bool image_decode_webp(const struct image_source *source, struct image *ret, struct err *err)
{
    WebPData data = {source->data, source->size};
    WebPBitstreamFeatures features;
    WebPAnimDecoder *decoder;
    WebPAnimInfo info;
    uint8_t *rgba;
    int timestamp;
    bool ok = false;

    if (WebPGetFeatures(source->data, source->size, &features) != VP8_STATUS_OK)
        return err_set(err, ERR_INVALID, "malformed or truncated header");
    if (!image_new(source, (uint64_t)features.width, (uint64_t)features.height, ret, err))
        return false;
    decoder = WebPAnimDecoderNew(&data, NULL);
    if (!decoder)
        return err_set(err, ERR_INVALID, "malformed or truncated file");
    if (!WebPAnimDecoderGetInfo(decoder, &info) || info.canvas_width != (uint32_t)ret->width ||
        info.canvas_height != (uint32_t)ret->height) {
        err_set(err, ERR_INVALID, "the canvas differs from the header's %d x %d pixels", ret->width, ret->height);
    } else if (!WebPAnimDecoderGetNext(decoder, &rgba, &timestamp)) {
        err_set(err, ERR_INVALID, "malformed or truncated picture");
    } else {
        for (size_t i = 0; i < (size_t)ret->width * (size_t)ret->height; i++)
            for (size_t c = 0; c < 3; c++)
                ret->rgb[3 * i + c] = rgba[4 * i + c];
        ok = true;
    }
    WebPAnimDecoderDelete(decoder);
    return ok;
}
