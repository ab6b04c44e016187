/* predictions.h - shows what an inference left in predictions.csv. */
#ifndef RFUAV_CLI_PREDICTIONS_H
#define RFUAV_CLI_PREDICTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum { CSV_FIELDS_MAX = 32 };

/* Splits one record of CSV (RFC 4180) in place: quotes are taken off, doubled quotes made single. Returns the number
 * of fields, at most CSV_FIELDS_MAX; the pointers are into `line`. */
size_t csv_split(char *line, char *fields[CSV_FIELDS_MAX]);

/* Prints the first rows of `folder`/predictions.csv as a table, and how many more there are. False, silently, when
 * there is no such file that we may read. */
bool predictions_print(const char *folder, FILE *out, size_t width);

#endif
