/* image_plot.c - the confusion matrix as a heat map: the colour of a cell is its share of the true class (its row),
 * the number in it the count. Cells shrink with the number of classes; what would be unreadable is left out. */
#include "data/image.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "data/image_text.h"

#define FAMILY "Noto Sans CJK SC, sans"

enum { MARGIN = 18, GAP = 8, BAR = 16, MAX_LABEL = 240, MAX_CLASSES = 2000 };

struct plot {
    const int64_t *matrix;
    size_t n;
    const char *const *names;
    double cell, label_size; /* pixels; label_size 0: no labels */
    double label_width;      /* of the longest label */
    bool upright;            /* the labels below run upwards */
    double left, top, side;  /* of the grid */
    double width, height;    /* of the whole */
    cairo_t *cairo;
    struct err *err;
    bool failed;
};

static double clamp(double value, double low, double high)
{
    return value < low ? low : value > high ? high : value;
}

static int64_t row_sum(const struct plot *plot, size_t row)
{
    int64_t sum = 0;

    for (size_t i = 0; i < plot->n; i++)
        sum += plot->matrix[row * plot->n + i];
    return sum;
}

/* Text in the current colour; (x, y) is the point of it that `across` and `down` (0 to 1 of its size) name. */
static void put_text(struct plot *plot, const char *text, double size, double x, double y, double across, double down)
{
    PangoLayout *layout = image_text_layout(plot->cairo, text, FAMILY, size, plot->err);
    int width, height;

    if (!layout) {
        plot->failed = true;
        return;
    }
    pango_layout_set_single_paragraph_mode(layout, TRUE);
    pango_layout_get_pixel_size(layout, &width, &height);
    if (width > MAX_LABEL && across > 0.9) { /* a class name that is too long */
        pango_layout_set_width(layout, MAX_LABEL * PANGO_SCALE);
        pango_layout_set_ellipsize(layout, PANGO_ELLIPSIZE_END);
        width = MAX_LABEL;
    }
    cairo_move_to(plot->cairo, x - across * width, y - down * height);
    pango_cairo_show_layout(plot->cairo, layout);
    g_object_unref(layout);
}

static void put_text_upright(struct plot *plot, const char *text, double size, double x, double y, double across)
{
    cairo_save(plot->cairo);
    cairo_translate(plot->cairo, x, y);
    cairo_rotate(plot->cairo, -M_PI / 2);
    put_text(plot, text, size, 0, 0, across, 0.5);
    cairo_restore(plot->cairo);
}

static double text_width(struct plot *plot, const char *text, double size)
{
    PangoLayout *layout = image_text_layout(plot->cairo, text, FAMILY, size, plot->err);
    int width = 0, height;

    if (!layout) {
        plot->failed = true;
        return 0;
    }
    pango_layout_get_pixel_size(layout, &width, &height);
    g_object_unref(layout);
    return width;
}

/* White to dark blue; s from 0 to 1. */
static void color_of(double s, double rgb[3])
{
    static const double stops[][3] = {{1, 1, 1},          {0.87, 0.92, 0.97}, {0.62, 0.79, 0.88},
                                      {0.26, 0.57, 0.78}, {0.13, 0.44, 0.71}, {0.03, 0.19, 0.42}};
    double at = clamp(s, 0, 1) * 5;
    int i = at >= 5 ? 4 : (int)at;

    for (int c = 0; c < 3; c++)
        rgb[c] = stops[i][c] + (stops[i + 1][c] - stops[i][c]) * (at - i);
}

static void set_color(struct plot *plot, double s)
{
    double rgb[3];

    color_of(s, rgb);
    cairo_set_source_rgb(plot->cairo, rgb[0], rgb[1], rgb[2]);
}

static void set_grey(struct plot *plot, double level)
{
    cairo_set_source_rgb(plot->cairo, level, level, level);
}

