/* infer_source.c - see infer_source.h */
#include "task/infer_source.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"

static const char *const picture_endings[] = {".jpg",  ".jpeg", ".png",  ".gif", ".bmp",
                                              ".tiff", ".tif",  ".webp", ".ppm", ".pgm"};
static const char *const raw_endings[] = {".iq", ".dat"};

static bool ends_in(const char *name, const char *const *endings, size_t n)
{
    const char *ending = strrchr(name, '.');

    for (size_t i = 0; ending && i < n; i++)
        if (strcasecmp(ending, endings[i]) == 0)
            return true;
    return false;
}

static bool is_picture(const char *name)
{
    return ends_in(name, picture_endings, sizeof picture_endings / sizeof *picture_endings);
}

static bool is_raw(const char *name)
{
    return ends_in(name, raw_endings, sizeof raw_endings / sizeof *raw_endings);
}

/* Adds one file by its ending; whether it is a file is looked at only now. False without memory. */
static bool add_file(struct source *source, const char *name, const char *path, struct arena *arena)
{
    struct source_file file = {.name = arena_strdup(arena, name), .path = path};
    struct stat st;

    if (!file.name || !path)
        return false;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return true;
    if (is_picture(name))
        source->pictures[source->picture_count++] = file;
    else if (is_raw(name))
        source->raws[source->raw_count++] = file;
    return true;
}

static int by_code_point(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* The name without its ending, cut in place. */
static void cut_ending(char *name)
{
    char *ending = strrchr(name, '.');

    if (ending && ending > name)
        *ending = '\0';
}

/* Gives every file a target. With `keep_existing` the names of files that are there are not used either. */
static bool name_targets(struct source_file *files, size_t count, const char *ending, const char *folder,
                         bool keep_existing, struct arena *arena)
{
    json_t *taken = json_object(); /* used as a set of names */
    bool ok = taken != NULL;

    for (size_t i = 0; ok && i < count; i++) {
        char *stem = arena_strdup(arena, files[i].name), *target = NULL;

        if (stem) {
            cut_ending(stem);
            target = arena_printf(arena, "%s/%s%s", folder, stem, ending);
        }
        for (int k = 2; target && (json_object_get(taken, target) || (keep_existing && access(target, F_OK) == 0)); k++)
            target = arena_printf(arena, "%s/%s_%d%s", folder, stem, k, ending);
        ok = target && json_object_set_new_nocheck(taken, target, json_true()) == 0;
        files[i].target = target;
    }
    json_decref(taken);
    return ok;
}

static bool is_target(const struct source *source, const char *path)
{
    for (size_t i = 0; i < source->picture_count; i++)
        if (strcmp(source->pictures[i].target, path) == 0)
            return true;
    return source->keep_existing && access(path, F_OK) == 0;
}

const char *source_frame_target(const struct source *source, const struct source_file *raw, size_t frame,
                                struct arena *arena)
{
    char *stem = arena_strdup(arena, raw->target), *target = NULL;

    if (stem) {
        cut_ending(stem);
        target = arena_printf(arena, "%s_%zu.jpg", stem, frame);
    }
    for (int k = 2; target && is_target(source, target); k++)
        target = arena_printf(arena, "%s_%zu_%d.jpg", stem, frame, k);
    return target;
}

bool source_has_raw(const char *path)
{
    enum { ENTRIES_MAX = 2048 };
    DIR *folder = opendir(path);
    struct dirent *entry;
    bool found = false;

    if (!folder)
        return errno == ENOTDIR && is_raw(path);
    for (int i = 0; !found && i < ENTRIES_MAX && (entry = readdir(folder)); i++)
        found = entry->d_name[0] != '.' && is_raw(entry->d_name);
    closedir(folder);
    return found;
}

static bool same_folder(const char *a, const char *b)
{
    struct stat sa, sb;

    return stat(a, &sa) == 0 && stat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

/* The folder that a file lies in, in the arena. */
static const char *parent_of(const char *path, struct arena *arena)
{
    char *parent = arena_strdup(arena, path), *slash = parent ? strrchr(parent, '/') : NULL;

    if (!slash)
        return parent ? "." : NULL;
    slash[slash == parent] = '\0';
    return parent;
}

static bool out_of_memory(int files, struct err *err)
{
    return err_set(err, ERR_MEMORY, "out of memory for the list of %d files", files);
}

static bool allocate(struct source *source, int files, struct arena *arena)
{
    source->pictures = arena_alloc(arena, (size_t)files * sizeof *source->pictures + 1);
    source->raws = arena_alloc(arena, (size_t)files * sizeof *source->raws + 1);
    return source->pictures && source->raws;
}

static bool list_folder(const char *path, struct arena *arena, struct source *source, struct err *err)
{
    struct dirent **entries = NULL;
    int n = scandir(path, &entries, NULL, by_code_point);
    bool ok;

    if (n < 0)
        return err_set(err, ERR_IO, tr("无法读取 %s: %s", "cannot read %s: %s"), path, strerror(errno));
    ok = allocate(source, n, arena);
    for (int i = 0; i < n; i++) {
        const char *name = entries[i]->d_name;

        ok = ok && (name[0] == '.' || add_file(source, name, arena_printf(arena, "%s/%s", path, name), arena));
        free(entries[i]);
    }
    free(entries);
    return ok || out_of_memory(n, err);
}

bool source_list(const char *path, const char *folder, struct arena *arena, struct source *ret, struct err *err)
{
    struct source source = {0};
    const char *parent = path;
    struct stat st;

    if (stat(path, &st) < 0)
        return err_set(err, ERR_NOT_FOUND, tr("无法读取 %s: %s", "cannot read %s: %s"), path, strerror(errno));
    if (S_ISDIR(st.st_mode)) {
        if (!list_folder(path, arena, &source, err))
            return false;
    } else {
        const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;

        parent = parent_of(path, arena);
        if (!parent || !allocate(&source, 1, arena) || !add_file(&source, name, path, arena))
            return out_of_memory(1, err);
    }
    source.keep_existing = same_folder(parent, folder);
    if (!name_targets(source.pictures, source.picture_count, ".jpg", folder, source.keep_existing, arena) ||
        !name_targets(source.raws, source.raw_count, ".mp4", folder, source.keep_existing, arena))
        return out_of_memory((int)(source.picture_count + source.raw_count), err);
    *ret = source;
    return true;
}
