/* image_tiff.c - the first page of a TIFF through libtiff: grey (1 to 32 bits, integer or float), palette, RGB and
 * CMYK (8 or 16 bits), YCbCr, in strips or tiles, samples together or apart. As in Pillow 16-bit colour keeps its high
 * byte, wide grey is clipped at 255, premultiplied colour is divided by its alpha, and the orientation tag is obeyed.
 *
 * Every sample is narrowed to a byte while its strip or tile is in memory; the colours are made from those bytes. */
#include "data/image_format.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tiffio.h>

enum { MAX_SAMPLES = 8 };

struct tiff_input {
    const uint8_t *data;
    uint64_t size, at;
};

struct tiff_page {
    TIFF *tiff;
    uint32_t width, height;
    uint16_t photometric, bits, samples, format, planar, compression, orientation, extra;
    bool invert;
    uint8_t *bytes; /* (height, width, samples) */
};

/* libtiff has one error handler for the process: it notes the text for the thread at work. */
static _Thread_local char last_error[200];

__attribute__((format(printf, 2, 0))) static void note_error(const char *module, const char *fmt, va_list args)
{
    (void)module;
    vsnprintf(last_error, sizeof last_error, fmt, args);
}

static void set_handlers(void)
{
    TIFFSetErrorHandler(note_error);
    TIFFSetWarningHandler(NULL);
}

static bool tiff_fault(const char *fallback, struct err *err)
{
    return err_set(err, ERR_INVALID, "%s", last_error[0] ? last_error : fallback);
}

static tmsize_t input_read(thandle_t handle, void *out, tmsize_t n)
{
    struct tiff_input *input = handle;
    uint64_t left = input->at < input->size ? input->size - input->at : 0;
    uint64_t take = n < 0 ? 0 : (uint64_t)n < left ? (uint64_t)n : left;

    memcpy(out, input->data + (take ? input->at : 0), (size_t)take);
    input->at += take;
    return (tmsize_t)take;
}

static tmsize_t input_write(thandle_t handle, void *data, tmsize_t n)
{
    (void)handle;
    (void)data;
    (void)n;
    return -1;
}

static toff_t input_seek(thandle_t handle, toff_t offset, int whence)
{
    struct tiff_input *input = handle;

    input->at = offset + (whence == SEEK_CUR ? input->at : whence == SEEK_END ? input->size : 0);
    return input->at;
}

static int input_close(thandle_t handle)
{
    (void)handle;
    return 0;
}

static toff_t input_size(thandle_t handle)
{
    return ((struct tiff_input *)handle)->size;
}

static int input_map(thandle_t handle, void **base, toff_t *size)
{
    struct tiff_input *input = handle;
    union {
        const uint8_t *in;
        void *out; /* libtiff only reads what it maps */
    } data = {input->data};

    *base = data.out;
    *size = input->size;
    return 1;
}

static void input_unmap(thandle_t handle, void *base, toff_t size)
{
    (void)handle;
    (void)base;
    (void)size;
}

static bool layout_supported(const struct tiff_page *page)
{
    uint16_t colors = page->samples - page->extra, bits = page->bits;

    if (page->samples < page->extra || page->samples > MAX_SAMPLES || page->samples == 0)
        return false;
    switch (page->photometric) {
    case PHOTOMETRIC_MINISWHITE:
    case PHOTOMETRIC_MINISBLACK:
        return colors == 1 && (bits == 1 || bits == 2 || bits == 4 || bits == 8 || bits == 16 || bits == 32) &&
               (page->samples == 1 || bits >= 8) && (page->format != SAMPLEFORMAT_IEEEFP || bits == 32);
    case PHOTOMETRIC_PALETTE:
        return colors == 1 && (bits == 8 || (page->samples == 1 && (bits == 1 || bits == 2 || bits == 4)));
    case PHOTOMETRIC_RGB:
        return colors >= 3 && (bits == 8 || bits == 16);
    case PHOTOMETRIC_SEPARATED:
        return colors >= 4 && (bits == 8 || bits == 16);
    default:
        return false;
    }
}

