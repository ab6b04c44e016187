/* cache_home.h - where is kept what can be made again: pictures of another size, choices of a timing. */
#ifndef RFUAV_BASE_CACHE_HOME_H
#define RFUAV_BASE_CACHE_HOME_H

#include <stddef.h>

#include "base/err.h"

/* Makes the folder $RFUAV_CACHE, $XDG_CACHE_HOME/rfuav or ~/.cache/rfuav, the first whose variable is set, or the
 * folder `below` in it (NULL: itself), and writes its path. The error says that there is no place for it, or what is
 * wrong with it. */
bool cache_home(const char *below, char *path, size_t size, struct err *err);

#endif