static void measure(struct plot *plot)
{
    double n = (double)plot->n, axis = 22;

    plot->cell = plot->n <= 100 ? clamp(900 / n, 24, 96) : fmax(1, floor(2400 / n));
    plot->label_size = plot->cell >= 10 ? clamp(plot->cell * 0.5, 9, 17) : 0;
    for (size_t i = 0; plot->label_size > 0 && i < plot->n; i++)
        plot->label_width = fmax(plot->label_width, text_width(plot, plot->names[i], plot->label_size));
    plot->upright = plot->label_width > plot->cell - 6;
    plot->label_width = fmin(plot->label_width, MAX_LABEL);
    plot->side = n * plot->cell;
    plot->left = MARGIN + axis + GAP + plot->label_width + GAP;
    plot->top = MARGIN + 34;
    plot->width = fmax(plot->left + plot->side, 420) + 3 * GAP + BAR + 52 + MARGIN;
    plot->height = plot->top + plot->side + GAP + (plot->upright ? plot->label_width : plot->label_size * 1.6) + GAP +
                   axis + MARGIN;
}

static void draw_cell(struct plot *plot, size_t row, size_t column, int64_t sum)
{
    int64_t count = plot->matrix[row * plot->n + column];
    double share = sum > 0 ? (double)count / (double)sum : 0;
    double x = plot->left + (double)column * plot->cell, y = plot->top + (double)row * plot->cell, size;
    char text[24];
    int digits = snprintf(text, sizeof text, "%" PRId64, count);

    set_color(plot, share);
    cairo_rectangle(plot->cairo, x, y, plot->cell, plot->cell);
    cairo_fill(plot->cairo);
    size = fmin(plot->cell * 0.42, (plot->cell - 3) / (digits * 0.62));
    if (size < 6 || (count == 0 && plot->n > 12))
        return;
    set_grey(plot, count == 0 ? 0.75 : share > 0.5 ? 1 : 0.1);
    put_text(plot, text, fmin(size, 22), x + plot->cell / 2, y + plot->cell / 2, 0.5, 0.5);
}

static void draw_grid(struct plot *plot)
{
    for (size_t row = 0; row < plot->n; row++) {
        int64_t sum = row_sum(plot, row);

        for (size_t column = 0; column < plot->n; column++)
            draw_cell(plot, row, column, sum);
    }
    cairo_set_line_width(plot->cairo, 1);
    set_grey(plot, 0.88);
    for (size_t i = 1; plot->cell >= 10 && i < plot->n; i++) {
        double at = floor((double)i * plot->cell) + 0.5;

        cairo_move_to(plot->cairo, plot->left + at, plot->top);
        cairo_rel_line_to(plot->cairo, 0, plot->side);
        cairo_move_to(plot->cairo, plot->left, plot->top + at);
        cairo_rel_line_to(plot->cairo, plot->side, 0);
    }
    cairo_stroke(plot->cairo);
    set_grey(plot, 0.3);
    cairo_rectangle(plot->cairo, floor(plot->left) + 0.5, floor(plot->top) + 0.5, floor(plot->side), floor(plot->side));
    cairo_stroke(plot->cairo);
}

static void draw_labels(struct plot *plot)
{
    double below = plot->top + plot->side + GAP;

    set_grey(plot, 0.1);
    for (size_t i = 0; plot->label_size > 0 && i < plot->n; i++) {
        double middle = ((double)i + 0.5) * plot->cell;

        put_text(plot, plot->names[i], plot->label_size, plot->left - GAP, plot->top + middle, 1, 0.5);
        if (plot->upright)
            put_text_upright(plot, plot->names[i], plot->label_size, plot->left + middle, below, 1);
        else
            put_text(plot, plot->names[i], plot->label_size, plot->left + middle, below, 0.5, 0);
    }
    set_grey(plot, 0.35);
    put_text(plot, tr("预测类别", "predicted class"), 15, plot->left + plot->side / 2, plot->height - MARGIN, 0.5, 1);
    put_text_upright(plot, tr("真实类别", "true class"), 15, MARGIN + 9, plot->top + plot->side / 2, 0.5);
}

