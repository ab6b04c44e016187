/* colormap.h - numbers as colours. */
#ifndef RFUAV_DATA_COLORMAP_H
#define RFUAV_DATA_COLORMAP_H

#include <stdint.h>

enum { COLORMAP_COLORS = 256 };

/* The jet colours of matplotlib, dark blue to dark red. Colour i stands for the values i / 256 to (i + 1) / 256. */
void colormap_jet(uint8_t rgb[COLORMAP_COLORS][3]);

#endif
