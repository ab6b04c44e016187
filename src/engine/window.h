/* window.h - where the pixels of an image are in the windows of WINDOW_ATTENTION (op.h).
 *
 * The image, filled up to whole windows and rolled up and left by the shift, is cut into rows × columns windows. Token
 * t of a window is its pixel (t / width, t % width). After the roll the last row of windows holds what was at the top
 * of the image below what was at the bottom, and the last column likewise: such tokens are of different regions and do
 * not look at each other. */
#ifndef RFUAV_ENGINE_WINDOW_H
#define RFUAV_ENGINE_WINDOW_H

#include "engine/graph.h"

struct window_grid {
    int height, width;     /* of the image */
    int size[2], shift[2]; /* of a window; [0] is vertical, [1] horizontal */
    int rows, columns;     /* windows */
    int tokens;            /* of a window */
};

/* image: (N,H,W,…) */
static inline struct window_grid window_grid_of(const struct op_attrs *attrs, const struct tensor *image)
{
    struct window_grid grid = {
        .height = (int)image->shape[1],
        .width = (int)image->shape[2],
        .size = {attrs->kernel[0], attrs->kernel[1]},
        .shift = {attrs->shift[0], attrs->shift[1]},
        .tokens = attrs->kernel[0] * attrs->kernel[1],
    };

    grid.rows = (grid.height + grid.size[0] - 1) / grid.size[0];
    grid.columns = (grid.width + grid.size[1] - 1) / grid.size[1];
    return grid;
}

/* The pixel, row × width + column, of a token; -1: it is padding. */
static inline int window_pixel(const struct window_grid *grid, int window, int token)
{
    int y = window / grid->columns * grid->size[0] + token / grid->size[1] + grid->shift[0];
    int x = window % grid->columns * grid->size[1] + token % grid->size[1] + grid->shift[1];

    y %= grid->rows * grid->size[0];
    x %= grid->columns * grid->size[1];
    return y < grid->height && x < grid->width ? y * grid->width + x : -1;
}

/* Which of up to four regions of its window a token is in. */
static inline int window_region(const struct window_grid *grid, int window, int token)
{
    bool last_row = window / grid->columns == grid->rows - 1, last_column = window % grid->columns == grid->columns - 1;
    bool below = grid->shift[0] && last_row && token / grid->size[1] >= grid->size[0] - grid->shift[0];
    bool right = grid->shift[1] && last_column && token % grid->size[1] >= grid->size[1] - grid->shift[1];

    return below * 2 + right;
}

/* The table's entry for a query and a key. */
static inline int window_distance(const struct window_grid *grid, int query, int key)
{
    int down = query / grid->size[1] - key / grid->size[1], right = query % grid->size[1] - key % grid->size[1];

    return (down + grid->size[0] - 1) * (2 * grid->size[1] - 1) + right + grid->size[1] - 1;
}

#endif