static void draw_title(struct plot *plot)
{
    int64_t all = 0, right = 0;
    char text[160];

    for (size_t i = 0; i < plot->n; i++) {
        all += row_sum(plot, i);
        right += plot->matrix[i * plot->n + i];
    }
    snprintf(text, sizeof text,
             tr("准确率 %.2f%%（%" PRId64 " / %" PRId64 "）", "accuracy %.2f %% (%" PRId64 " of %" PRId64 ")"),
             all > 0 ? 100.0 * (double)right / (double)all : 0.0, right, all);
    set_grey(plot, 0.1);
    put_text(plot, text, 19, plot->left, MARGIN, 0, 0);
}

/* The scale of the colours at the right. */
static void draw_bar(struct plot *plot)
{
    double x = plot->left + plot->side + 3 * GAP, length = fmin(plot->side, 400);

    for (int i = 0; i < (int)length; i++) {
        set_color(plot, 1 - i / length);
        cairo_rectangle(plot->cairo, x, plot->top + i, BAR, 1.5);
        cairo_fill(plot->cairo);
    }
    set_grey(plot, 0.3);
    cairo_rectangle(plot->cairo, floor(x) + 0.5, floor(plot->top) + 0.5, BAR, floor(length));
    cairo_stroke(plot->cairo);
    for (int percent = 0; percent <= 100; percent += 25) {
        char text[8];

        snprintf(text, sizeof text, "%d %%", percent);
        put_text(plot, text, 12, x + BAR + 5, plot->top + length * (1 - percent / 100.0), 0, 0.5);
    }
}

static void draw(struct plot *plot)
{
    set_grey(plot, 1);
    cairo_paint(plot->cairo);
    draw_grid(plot);
    draw_labels(plot);
    draw_title(plot);
    draw_bar(plot);
}

/* Cairo's 0x00RRGGBB words to RGB bytes; ret->rgb is malloc'ed. */
static bool to_image(cairo_surface_t *surface, struct image *ret, struct err *err)
{
    int width = cairo_image_surface_get_width(surface), height = cairo_image_surface_get_height(surface);
    size_t stride = (size_t)cairo_image_surface_get_stride(surface) / sizeof(uint32_t);
    const uint32_t *words = (const void *)cairo_image_surface_get_data(surface);
    uint8_t *rgb = malloc(3 * (size_t)width * (size_t)height), *out = rgb;

    if (!rgb)
        return err_set(err, ERR_MEMORY, "no memory for a plot of %d x %d pixels", width, height);
    for (size_t y = 0; y < (size_t)height; y++)
        for (size_t x = 0; x < (size_t)width; x++)
            for (int shift = 16; shift >= 0; shift -= 8)
                *out++ = (uint8_t)(words[y * stride + x] >> shift);
    *ret = (struct image){width, height, rgb};
    return true;
}

/* Draws on a surface of one pixel to measure first, then on one of the right size. */
static bool plot_surface(struct plot *plot, cairo_surface_t **ret)
{
    cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, 1, 1);
    cairo_status_t status;

    plot->cairo = cairo_create(surface);
    measure(plot);
    cairo_destroy(plot->cairo);
    cairo_surface_destroy(surface);
    surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)ceil(plot->width), (int)ceil(plot->height));
    plot->cairo = cairo_create(surface);
    if (!plot->failed)
        draw(plot);
    status = cairo_status(plot->cairo);
    if (!plot->failed && status != CAIRO_STATUS_SUCCESS)
        plot->failed = !err_set(plot->err, ERR_MEMORY, "cannot draw the plot: %s", cairo_status_to_string(status));
    cairo_destroy(plot->cairo);
    cairo_surface_flush(surface);
    *ret = surface;
    return !plot->failed;
}

bool image_write_confusion_png(const char *path, const int64_t *matrix, size_t n, const char *const *names,
                               struct err *err)
{
    struct plot plot = {.matrix = matrix, .n = n, .names = names, .err = err};
    cairo_surface_t *surface;
    struct image image = {0};
    bool ok;

    if (n == 0 || n > MAX_CLASSES)
        return err_set(err, ERR_INVALID, "a confusion matrix of %zu classes cannot be drawn (1 to %d)", n, MAX_CLASSES);
    ok = plot_surface(&plot, &surface) && to_image(surface, &image, err) && image_write_png(path, &image, err);
    cairo_surface_destroy(surface);
    image_release(&image);
    return ok;
}
