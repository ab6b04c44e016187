/* table.h - columns of text for a terminal, aligned by display width (Chinese characters are two cells wide). */
#ifndef RFUAV_CLI_TABLE_H
#define RFUAV_CLI_TABLE_H

#include <stddef.h>
#include <stdio.h>

/* Cells that UTF-8 text takes on a terminal as text_print() shows it. */
size_t text_width(const char *text);

/* Bytes of the longest beginning of `text` that takes at most `width` cells. */
size_t text_fit(const char *text, size_t width);

/* Prints `text` with control characters (also escape sequences) replaced by "?": what comes from a server must not
 * drive the terminal. */
void text_print(FILE *out, const char *text);

enum { TABLE_COLUMNS_MAX = 12 };

struct table;

/* titles: (columns), the first row. NULL without memory. */
struct table *table_new(size_t columns, const char *const *titles);

/* Sets the next cell, row by row; formats as printf. */
void table_cell(struct table *table, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Right-aligns a column, as for numbers. */
void table_align_right(struct table *table, size_t column);

/* Prints it; the last column is cut at `width` cells in all (0: not cut). */
void table_print(const struct table *table, FILE *out, size_t width);

struct table *table_free(struct table *table); /* accepts and returns NULL */

#endif
