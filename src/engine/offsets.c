/* offsets.c - see offsets.h */
#include "engine/offsets.h"

#include <stdlib.h>
#include <string.h>

/* qsort_r: larger first; equal sizes in order of birth, then of the list, so that plans are reproducible. */
static int larger_first(const void *a, const void *b, void *arg)
{
    const struct span *spans = arg;
    int i = *(const int *)a, j = *(const int *)b;

    if (spans[i].bytes != spans[j].bytes)
        return spans[i].bytes > spans[j].bytes ? -1 : 1;
    if (spans[i].birth != spans[j].birth)
        return spans[i].birth - spans[j].birth;
    return i - j;
}

size_t offsets_assign(struct span *spans, int count, size_t base, int *order)
{
    size_t arena = base;

    for (int i = 0; i < count; i++)
        order[i] = i;
    qsort_r(order, (size_t)count, sizeof *order, larger_first, spans);
    /* order[0..k) are those with an offset, by offset; the rest are by size */
    for (int k = 0; k < count && spans[order[k]].bytes; k++) {
        int id = order[k], at = k;
        struct span *s = &spans[id];
        size_t bytes = offset_round(s->bytes);

        s->offset = base;
        for (int i = 0; i < k; i++) {
            const struct span *q = &spans[order[i]];

            if (q->offset >= s->offset + bytes)
                break;
            if (q->death >= s->birth && s->death >= q->birth && q->offset + offset_round(q->bytes) > s->offset)
                s->offset = q->offset + offset_round(q->bytes);
        }
        if (s->offset + bytes > arena)
            arena = s->offset + bytes;
        while (at > 0 && spans[order[at - 1]].offset > s->offset)
            at--;
        memmove(order + at + 1, order + at, (size_t)(k - at) * sizeof *order);
        order[at] = id;
    }
    return arena;
}
