/* object.c - see object.h */
#include "base/object.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The folder of this program, without a slash at the end. */
static bool own_folder(char *folder, size_t size)
{
    ssize_t length = readlink("/proc/self/exe", folder, size - 1);
    char *slash;

    if (length <= 0)
        return false;
    folder[length] = '\0';
    slash = strrchr(folder, '/');
    if (slash)
        *slash = '\0';
    return slash;
}

/* The first of the places where the object is; false when it is nowhere. */
static bool find(const char *name, const char *variable, char *path, size_t size)
{
    static const char *const places[] = {"", "/../lib", "/../lib/rfuav", "/../share/rfuav"};
    const char *named = variable ? getenv(variable) : NULL;
    char folder[PATH_MAX];

    if (named && named[0])
        return snprintf(path, size, "%s", named) < (int)size;
    if (!own_folder(folder, sizeof folder))
        return false;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (snprintf(path, size, "%s%s/%s", folder, places[i], name) < (int)size && access(path, R_OK) == 0)
            return true;
    return false;
}

const void *object_open(const char *name, const char *variable, const char *symbol, int abi, struct err *err)
{
    char path[PATH_MAX];
    const int *object;
    void *handle;

    if (!find(name, variable, path, sizeof path)) {
        err_set(err, ERR_NOT_FOUND, "%s is not beside this program", name);
        return NULL;
    }
    if (!(handle = dlopen(path, RTLD_NOW | RTLD_LOCAL))) {
        err_set(err, ERR_IO, "%s cannot be loaded: %s", path, dlerror());
        return NULL;
    }
    object = dlsym(handle, symbol);
    if (object && *object == abi)
        /* cppcheck-suppress resourceLeak ; it stays open on purpose */
        return object;
    dlclose(handle);
    err_set(err, ERR_IO, "%s belongs to another version of this program", path);
    return NULL;
}

bool object_file(const char *name, char *path, size_t size)
{
    return find(name, NULL, path, size);
}

bool object_there(const char *name, const char *variable)
{
    char path[PATH_MAX];

    return find(name, variable, path, sizeof path) && access(path, R_OK) == 0;
}