static bool read_tags(struct tiff_page *page, struct err *err)
{
    uint16_t *types = NULL;

    if (!TIFFGetField(page->tiff, TIFFTAG_IMAGEWIDTH, &page->width) ||
        !TIFFGetField(page->tiff, TIFFTAG_IMAGELENGTH, &page->height))
        return err_set(err, ERR_INVALID, "the width or the height is missing");
    TIFFGetFieldDefaulted(page->tiff, TIFFTAG_BITSPERSAMPLE, &page->bits);
    TIFFGetFieldDefaulted(page->tiff, TIFFTAG_SAMPLESPERPIXEL, &page->samples);
    TIFFGetFieldDefaulted(page->tiff, TIFFTAG_SAMPLEFORMAT, &page->format);
    TIFFGetFieldDefaulted(page->tiff, TIFFTAG_PLANARCONFIG, &page->planar);
    TIFFGetFieldDefaulted(page->tiff, TIFFTAG_COMPRESSION, &page->compression);
    TIFFGetFieldDefaulted(page->tiff, TIFFTAG_ORIENTATION, &page->orientation);
    TIFFGetFieldDefaulted(page->tiff, TIFFTAG_EXTRASAMPLES, &page->extra, &types);
    if (!TIFFGetField(page->tiff, TIFFTAG_PHOTOMETRIC, &page->photometric))
        page->photometric = PHOTOMETRIC_MINISWHITE; /* Pillow's guess */
    page->invert = page->photometric == PHOTOMETRIC_MINISWHITE && page->bits <= 8;
    return true;
}

static uint8_t narrow_wide(const struct tiff_page *page, const uint8_t *in, size_t i)
{
    uint16_t u16;
    int32_t i32;
    float f32;

    if (page->bits == 16) {
        memcpy(&u16, in + 2 * i, sizeof u16); /* in the machine's byte order already */
        if (page->photometric == PHOTOMETRIC_RGB || page->photometric == PHOTOMETRIC_SEPARATED)
            return (uint8_t)(u16 >> 8);
        return clip_u8(page->format == SAMPLEFORMAT_INT ? (int16_t)u16 : u16);
    }
    if (page->format == SAMPLEFORMAT_IEEEFP) {
        memcpy(&f32, in + 4 * i, sizeof f32);
        return f32 > 0 ? (uint8_t)(f32 < 255 ? f32 : 255) : 0; /* not a number: 0 */
    }
    memcpy(&i32, in + 4 * i, sizeof i32);
    return clip_u8(i32);
}

/* Sample i of a row as stored, as a byte. */
static uint8_t narrow(const struct tiff_page *page, const uint8_t *in, size_t i)
{
    uint32_t bits = page->bits, value;

    if (bits > 8)
        return narrow_wide(page, in, i);
    value = in[i * bits / 8] >> (8 - bits - i * bits % 8) & ((1u << bits) - 1);
    if (page->photometric != PHOTOMETRIC_PALETTE)
        value = value * 255 / ((1u << bits) - 1);
    return (uint8_t)(page->invert ? 255 - value : value);
}

