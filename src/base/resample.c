/* resample.c - see resample.h */
#include "base/resample.h"

#include <math.h>
#include <stdlib.h>

/* The weights of output position i; `row` is scratch of taps doubles. */
static void fill(struct resample *r, int i, double *row)
{
    double scale = (double)r->in_size / r->out_size, filter_scale = scale < 1.0 ? 1.0 : scale;
    double center = (i + 0.5) * scale, inverse = 1.0 / filter_scale, sum = 0.0;
    int first = (int)(center - filter_scale + 0.5), end = (int)(center + filter_scale + 0.5);
    int32_t *weight = r->weight + (size_t)i * (size_t)r->taps;

    first = first < 0 ? 0 : first;
    end = end > r->in_size ? r->in_size : end;
    r->first[i] = first;
    r->count[i] = end - first;
    for (int t = 0; t < end - first; t++) {
        double x = fabs((t + first - center + 0.5) * inverse);

        row[t] = x < 1.0 ? 1.0 - x : 0.0;
        sum += row[t];
    }
    for (int t = 0; t < end - first; t++) {
        double value = sum != 0.0 ? row[t] / sum : row[t];

        weight[t] = (int32_t)(0.5 + value * (1 << RESAMPLE_BITS));
    }
}

bool resample_init(struct resample *r, int in_size, int out_size)
{
    double scale = (double)in_size / out_size;
    size_t n = (size_t)out_size;
    double *row;

    *r = (struct resample){.in_size = in_size, .out_size = out_size};
    r->taps = ((int)ceil(scale < 1.0 ? 1.0 : scale) * 2 + 1 + 3) / 4 * 4;
    r->first = calloc(n, sizeof *r->first);
    r->count = calloc(n, sizeof *r->count);
    r->weight = calloc(n * (size_t)r->taps, sizeof *r->weight);
    row = calloc((size_t)r->taps, sizeof *row);
    if (r->first && r->count && r->weight && row)
        for (int i = 0; i < out_size; i++)
            fill(r, i, row);
    free(row);
    return r->first && r->count && r->weight && row;
}

void resample_release(struct resample *r)
{
    free(r->first);
    free(r->count);
    free(r->weight);
    *r = (struct resample){0};
}
