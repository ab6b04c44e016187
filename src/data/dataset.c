/* dataset.c - see dataset.h; the order is that of torchvision's make_dataset(): the folders below a class sorted by
 * their whole path, the files of each by name. Names compare as bytes, which for UTF-8 is by code point. */
#include "data/dataset.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/arena.h"
#include "base/text.h"

struct list { /* of strings in the arena */
    const char **items;
    size_t count, capacity;
};

struct folder_id {
    dev_t device;
    ino_t inode;
};

struct owned { /* what a struct dataset * points at */
    struct dataset dataset;
    struct arena *arena;
    struct list classes;
    struct sample *samples;
    size_t capacity;
};

/* the walk below one class folder */
struct walk {
    struct owned *owned;
    struct list folders;
    struct folder_id *seen;
    size_t seen_count, seen_capacity;
    struct err *err;
};

bool dataset_is_image(const char *name)
{
    static const char *const endings[] = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"};
    size_t length = strlen(name);

    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t n = strlen(endings[i]);

        if (length >= n && strcasecmp(name + length - n, endings[i]) == 0)
            return true;
    }
    return false;
}

static bool out_of_memory(struct err *err)
{
    return err_set(err, ERR_MEMORY, "no memory to list the data set");
}

/* Makes room for one more item of `size` bytes. */
static bool grow(void **items, size_t count, size_t *capacity, size_t size)
{
    size_t more = *capacity ? 2 * *capacity : 64;
    void *bigger;

    if (count < *capacity)
        return true;
    bigger = reallocarray(*items, more, size);
    if (!bigger)
        return false;
    *items = bigger;
    *capacity = more;
    return true;
}

static bool list_add(struct list *list, const char *text)
{
    void *items = list->items;

    if (!text || !grow(&items, list->count, &list->capacity, sizeof *list->items))
        return false;
    list->items = items;
    list->items[list->count++] = text;
    return true;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void list_sort(struct list *list)
{
    if (list->count > 1)
        qsort(list->items, list->count, sizeof *list->items, compare_texts);
}

/* Is the entry a folder, links followed? */
static bool is_folder(DIR *dir, const struct dirent *entry)
{
    struct stat st;

    if (entry->d_type == DT_DIR)
        return true;
    if (entry->d_type != DT_LNK && entry->d_type != DT_UNKNOWN)
        return false;
    return fstatat(dirfd(dir), entry->d_name, &st, 0) == 0 && S_ISDIR(st.st_mode);
}

/* The entries of a folder, sorted: names of its files and of its folders; NULL: not wanted. */
static bool list_folder(struct arena *arena, const char *path, struct list *files, struct list *folders,
                        struct err *err)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    bool ok = true;

    if (!dir)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot list %s: %s", path, strerror(errno));
    while (ok && (errno = 0, entry = readdir(dir))) {
        struct list *into;

        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        into = is_folder(dir, entry) ? folders : files;
        if (into && !list_add(into, arena_strdup(arena, entry->d_name)))
            ok = out_of_memory(err);
    }
    if (ok && errno)
        ok = err_set(err, ERR_IO, "cannot list %s: %s", path, strerror(errno));
    closedir(dir);
    if (files)
        list_sort(files);
    if (folders)
        list_sort(folders);
    return ok;
}

/* Notes a folder as seen; *ret_new says whether it had not been, so that loops of links end. */
static bool note_folder(struct walk *walk, const char *path, bool *ret_new)
{
    struct stat st;
    void *seen = walk->seen;

    if (stat(path, &st) < 0)
        return err_set(walk->err, ERR_IO, "cannot read %s: %s", path, strerror(errno));
    *ret_new = true;
    for (size_t i = 0; i < walk->seen_count; i++)
        if (walk->seen[i].device == st.st_dev && walk->seen[i].inode == st.st_ino)
            *ret_new = false;
    if (!grow(&seen, walk->seen_count, &walk->seen_capacity, sizeof *walk->seen))
        return out_of_memory(walk->err);
    walk->seen = seen;
    walk->seen[walk->seen_count++] = (struct folder_id){st.st_dev, st.st_ino};
    return true;
}

/* All folders at and below `path`, each once, breadth first (their order is made afterwards). */
static bool collect_folders(struct walk *walk, const char *path)
{
    struct arena *arena = walk->owned->arena;
    bool is_new, ok = note_folder(walk, path, &is_new) && (list_add(&walk->folders, path) || out_of_memory(walk->err));

    for (size_t i = 0; ok && i < walk->folders.count; i++) {
        const char *folder = walk->folders.items[i];
        struct list names = {0};

        ok = list_folder(arena, folder, NULL, &names, walk->err);
        for (size_t k = 0; ok && k < names.count; k++) {
            const char *full = arena_printf(arena, "%s/%s", folder, names.items[k]);

            if (!full)
                ok = out_of_memory(walk->err);
            else
                ok = note_folder(walk, full, &is_new) &&
                     (!is_new || list_add(&walk->folders, full) || out_of_memory(walk->err));
        }
        free(names.items);
    }
    list_sort(&walk->folders);
    return ok;
}