/* Stores a decoded strip or tile that lies at (x, y) with rows of `stride` bytes; plane: of the one sample it holds. */
static void store_block(struct tiff_page *page, const uint8_t *block, size_t stride, uint32_t x, uint32_t y,
                        uint32_t width, uint32_t height, uint16_t plane)
{
    bool apart = page->planar == PLANARCONFIG_SEPARATE;
    size_t samples = page->samples, n = apart ? width : width * samples;

    for (uint32_t row = 0; row < height; row++) {
        uint8_t *out = page->bytes + ((size_t)(y + row) * page->width + x) * samples;
        const uint8_t *in = block + row * stride;

        if (apart)
            for (size_t i = 0; i < n; i++)
                out[i * samples + plane] = narrow(page, in, i);
        else if (page->bits == 8 && !page->invert)
            memcpy(out, in, n);
        else
            for (size_t i = 0; i < n; i++)
                out[i] = narrow(page, in, i);
    }
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static bool read_strips(struct tiff_page *page, uint16_t plane, uint8_t *block, struct err *err)
{
    size_t stride = (size_t)TIFFScanlineSize(page->tiff);
    uint32_t rows = page->height;

    TIFFGetFieldDefaulted(page->tiff, TIFFTAG_ROWSPERSTRIP, &rows);
    if (rows == 0)
        return err_set(err, ERR_INVALID, "strips of no rows");
    for (uint32_t y = 0; y < page->height;) {
        uint32_t height = smaller(rows, page->height - y);
        tmsize_t want = (tmsize_t)(height * stride);

        if (TIFFReadEncodedStrip(page->tiff, TIFFComputeStrip(page->tiff, y, plane), block, want) != want)
            return tiff_fault("a strip is truncated or damaged", err);
        store_block(page, block, stride, 0, y, page->width, height, plane);
        y += height;
    }
    return true;
}

static bool read_tiles(struct tiff_page *page, uint16_t plane, uint8_t *block, struct err *err)
{
    size_t stride = (size_t)TIFFTileRowSize(page->tiff);
    uint32_t width = 0, height = 0;

    TIFFGetField(page->tiff, TIFFTAG_TILEWIDTH, &width);
    TIFFGetField(page->tiff, TIFFTAG_TILELENGTH, &height);
    if (width == 0 || height == 0)
        return err_set(err, ERR_INVALID, "tiles of no size");
    for (uint64_t y = 0; y < page->height; y += height)
        for (uint64_t x = 0; x < page->width; x += width) {
            if (TIFFReadTile(page->tiff, block, (uint32_t)x, (uint32_t)y, 0, plane) < 0)
                return tiff_fault("a tile is truncated or damaged", err);
            store_block(page, block, stride, (uint32_t)x, (uint32_t)y, smaller(width, page->width - (uint32_t)x),
                        smaller(height, page->height - (uint32_t)y), plane);
        }
    return true;
}

static bool read_samples(struct tiff_page *page, const struct image_source *source, struct err *err)
{
    bool tiled = TIFFIsTiled(page->tiff), ok = true;
    uint64_t size = tiled ? TIFFTileSize64(page->tiff) : TIFFStripSize64(page->tiff);
    int planes = page->planar == PLANARCONFIG_SEPARATE ? page->samples : 1;
    uint8_t *block;

    if (size == 0 || size > 16 * source->max_pixels)
        return err_set(err, ERR_INVALID, "a strip or tile of %llu bytes", (unsigned long long)size);
    page->bytes = calloc((size_t)page->width * page->height, page->samples);
    block = calloc(1, (size_t)size);
    if (!page->bytes || !block)
        ok = err_set(err, ERR_MEMORY, "no memory for %u x %u pixels", page->width, page->height);
    for (int plane = 0; ok && plane < planes; plane++)
        ok = tiled ? read_tiles(page, (uint16_t)plane, block, err) : read_strips(page, (uint16_t)plane, block, err);
    free(block);
    return ok;
}

/* Divides premultiplied colours by their alpha; transparent ones are black. */
static void unmultiply(const uint8_t *in, uint8_t *out)
{
    for (int c = 0; c < 3; c++)
        out[c] = in[3] == 255 ? in[c] : in[3] ? clip_u8(in[c] * 255 / in[3]) : 0;
}

static bool make_colors(const struct tiff_page *page, struct image *image, struct err *err)
{
    size_t n = (size_t)page->width * page->height, entries = (size_t)1 << (page->bits > 8 ? 8 : page->bits);
    uint16_t *map[3] = {0}, *types = NULL, count = 0;
    const uint8_t *in = page->bytes;
    bool premultiplied;

    TIFFGetFieldDefaulted(page->tiff, TIFFTAG_EXTRASAMPLES, &count, &types);
    premultiplied = page->samples >= 4 && count > 0 && types[0] == EXTRASAMPLE_ASSOCALPHA;
    if (page->photometric == PHOTOMETRIC_PALETTE &&
        !TIFFGetField(page->tiff, TIFFTAG_COLORMAP, &map[0], &map[1], &map[2]))
        return err_set(err, ERR_INVALID, "the palette is missing");
    for (size_t i = 0; i < n; i++, in += page->samples) {
        uint8_t *out = image->rgb + 3 * i;

        if (page->photometric == PHOTOMETRIC_PALETTE)
            for (int c = 0; c < 3; c++)
                out[c] = in[0] < entries ? (uint8_t)(map[c][in[0]] >> 8) : 0;
        else if (page->photometric == PHOTOMETRIC_SEPARATED)
            image_cmyk_to_rgb(in, out, 1);
        else if (page->photometric != PHOTOMETRIC_RGB)
            put_grey(out, in[0]);
        else if (premultiplied)
            unmultiply(in, out);
        else
            memcpy(out, in, 3);
    }
    return true;
}

/* YCbCr with its subsampling: libtiff's own conversion. */
static bool read_ycbcr(struct tiff_page *page, struct image *image, struct err *err)
{
    size_t n = (size_t)page->width * page->height;
    char text[1024] = "";
    TIFFRGBAImage rgba;
    uint32_t *raster;
    bool ok;

    if (!TIFFRGBAImageOK(page->tiff, text) || !TIFFRGBAImageBegin(&rgba, page->tiff, 1, text))
        return err_set(err, ERR_INVALID, "%s", text);
    raster = malloc(n * sizeof *raster);
    rgba.req_orientation = ORIENTATION_TOPLEFT;
    rgba.orientation = ORIENTATION_TOPLEFT; /* turned afterwards like all others */
    ok = raster && TIFFRGBAImageGet(&rgba, raster, page->width, page->height);
    TIFFRGBAImageEnd(&rgba);
    for (size_t i = 0; ok && i < n; i++) {
        image->rgb[3 * i] = (uint8_t)TIFFGetR(raster[i]);
        image->rgb[3 * i + 1] = (uint8_t)TIFFGetG(raster[i]);
        image->rgb[3 * i + 2] = (uint8_t)TIFFGetB(raster[i]);
    }
    free(raster);
    return ok || (raster ? tiff_fault("the picture is truncated or damaged", err)
                         : err_set(err, ERR_MEMORY, "no memory for %u x %u pixels", page->width, page->height));
}

/* Orientation o: bit 0 of turns[o] swaps the axes first, then bit 1 mirrors left-right, bit 2 top-bottom. */
static bool orient(struct image *image, uint16_t orientation, struct err *err)
{
    static const uint8_t turns[] = {0, 0, 2, 6, 4, 1, 3, 7, 5};
    int turn = orientation < sizeof turns ? turns[orientation] : 0;
    size_t w = (size_t)image->width, h = (size_t)image->height, out_w = turn & 1 ? h : w, out_h = turn & 1 ? w : h;
    uint8_t *out;

    if (turn == 0)
        return true;
    out = malloc(3 * w * h);
    if (!out)
        return err_set(err, ERR_MEMORY, "no memory for %zu x %zu pixels", w, h);
    for (size_t y = 0; y < out_h; y++)
        for (size_t x = 0; x < out_w; x++) {
            size_t from_x = turn & 2 ? out_w - 1 - x : x, from_y = turn & 4 ? out_h - 1 - y : y;
            size_t from = turn & 1 ? from_x * w + from_y : from_y * w + from_x;

            memcpy(out + 3 * (y * out_w + x), image->rgb + 3 * from, 3);
        }
    free(image->rgb);
    *image = (struct image){(int)out_w, (int)out_h, out};
    return true;
}

static bool decode(struct tiff_page *page, const struct image_source *source, struct image *ret, struct err *err)
{
    if (!read_tags(page, err) || !image_new(source, page->width, page->height, ret, err))
        return false;
    if (page->photometric == PHOTOMETRIC_YCBCR && page->compression == COMPRESSION_JPEG &&
        page->planar == PLANARCONFIG_CONTIG && TIFFSetField(page->tiff, TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB))
        page->photometric = PHOTOMETRIC_RGB;
    if (page->photometric == PHOTOMETRIC_YCBCR)
        return read_ycbcr(page, ret, err) && orient(ret, page->orientation, err);
    if (!layout_supported(page))
        return err_set(err, ERR_INVALID, "unsupported layout: photometric %u with %u samples of %u bits",
                       page->photometric, page->samples, page->bits);
    return read_samples(page, source, err) && make_colors(page, ret, err) && orient(ret, page->orientation, err);
}

bool image_decode_tiff(const struct image_source *source, struct image *ret, struct err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct tiff_input input = {source->data, source->size, 0};
    struct tiff_page page = {0};
    bool ok;

    pthread_once(&once, set_handlers);
    last_error[0] = '\0';
    page.tiff = TIFFClientOpen("picture", "r", &input, input_read, input_write, input_seek, input_close, input_size,
                               input_map, input_unmap);
    if (!page.tiff)
        return tiff_fault("malformed or truncated file", err);
    ok = decode(&page, source, ret, err);
    free(page.bytes);
    TIFFClose(page.tiff);
    return ok;
}
