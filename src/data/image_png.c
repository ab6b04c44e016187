/* image_png.c - PNG through libpng, narrowed to 8-bit RGB as Pillow does: 16-bit colour keeps its high byte, 16-bit
 * grey is clipped at 255, alpha and transparent colours are ignored, palette entries that the file lacks are grey.
 * libpng reports by longjmp; every jump ends in the function that called setjmp. */
#include "data/image_format.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <png.h>

#include "base/disk.h"

enum { MAX_CHUNK_BYTES = 64 << 20 };

struct png_io {
    png_structp png;
    png_infop info;
    const uint8_t *data; /* what is left to read */
    size_t size;
    bool truncated;
    char text[160]; /* libpng's last error */
    uint8_t *raw;   /* the samples as stored, one byte or two each */
    png_bytep *rows;
};

static void fail(png_structp png, png_const_charp text)
{
    struct png_io *io = png_get_error_ptr(png);

    snprintf(io->text, sizeof io->text, "%s", text);
    png_longjmp(png, 1);
}

static void be_quiet(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

static void read_bytes(png_structp png, png_bytep out, size_t n)
{
    struct png_io *io = png_get_io_ptr(png);

    if (n > io->size) {
        io->truncated = true;
        png_error(png, "the file is truncated");
    }
    memcpy(out, io->data, n);
    io->data += n;
    io->size -= n;
}

/* The palette with grey where the file has no entry, as in Pillow. */
static void full_palette(struct png_io *io, uint8_t palette[256][3])
{
    png_colorp colors = NULL;
    int n = 0;

    png_get_PLTE(io->png, io->info, &colors, &n);
    for (int i = 0; i < 256; i++)
        put_grey(palette[i], (uint8_t)i);
    for (int i = 0; i < n && i < 256; i++) {
        palette[i][0] = colors[i].red;
        palette[i][1] = colors[i].green;
        palette[i][2] = colors[i].blue;
    }
}

/* in: one sample of `channels` interleaved, 8 bits or (grey only) 16 bits each */
static void to_rgb(struct png_io *io, int color_type, int bit_depth, int channels, struct image *image)
{
    size_t n = (size_t)image->width * (size_t)image->height;
    uint8_t palette[256][3] = {{0}};
    const uint8_t *in = io->raw;
    uint8_t *out = image->rgb;

    if (color_type == PNG_COLOR_TYPE_PALETTE)
        full_palette(io, palette);
    for (size_t i = 0; i < n; i++, out += 3) {
        if (color_type == PNG_COLOR_TYPE_GRAY && bit_depth == 16) {
            put_grey(out, clip_u8(in[0] << 8 | in[1]));
            in += 2;
            continue;
        }
        if (color_type == PNG_COLOR_TYPE_PALETTE)
            memcpy(out, palette[in[0]], 3);
        else if (channels < 3)
            put_grey(out, in[0]);
        else
            memcpy(out, in, 3);
        in += channels;
    }
}

static void set_transforms(struct png_io *io, int color_type, int bit_depth)
{
    if (color_type == PNG_COLOR_TYPE_GRAY && bit_depth < 8)
        png_set_expand_gray_1_2_4_to_8(io->png);
    if (color_type == PNG_COLOR_TYPE_PALETTE)
        png_set_packing(io->png);
    if (color_type != PNG_COLOR_TYPE_GRAY && bit_depth == 16)
        png_set_strip_16(io->png);
    png_set_interlace_handling(io->png);
    png_read_update_info(io->png, io->info);
}

static bool allocate_rows(struct png_io *io, const struct image *image, bool direct, struct err *err)
{
    size_t row_bytes = png_get_rowbytes(io->png, io->info), height = (size_t)image->height;

    if (!direct)
        io->raw = calloc(height, row_bytes);
    io->rows = calloc(height, sizeof *io->rows);
    if (!io->rows || (!direct && !io->raw))
        return err_set(err, ERR_MEMORY, "no memory for %d x %d pixels", image->width, image->height);
    for (size_t y = 0; y < height; y++)
        io->rows[y] = (direct ? image->rgb : io->raw) + y * row_bytes;
    return true;
}

static bool decode(struct png_io *io, const struct image_source *source, struct image *ret, struct err *err)
{
    int color_type, bit_depth;
    bool direct; /* rows arrive as 8-bit RGB */

    if (setjmp(png_jmpbuf(io->png)))
        return io->truncated
                   ? err_set(err, ERR_INVALID, "the file is truncated: %zu bytes end before the picture", source->size)
                   : err_set(err, ERR_INVALID, "%s", io->text);
    png_set_read_fn(io->png, io, read_bytes);
    png_set_user_limits(io->png, 0x7fffffff, 0x7fffffff);
    png_set_chunk_malloc_max(io->png, MAX_CHUNK_BYTES);
    png_set_keep_unknown_chunks(io->png, PNG_HANDLE_CHUNK_NEVER, NULL, 0);
    png_read_info(io->png, io->info);
    if (!image_new(source, png_get_image_width(io->png, io->info), png_get_image_height(io->png, io->info), ret, err))
        return false;
    color_type = png_get_color_type(io->png, io->info);
    bit_depth = png_get_bit_depth(io->png, io->info);
    direct = color_type == PNG_COLOR_TYPE_RGB;
    set_transforms(io, color_type, bit_depth);
    if (!allocate_rows(io, ret, direct, err))
        return false;
    png_read_image(io->png, io->rows);
    if (!direct)
        to_rgb(io, color_type, bit_depth, png_get_channels(io->png, io->info), ret);
    return true; /* what follows the last row does not matter */
}

bool image_decode_png(const struct image_source *source, struct image *ret, struct err *err)
{
    struct png_io io = {.data = source->data, .size = source->size};
    bool ok = false;

    io.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &io, fail, be_quiet);
    io.info = io.png ? png_create_info_struct(io.png) : NULL;
    if (io.info)
        ok = decode(&io, source, ret, err);
    else
        err_set(err, ERR_MEMORY, "no memory for a decoder");
    png_destroy_read_struct(&io.png, &io.info, NULL);
    free(io.raw);
    free(io.rows);
    return ok;
}

static bool encode(struct png_io *io, FILE *file, const struct image *image, struct err *err)
{
    if (setjmp(png_jmpbuf(io->png)))
        return err_set(err, ERR_IO, "%s", io->text);
    png_init_io(io->png, file);
    png_set_IHDR(io->png, io->info, (png_uint_32)image->width, (png_uint_32)image->height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_compression_level(io->png, 4); /* of spectrograms as small as with 6, in a third of the time */
    png_write_info(io->png, io->info);
    for (size_t y = 0; y < (size_t)image->height; y++)
        png_write_row(io->png, image->rgb + 3 * (size_t)image->width * y);
    png_write_end(io->png, NULL);
    return true;
}

bool image_write_png(const char *path, const struct image *image, struct err *err)
{
    struct png_io io = {0};
    FILE *file = fopen(path, "wbe");
    bool ok = false;

    if (!file)
        return err_cannot_write(err, path, errno);
    errno = 0;
    io.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &io, fail, be_quiet);
    io.info = io.png ? png_create_info_struct(io.png) : NULL;
    if (!io.info)
        err_set(err, ERR_MEMORY, "no memory to write %s", path);
    else if (!(ok = encode(&io, file, image, err)))
        err_while_writing(err, path, errno);
    png_destroy_write_struct(&io.png, &io.info);
    if (fclose(file) != 0 && ok)
        ok = err_cannot_write(err, path, errno);
    if (!ok)
        unlink(path);
    return ok;
}
