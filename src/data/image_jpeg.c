/* image_jpeg.c - JPEG through libjpeg-turbo with its defaults (accurate integer DCT, smooth upsampling), as Pillow
 * calls it. The source suspends at the end of the data instead of inventing an end marker, so a truncated file is an
 * error. libjpeg reports by longjmp; every jump ends in the function that called setjmp. */
#include "data/image_format.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jpeglib.h>

#include "base/disk.h"

enum { MAX_SCANS = 500 }; /* a progressive file may repeat tiny scans over a huge picture for ever */

struct jpeg_errors {
    struct jpeg_error_mgr mgr; /* first: libjpeg knows only this part */
    jmp_buf jump;
    char text[JMSG_LENGTH_MAX];
};

struct jpeg_reader {
    struct jpeg_decompress_struct cinfo;
    struct jpeg_errors errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    uint8_t *row; /* of four inks, when the file has those */
};

static void fail(j_common_ptr cinfo)
{
    struct jpeg_errors *errors = (struct jpeg_errors *)cinfo->err;

    errors->mgr.format_message(cinfo, errors->text);
    longjmp(errors->jump, 1);
}

static void be_quiet(j_common_ptr cinfo)
{
    (void)cinfo;
}

static struct jpeg_error_mgr *errors_init(struct jpeg_errors *errors)
{
    jpeg_std_error(&errors->mgr);
    errors->mgr.error_exit = fail;
    errors->mgr.output_message = be_quiet;
    return &errors->mgr;
}

static void source_nothing(j_decompress_ptr cinfo)
{
    (void)cinfo;
}

static boolean source_suspend(j_decompress_ptr cinfo)
{
    (void)cinfo;
    return FALSE;
}

static void source_skip(j_decompress_ptr cinfo, long n)
{
    size_t left = cinfo->src->bytes_in_buffer, skip = n < 0 ? 0 : (size_t)n;

    if (skip > left)
        skip = left; /* the next read suspends */
    cinfo->src->next_input_byte += skip;
    cinfo->src->bytes_in_buffer -= skip;
}

static void count_scans(j_common_ptr cinfo)
{
    struct jpeg_reader *reader = (struct jpeg_reader *)cinfo;

    if (reader->cinfo.input_scan_number > MAX_SCANS) {
        snprintf(reader->errors.text, sizeof reader->errors.text, "more than %d scans", MAX_SCANS);
        longjmp(reader->errors.jump, 1);
    }
}

static bool truncated(const struct jpeg_reader *reader, const struct image_source *source, struct err *err)
{
    if (reader->cinfo.output_height > 0 && reader->cinfo.output_scanline < reader->cinfo.output_height)
        return err_set(err, ERR_INVALID, "the file is truncated: %zu bytes end at row %u of %u", source->size,
                       reader->cinfo.output_scanline, reader->cinfo.output_height);
    return err_set(err, ERR_INVALID, "the file is truncated: %zu bytes end before the picture", source->size);
}

static void open_source(struct jpeg_reader *reader, const struct image_source *source)
{
    reader->cinfo.err = errors_init(&reader->errors);
    jpeg_create_decompress(&reader->cinfo);
    reader->source = (struct jpeg_source_mgr){.next_input_byte = source->data,
                                              .bytes_in_buffer = source->size,
                                              .init_source = source_nothing,
                                              .fill_input_buffer = source_suspend,
                                              .skip_input_data = source_skip,
                                              .resync_to_restart = jpeg_resync_to_restart,
                                              .term_source = source_nothing};
    reader->progress.progress_monitor = count_scans;
    reader->cinfo.src = &reader->source;
    reader->cinfo.progress = &reader->progress;
}