static bool add_sample(struct owned *owned, const char *path, int32_t label, struct err *err)
{
    void *samples = owned->samples;

    if (!path || !grow(&samples, owned->dataset.count, &owned->capacity, sizeof *owned->samples))
        return out_of_memory(err);
    owned->samples = samples;
    owned->samples[owned->dataset.count++] = (struct sample){path, label};
    return true;
}

static bool add_class(struct owned *owned, const char *path, int32_t label, struct err *err)
{
    struct walk walk = {.owned = owned, .err = err};
    size_t before = owned->dataset.count;
    bool ok = collect_folders(&walk, path);

    for (size_t i = 0; ok && i < walk.folders.count; i++) {
        const char *folder = walk.folders.items[i];
        struct list files = {0};

        ok = list_folder(owned->arena, folder, &files, NULL, err);
        for (size_t k = 0; ok && k < files.count; k++)
            if (dataset_is_image(files.items[k]))
                ok = add_sample(owned, arena_printf(owned->arena, "%s/%s", folder, files.items[k]), label, err);
        free(files.items);
    }
    free(walk.folders.items);
    free(walk.seen);
    if (ok && owned->dataset.count == before)
        return err_set(err, ERR_INVALID,
                       "class folder %s has no image (.jpg .jpeg .png .ppm .bmp .pgm .tif .tiff .webp)", path);
    return ok;
}

static int32_t find_label(const struct list *classes, const char *name)
{
    for (size_t i = 0; i < classes->count; i++)
        if (strcmp(classes->items[i], name) == 0)
            return (int32_t)i;
    return -1;
}

static bool copy_classes(struct owned *owned, const struct list *folders, const struct dataset *like, struct err *err)
{
    size_t n = like ? like->class_count : folders->count;

    for (size_t i = 0; i < n; i++) {
        const char *name = like ? like->classes[i] : folders->items[i];

        if (!text_is_utf8(name, strlen(name)))
            return err_set(err, ERR_INVALID, "the name of class folder %zu is not UTF-8", i + 1);
        if (!list_add(&owned->classes, arena_strdup(owned->arena, name)))
            return out_of_memory(err);
    }
    return true;
}

static bool fill(struct owned *owned, const char *root, const struct dataset *like, struct err *err)
{
    struct list folders = {0};
    bool ok = list_folder(owned->arena, root, NULL, &folders, err);

    if (ok && folders.count == 0)
        ok = err_set(err, ERR_INVALID, "%s has no class folders (it must hold one folder of images per class)", root);
    ok = ok && copy_classes(owned, &folders, like, err);
    for (size_t i = 0; ok && i < folders.count; i++) {
        const char *path = arena_printf(owned->arena, "%s/%s", root, folders.items[i]);
        int32_t label = find_label(&owned->classes, folders.items[i]);

        if (!path)
            ok = out_of_memory(err);
        else if (label < 0)
            ok = err_set(err, ERR_INVALID, "%s is not one of the %zu classes of the other data set", path,
                         owned->classes.count);
        else
            ok = add_class(owned, path, label, err);
    }
    free(folders.items);
    owned->dataset.class_count = owned->classes.count;
    owned->dataset.classes = owned->classes.items;
    owned->dataset.samples = owned->samples;
    return ok;
}

bool dataset_open(const char *root, const struct dataset *like, struct dataset **ret, struct err *err)
{
    struct owned *owned = calloc(1, sizeof *owned);
    size_t length = strlen(root);
    const char *trimmed;

    if (!owned || !(owned->arena = arena_new(0))) {
        free(owned);
        return out_of_memory(err);
    }
    while (length > 1 && root[length - 1] == '/')
        length--;
    trimmed = arena_printf(owned->arena, "%.*s", (int)length, root);
    if (!trimmed ? !out_of_memory(err) : !fill(owned, trimmed, like, err)) {
        dataset_free(&owned->dataset);
        return false;
    }
    *ret = &owned->dataset;
    return true;
}

struct dataset *dataset_free(struct dataset *dataset)
{
    struct owned *owned = (struct owned *)dataset;

    if (!owned)
        return NULL;
    free(owned->classes.items);
    free(owned->samples);
    arena_free(owned->arena);
    free(owned);
    return NULL;
}
