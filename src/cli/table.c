/* table.c - see table.h */
#include "cli/table.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct table {
    size_t columns, count, capacity; /* count: cells, titles included */
    char **cells;
    bool right[TABLE_COLUMNS_MAX];
    bool failed;
};

/* The next code point and its length in bytes; a stray byte counts as one character. */
static uint32_t next_char(const char *text, size_t *ret_size)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t size = *p < 0xC0 ? 1 : *p < 0xE0 ? 2 : *p < 0xF0 ? 3 : 4;
    uint32_t code = size == 1 ? *p : *p & (0x7Fu >> size);

    for (size_t i = 1; i < size; i++) {
        if ((p[i] & 0xC0) != 0x80) {
            *ret_size = 1;
            return *p;
        }
        code = code << 6 | (p[i] & 0x3Fu);
    }
    *ret_size = size;
    return code;
}

/* Wide and full-width ranges of Unicode's East Asian Width (UAX #11), and the zero-width marks met in names. The
 * locale's wcwidth() would need a UTF-8 locale, which a service's environment often lacks. */
static size_t char_width(uint32_t code)
{
    static const struct {
        uint32_t first, last;
        size_t width;
    } ranges[] = {
        {0x0300, 0x036F, 0},   {0x1100, 0x115F, 2},   {0x200B, 0x200F, 0}, {0x231A, 0x231B, 2},   {0x23E9, 0x23EC, 2},
        {0x2705, 0x2705, 2},   {0x274C, 0x274C, 2},   {0x2E80, 0x303E, 2}, {0x3041, 0x33FF, 2},   {0x3400, 0x4DBF, 2},
        {0x4E00, 0x9FFF, 2},   {0xA000, 0xA4CF, 2},   {0xAC00, 0xD7A3, 2}, {0xF900, 0xFAFF, 2},   {0xFE00, 0xFE0F, 0},
        {0xFE30, 0xFE4F, 2},   {0xFF00, 0xFF60, 2},   {0xFFE0, 0xFFE6, 2}, {0x1F300, 0x1F64F, 2}, {0x1F680, 0x1F6FF, 2},
        {0x1F900, 0x1F9FF, 2}, {0x20000, 0x3FFFD, 2},
    };

    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (code >= ranges[i].first && code <= ranges[i].last)
            return ranges[i].width;
    return 1;
}

size_t text_width(const char *text)
{
    size_t width = 0, size;

    for (; *text; text += size)
        width += char_width(next_char(text, &size));
    return width;
}

size_t text_fit(const char *text, size_t width)
{
    size_t bytes = 0, size;

    while (text[bytes]) {
        size_t w = char_width(next_char(text + bytes, &size));

        if (w > width)
            break;
        width -= w;
        bytes += size;
    }
    return bytes;
}

void text_print(FILE *out, const char *text)
{
    size_t size;

    for (; *text; text += size) {
        uint32_t code = next_char(text, &size);

        if (code == '\t')
            fputc(' ', out);
        else if (code < 0x20 || (code >= 0x7F && code < 0xA0))
            fputc('?', out);
        else
            fwrite(text, 1, size, out);
    }
}

struct table *table_new(size_t columns, const char *const *titles)
{
    struct table *table = columns <= TABLE_COLUMNS_MAX ? calloc(1, sizeof *table) : NULL;

    if (!table)
        return NULL;
    table->columns = columns;
    for (size_t i = 0; i < columns; i++)
        table_cell(table, "%s", titles[i]);
    return table;
}

void table_align_right(struct table *table, size_t column)
{
    if (table)
        table->right[column] = true;
}

void table_cell(struct table *table, const char *fmt, ...)
{
    va_list args;
    char *text = NULL;
    int length;

    if (!table || table->failed)
        return;
    if (table->count == table->capacity) {
        size_t capacity = table->capacity ? 2 * table->capacity : 64;
        char **cells = realloc(table->cells, capacity * sizeof *cells);

        if (!cells) {
            table->failed = true;
            return;
        }
        table->cells = cells;
        table->capacity = capacity;
    }
    va_start(args, fmt);
    length = vasprintf(&text, fmt, args);
    va_end(args);
    if (length < 0) {
        table->failed = true;
        return;
    }
    table->cells[table->count++] = text;
}

static void pad(FILE *out, size_t n)
{
    while (n-- > 0)
        fputc(' ', out);
}

static void print_cell(const struct table *table, FILE *out, const char *text, size_t column, size_t column_width,
                       size_t room)
{
    bool last = column + 1 == table->columns;
    size_t width = text_width(text);
    size_t gap = width < column_width ? column_width - width : 0;

    if (table->right[column])
        pad(out, gap);
    if (last && width > room && room > 1) {
        char *cut = strndup(text, text_fit(text, room - 1));

        text_print(out, cut ? cut : "");
        fputs("…", out);
        free(cut);
    } else {
        text_print(out, text);
    }
    if (!last)
        pad(out, (table->right[column] ? 0 : gap) + 2);
}

void table_print(const struct table *table, FILE *out, size_t width)
{
    size_t widths[TABLE_COLUMNS_MAX] = {0}, before_last = 0, room = SIZE_MAX;

    if (!table || table->failed) {
        fputs("out of memory\n", stderr);
        return;
    }
    for (size_t i = 0; i < table->count; i++) {
        size_t w = text_width(table->cells[i]);

        if (w > widths[i % table->columns])
            widths[i % table->columns] = w;
    }
    for (size_t i = 0; i + 1 < table->columns; i++)
        before_last += widths[i] + 2;
    if (width > 0)
        room = width > before_last + 12 ? width - before_last : 12;
    for (size_t i = 0; i < table->count; i++) {
        size_t column = i % table->columns;

        print_cell(table, out, table->cells[i], column, widths[column], room);
        if (column + 1 == table->columns)
            fputc('\n', out);
    }
}

struct table *table_free(struct table *table)
{
    if (!table)
        return NULL;
    for (size_t i = 0; i < table->count; i++)
        free(table->cells[i]);
    free(table->cells);
    free(table);
    return NULL;
}
