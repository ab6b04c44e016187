/* offsets.h - where in one arena each piece of memory lies: pieces whose lives do not meet may share it. */
#ifndef RFUAV_ENGINE_OFFSETS_H
#define RFUAV_ENGINE_OFFSETS_H

#include <stddef.h>

enum { OFFSET_ALIGNMENT = 256 }; /* what GPU libraries ask of their workspace */

/* Needs `bytes` (0: nothing) from step `birth` to step `death`, both included. */
struct span {
    size_t bytes, offset;
    int birth, death;
};

/* Sets the offsets, multiples of OFFSET_ALIGNMENT, and returns the arena's size, at least `base`: the space below
 * `base` is not used. Greedy by size: the largest first, each at the lowest gap that is free throughout its life
 * (Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020). `order` is space for count
 * items. */
size_t offsets_assign(struct span *spans, int count, size_t base, int *order);

static inline size_t offset_round(size_t bytes)
{
    return (bytes + OFFSET_ALIGNMENT - 1) / OFFSET_ALIGNMENT * OFFSET_ALIGNMENT;
}

#endif
