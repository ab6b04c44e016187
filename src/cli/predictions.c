/* predictions.c - see predictions.h */
#include "cli/predictions.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "cli/table.h"

enum { ROWS_SHOWN = 20 };

size_t csv_split(char *line, char *fields[CSV_FIELDS_MAX])
{
    char *in = line, *out = line;
    size_t count = 0;
    bool more = true;

    while (more && count < CSV_FIELDS_MAX) {
        bool quoted = *in == '"';

        fields[count++] = out;
        if (quoted)
            in++;
        for (; *in && (quoted || *in != ','); in++) {
            if (quoted && *in == '"') {
                if (in[1] != '"') {
                    quoted = false;
                    continue;
                }
                in++;
            }
            *out++ = *in;
        }
        more = *in == ',';
        in += more;
        *out++ = '\0';
    }
    return count;
}

bool predictions_print(const char *folder, FILE *out, size_t width)
{
    const char *titles[] = {tr("文件", "file"), tr("类别", "class"), tr("概率", "probability")};
    char path[PATH_MAX];
    FILE *file;
    char *line = NULL;
    size_t capacity = 0, rows = 0;
    struct table *table;

    if (snprintf(path, sizeof path, "%s/predictions.csv", folder) >= (int)sizeof path)
        return false;
    file = fopen(path, "re");
    if (!file)
        return false;
    table = table_new(3, titles);
    table_align_right(table, 2);
    while (getline(&line, &capacity, file) > 0) {
        char *fields[CSV_FIELDS_MAX];

        line[strcspn(line, "\r\n")] = '\0';
        if (csv_split(line, fields) < 3 || strcmp(fields[0], "file") == 0)
            continue;
        if (rows++ < ROWS_SHOWN) {
            table_cell(table, "%s", fields[0]);
            table_cell(table, "%s", fields[1]);
            table_cell(table, "%.2f%%", 100 * strtod(fields[2], NULL));
        }
    }
    if (rows > 0)
        table_print(table, out, width);
    if (rows > ROWS_SHOWN)
        fprintf(out, tr("... 另有 %zu 行，见 %s\n", "... and %zu more in %s\n"), rows - ROWS_SHOWN, path);
    table_free(table);
    free(line);
    fclose(file);
    return true;
}
