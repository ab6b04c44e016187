/* image_text.h - laying out text for image_annotate.c and image_plot.c; not for use outside them. */
#ifndef RFUAV_DATA_IMAGE_TEXT_H
#define RFUAV_DATA_IMAGE_TEXT_H

#include <pango/pangocairo.h>

#include "base/err.h"

/* A layout of UTF-8 text (bytes that are not are replaced) in the given family list, `size` pixels an em. The caller
 * unrefs it with g_object_unref(). NULL with *err set when the machine has no font. */
PangoLayout *image_text_layout(cairo_t *cairo, const char *text, const char *family, double size, struct err *err);

#endif
