/* image_annotate.c - text on pictures through pango and cairo, which find a font for any script. The text is drawn as
 * a mask of its own size and blended into the RGB bytes, so a large picture costs no more than a small one. */
#include "data/image.h"

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/object.h"
#include "data/image_text.h"

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
/* fontconfig and pango keep what they know of the fonts until the process ends */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libfontconfig\nleak:libpango";
}
#endif

static void be_quiet(const gchar *domain, GLogLevelFlags level, const gchar *text, gpointer data)
{
    (void)domain;
    (void)level;
    (void)text;
    (void)data;
}

static void silence_libraries(void)
{
    static const char *const domains[] = {"Pango", "GLib", "GLib-GObject"};

    for (size_t i = 0; i < sizeof domains / sizeof *domains; i++)
        g_log_set_handler(domains[i], G_LOG_LEVEL_MASK & ~(guint)G_LOG_LEVEL_ERROR, be_quiet, NULL);
}

void image_find_fonts(void)
{
    char path[PATH_MAX];

    if (object_file("fonts.conf", path, sizeof path))
        setenv("FONTCONFIG_FILE", path, 0);
}

/* Without any font pango would end the process. */
static bool have_font(void)
{
    PangoFontFamily **families = NULL;
    int count = 0;

    pango_font_map_list_families(pango_cairo_font_map_get_default(), &families, &count);
    g_free(families);
    return count > 0;
}

PangoLayout *image_text_layout(cairo_t *cairo, const char *text, const char *family, double size, struct err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    PangoFontDescription *font;
    PangoLayout *layout;
    char *valid;

    pthread_once(&once, silence_libraries);
    if (!have_font()) {
        err_set(err, ERR_IO, "this machine has no font to draw text with (Debian package fonts-noto-cjk)");
        return NULL;
    }
    valid = g_utf8_make_valid(text, -1);
    font = pango_font_description_from_string(family);
    pango_font_description_set_absolute_size(font, size * PANGO_SCALE);
    layout = pango_cairo_create_layout(cairo);
    pango_layout_set_font_description(layout, font);
    pango_layout_set_text(layout, valid, -1);
    pango_font_description_free(font);
    g_free(valid);
    return layout;
}

/* Blends the colour where the mask says, the mask's (0, 0) lying at (left, top) of the picture. */
static void blend(struct image *image, cairo_surface_t *mask, int left, int top, uint32_t rgb)
{
    const uint8_t *alpha = cairo_image_surface_get_data(mask);
    int stride = cairo_image_surface_get_stride(mask);
    const int color[3] = {(int)(rgb >> 16 & 255), (int)(rgb >> 8 & 255), (int)(rgb & 255)};

    for (int y = 0; y < cairo_image_surface_get_height(mask); y++)
        for (int x = 0; x < cairo_image_surface_get_width(mask); x++) {
            int a = alpha[(size_t)y * (size_t)stride + (size_t)x];
            uint8_t *pixel = image->rgb + 3 * ((size_t)(top + y) * (size_t)image->width + (size_t)(left + x));

            for (int c = 0; a && c < 3; c++)
                pixel[c] = (uint8_t)((pixel[c] * (255 - a) + color[c] * a + 127) / 255);
        }
}

static int clamp(int value, int low, int high)
{
    return value < low ? low : value > high ? high : value;
}

/* Draws the laid out text with its top left corner at (x, y), whatever of it lies in the picture. */
static bool draw_layout(struct image *image, PangoLayout *layout, int x, int y, uint32_t rgb, struct err *err)
{
    PangoRectangle ink, logical;
    cairo_surface_t *mask;
    cairo_t *cairo;
    int left, top, right, bottom;
    bool ok;

    pango_layout_get_pixel_extents(layout, &ink, &logical);
    left = clamp(x + ink.x - 1, 0, image->width);
    top = clamp(y + ink.y - 1, 0, image->height);
    right = clamp(x + ink.x + ink.width + 1, 0, image->width);
    bottom = clamp(y + ink.y + ink.height + 1, 0, image->height);
    if (left >= right || top >= bottom)
        return true;
    mask = cairo_image_surface_create(CAIRO_FORMAT_A8, right - left, bottom - top);
    cairo = cairo_create(mask);
    cairo_translate(cairo, x - left, y - top);
    pango_cairo_show_layout(cairo, layout);
    cairo_surface_flush(mask);
    ok = cairo_status(cairo) == CAIRO_STATUS_SUCCESS;
    if (ok)
        blend(image, mask, left, top, rgb);
    else
        err_set(err, ERR_MEMORY, "cannot draw text: %s", cairo_status_to_string(cairo_status(cairo)));
    cairo_destroy(cairo);
    cairo_surface_destroy(mask);
    return ok;
}

bool image_draw_text(struct image *image, const char *text, int x, int y, int size, uint32_t rgb, struct err *err)
{
    cairo_surface_t *nothing = cairo_image_surface_create(CAIRO_FORMAT_A8, 1, 1);
    cairo_t *cairo = cairo_create(nothing);
    PangoLayout *layout = image_text_layout(cairo, text, "Noto Serif CJK SC, serif", size, err);
    bool ok = layout && draw_layout(image, layout, x, y, rgb, err);

    if (layout)
        g_object_unref(layout);
    cairo_destroy(cairo);
    cairo_surface_destroy(nothing);
    return ok;
}
