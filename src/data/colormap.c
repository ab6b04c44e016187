/* colormap.c - see colormap.h */
#include "data/colormap.h"

#include <stddef.h>

struct point {
    double at, level;
};

/* matplotlib, _cm.py, _jet_data: straight lines between these points */
static const struct point red[] = {{0, 0}, {0.35, 0}, {0.66, 1}, {0.89, 1}, {1, 0.5}};
static const struct point green[] = {{0, 0}, {0.125, 0}, {0.375, 1}, {0.64, 1}, {0.91, 0}, {1, 0}};
static const struct point blue[] = {{0, 0.5}, {0.11, 1}, {0.34, 1}, {0.65, 0}, {1, 0}};

/* Colour `i`, in the order of matplotlib's own arithmetic, so that it rounds alike. */
static uint8_t level_at(const struct point *points, double i)
{
    const double last = COLORMAP_COLORS - 1;

    while (i > points[1].at * last)
        points++;
    return (uint8_t)(255 * ((i - points[0].at * last) / (points[1].at * last - points[0].at * last) *
                                (points[1].level - points[0].level) +
                            points[0].level));
}

void colormap_jet(uint8_t rgb[COLORMAP_COLORS][3])
{
    for (size_t i = 0; i < COLORMAP_COLORS; i++) {
        rgb[i][0] = level_at(red, (double)i);
        rgb[i][1] = level_at(green, (double)i);
        rgb[i][2] = level_at(blue, (double)i);
    }
}
