/* cache_home.c - see cache_home.h */
#include "base/cache_home.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0755); /* what is wrong with it shows in the end */
        *slash = '/';
    }
    return mkdir(path, 0755) == 0 || errno == EEXIST;
}

bool cache_home(const char *below, char *path, size_t size, struct err *err)
{
    static const struct {
        const char *variable, *folder;
    } places[] = {{"RFUAV_CACHE", ""}, {"XDG_CACHE_HOME", "/rfuav"}, {"HOME", "/.cache/rfuav"}};

    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const char *root = getenv(places[i].variable);

        if (!root || !root[0])
            continue;
        if (snprintf(path, size, "%s%s%s%s", root, places[i].folder, below ? "/" : "", below ? below : "") >= (int)size)
            return err_set(err, ERR_IO, "%s is too long for a path: %s", places[i].variable, root);
        return make_folders(path) || err_set(err, ERR_IO, "cannot make %s: %s", path, strerror(errno));
    }
    return err_set(err, ERR_IO, "neither RFUAV_CACHE nor HOME names a folder for it");
}
