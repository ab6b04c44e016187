/* simd_product.h - products of matrices small enough for the first-level cache, where a library's packing would take
 * longer than the product. Included by simd_loops.h, whose vectors it uses. */

/* `rows` by `vectors` of c, kept in registers. Both are constants where this is inlined. */
static inline __attribute__((always_inline)) void product_tile(const struct product *p, int64_t row, int64_t column,
                                                               const int rows, const int vectors)
{
    const float *a = p->a + row * p->a_row, *b = p->b + column;
    vec sums[8][4];

#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sums[r][v] = splat(0);
    for (int64_t k = 0; k < p->k; k++) {
        vec right[4];

#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            right[v] = load(b + k * p->b_row + v * SIMD_BLOCK);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const vec left = splat(a[r * p->a_row + k * p->a_column]);

#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                sums[r][v] += left * right[v];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            float *c = p->c + (row + r) * p->c_row + column + v * SIMD_BLOCK;

            store(c, p->add ? load(c) + splat(p->alpha) * sums[r][v] : splat(p->alpha) * sums[r][v]);
        }
}

/* Tiles of 4 by 4 or 8 by 2 vectors with 32 registers, of 4 by 2 with 16. */
static void small_product(const struct product *p)
{
    enum { WIDE = SIMD_BLOCK == 16 };
    int64_t column = 0;

    for (; WIDE && column + 4 * SIMD_BLOCK <= p->n; column += 4 * SIMD_BLOCK) {
        int64_t row = 0;

        for (; row + 4 <= p->m; row += 4)
            product_tile(p, row, column, 4, 4);
        for (; row < p->m; row++)
            product_tile(p, row, column, 1, 4);
    }
    for (; column + 2 * SIMD_BLOCK <= p->n; column += 2 * SIMD_BLOCK) {
        int64_t row = 0;

        for (; WIDE && row + 8 <= p->m; row += 8)
            product_tile(p, row, column, 8, 2);
        for (; row + 4 <= p->m; row += 4)
            product_tile(p, row, column, 4, 2);
        for (; row < p->m; row++)
            product_tile(p, row, column, 1, 2);
    }
    for (; column < p->n; column += SIMD_BLOCK)
        for (int64_t row = 0; row < p->m; row++)
            product_tile(p, row, column, 1, 1);
}