static bool decode(struct jpeg_reader *reader, const struct image_source *source, struct image *ret, struct err *err)
{
    struct jpeg_decompress_struct *cinfo = &reader->cinfo;
    int header;

    if (setjmp(reader->errors.jump))
        return err_set(err, ERR_INVALID, "%s", reader->errors.text);
    open_source(reader, source);
    do
        header = jpeg_read_header(cinfo, FALSE);
    while (header == JPEG_HEADER_TABLES_ONLY);
    if (header != JPEG_HEADER_OK)
        return truncated(reader, source, err);
    if (cinfo->num_components != 1 && cinfo->num_components != 3 && cinfo->num_components != 4)
        return err_set(err, ERR_INVALID, "%d colour components (known are 1, 3 and 4)", cinfo->num_components);
    if (!image_new(source, cinfo->image_width, cinfo->image_height, ret, err))
        return false;
    cinfo->out_color_space = cinfo->num_components == 4 ? JCS_CMYK : JCS_RGB;
    if (cinfo->num_components == 4 && !(reader->row = malloc(4 * (size_t)cinfo->image_width)))
        return err_set(err, ERR_MEMORY, "no memory for a row of %u pixels", cinfo->image_width);
    if (!jpeg_start_decompress(cinfo))
        return truncated(reader, source, err);
    while (cinfo->output_scanline < cinfo->output_height) {
        uint8_t *rgb = ret->rgb + 3 * (size_t)ret->width * cinfo->output_scanline;
        JSAMPROW row = reader->row ? reader->row : rgb;

        if (jpeg_read_scanlines(cinfo, &row, 1) != 1)
            return truncated(reader, source, err);
        if (!reader->row)
            continue;
        for (size_t i = 0; i < 4 * (size_t)ret->width; i++) /* Adobe stores the inks inverted; Pillow assumes it */
            row[i] = (uint8_t)(255 - row[i]);
        image_cmyk_to_rgb(row, rgb, (size_t)ret->width);
    }
    jpeg_finish_decompress(cinfo); /* a missing end does not matter, a damaged one is an error (by a jump) */
    return true;
}

bool image_decode_jpeg(const struct image_source *source, struct image *ret, struct err *err)
{
    struct jpeg_reader *reader = calloc(1, sizeof *reader);
    bool ok;

    if (!reader)
        return err_set(err, ERR_MEMORY, "no memory for a decoder");
    ok = decode(reader, source, ret, err);
    jpeg_destroy_decompress(&reader->cinfo);
    free(reader->row);
    free(reader);
    return ok;
}

struct jpeg_writer {
    struct jpeg_compress_struct cinfo;
    struct jpeg_errors errors;
};

static bool encode(struct jpeg_writer *writer, FILE *file, const struct image *image, int quality, struct err *err)
{
    struct jpeg_compress_struct *cinfo = &writer->cinfo;

    if (setjmp(writer->errors.jump))
        return err_set(err, ERR_IO, "%s", writer->errors.text);
    cinfo->err = errors_init(&writer->errors);
    jpeg_create_compress(cinfo);
    jpeg_stdio_dest(cinfo, file);
    cinfo->image_width = (JDIMENSION)image->width;
    cinfo->image_height = (JDIMENSION)image->height;
    cinfo->input_components = 3;
    cinfo->in_color_space = JCS_RGB;
    jpeg_set_defaults(cinfo); /* 4:2:0, as Pillow */
    jpeg_set_quality(cinfo, quality, TRUE);
    jpeg_start_compress(cinfo, TRUE);
    while (cinfo->next_scanline < cinfo->image_height) {
        JSAMPROW row = image->rgb + 3 * (size_t)image->width * cinfo->next_scanline;

        jpeg_write_scanlines(cinfo, &row, 1);
    }
    jpeg_finish_compress(cinfo);
    return true;
}

bool image_write_jpeg(const char *path, const struct image *image, int quality, struct err *err)
{
    FILE *file = fopen(path, "wbe");
    struct jpeg_writer *writer;
    bool ok = false;

    if (!file)
        return err_cannot_write(err, path, errno);
    writer = calloc(1, sizeof *writer);
    errno = 0;
    if (!writer)
        err_set(err, ERR_MEMORY, "no memory to write %s", path);
    else if (!(ok = encode(writer, file, image, quality, err)))
        err_while_writing(err, path, errno);
    if (writer)
        jpeg_destroy_compress(&writer->cinfo);
    free(writer);
    if (fclose(file) != 0 && ok)
        ok = err_cannot_write(err, path, errno);
    if (!ok)
        unlink(path);
    return ok;
}
