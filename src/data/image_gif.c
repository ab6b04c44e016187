/* image_gif.c - the first frame of a GIF through giflib, on the canvas as Pillow lays it: the canvas grows to hold the
 * frame, what the frame does not cover has the transparent index (else 0), and a file without palette is grey. */
#include "data/image_format.h"

#include <stdlib.h>
#include <string.h>

#include <gif_lib.h>

struct gif_input {
    const uint8_t *data;
    size_t size;
};

static int read_bytes(GifFileType *gif, GifByteType *out, int n)
{
    struct gif_input *input = gif->UserData;
    size_t take = (size_t)n < input->size ? (size_t)n : input->size;

    memcpy(out, input->data, take);
    input->data += take;
    input->size -= take;
    return (int)take;
}

static bool gif_fault(const GifFileType *gif, const struct gif_input *input, struct err *err)
{
    const char *text = GifErrorString(gif->Error);

    if (input->size == 0)
        return err_set(err, ERR_INVALID, "the file is truncated");
    return err_set(err, ERR_INVALID, "%s", text ? text : "malformed file");
}

/* Skips to the first frame; *transparent is its transparent index or -1. */
static bool find_frame(GifFileType *gif, const struct gif_input *input, int *transparent, struct err *err)
{
    GifRecordType type;

    *transparent = NO_TRANSPARENT_COLOR;
    for (;;) {
        GifByteType *block;
        int code;

        if (DGifGetRecordType(gif, &type) == GIF_ERROR)
            return gif_fault(gif, input, err);
        if (type == TERMINATE_RECORD_TYPE)
            return err_set(err, ERR_INVALID, "no picture in the file");
        if (type == IMAGE_DESC_RECORD_TYPE)
            return DGifGetImageDesc(gif) == GIF_OK || gif_fault(gif, input, err);
        if (type != EXTENSION_RECORD_TYPE)
            continue;
        if (DGifGetExtension(gif, &code, &block) == GIF_ERROR)
            return gif_fault(gif, input, err);
        if (block && code == GRAPHICS_EXT_FUNC_CODE && block[0] == 4 && (block[1] & 1))
            *transparent = block[4];
        while (block)
            if (DGifGetExtensionNext(gif, &block) == GIF_ERROR)
                return gif_fault(gif, input, err);
    }
}

static void set_palette(const ColorMapObject *map, uint8_t palette[256][3])
{
    for (int i = 0; i < 256; i++)
        put_grey(palette[i], (uint8_t)i);
    for (int i = 0; map && i < map->ColorCount && i < 256; i++) {
        palette[i][0] = map->Colors[i].Red;
        palette[i][1] = map->Colors[i].Green;
        palette[i][2] = map->Colors[i].Blue;
    }
}

/* Reads the frame's lines in stored order (interlaced: every 8th, 8th from 4, 4th from 2, 2nd from 1). */
static bool read_frame(GifFileType *gif, const struct gif_input *input, uint8_t palette[256][3], uint8_t *line,
                       struct image *image, struct err *err)
{
    static const int starts[] = {0, 4, 2, 1}, steps[] = {8, 8, 4, 2};
    const GifImageDesc *frame = &gif->Image;
    int passes = frame->Interlace ? 4 : 1;

    for (int pass = 0; pass < passes; pass++)
        for (int y = starts[pass]; y < frame->Height; y += frame->Interlace ? steps[pass] : 1) {
            size_t at = (size_t)(frame->Top + y) * (size_t)image->width + (size_t)frame->Left;

            if (DGifGetLine(gif, line, frame->Width) == GIF_ERROR)
                return gif_fault(gif, input, err);
            for (int x = 0; x < frame->Width; x++)
                memcpy(image->rgb + 3 * (at + (size_t)x), palette[line[x]], 3);
        }
    return true;
}

static bool decode(GifFileType *gif, const struct gif_input *input, const struct image_source *source,
                   struct image *ret, struct err *err)
{
    const GifImageDesc *frame = &gif->Image;
    uint8_t palette[256][3], *line;
    uint64_t width, height;
    int transparent, fill;
    bool ok;

    if (!find_frame(gif, input, &transparent, err))
        return false;
    if (frame->Left < 0 || frame->Top < 0 || frame->Width <= 0 || frame->Height <= 0)
        return err_set(err, ERR_INVALID, "the first frame is empty");
    width = (uint64_t)frame->Left + (uint64_t)frame->Width;
    height = (uint64_t)frame->Top + (uint64_t)frame->Height;
    if (gif->SWidth > 0 && width < (uint64_t)gif->SWidth)
        width = (uint64_t)gif->SWidth;
    if (gif->SHeight > 0 && height < (uint64_t)gif->SHeight)
        height = (uint64_t)gif->SHeight;
    if (!image_new(source, width, height, ret, err))
        return false;
    set_palette(frame->ColorMap ? frame->ColorMap : gif->SColorMap, palette);
    fill = transparent >= 0 ? transparent : 0;
    for (size_t i = 0; i < (size_t)(width * height); i++)
        memcpy(ret->rgb + 3 * i, palette[fill], 3);
    line = malloc((size_t)frame->Width);
    if (!line)
        return err_set(err, ERR_MEMORY, "no memory for a line of %d pixels", frame->Width);
    ok = read_frame(gif, input, palette, line, ret, err);
    free(line);
    return ok;
}

bool image_decode_gif(const struct image_source *source, struct image *ret, struct err *err)
{
    struct gif_input input = {source->data, source->size};
    int code = 0, closed;
    GifFileType *gif = DGifOpen(&input, read_bytes, &code);
    bool ok;

    if (!gif) {
        const char *text = GifErrorString(code);

        return err_set(err, ERR_INVALID, "%s", text ? text : "malformed file");
    }
    ok = decode(gif, &input, source, ret, err);
    DGifCloseFile(gif, &closed);
    return ok;
}
