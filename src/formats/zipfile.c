/* zipfile.c - reading the directory and the entries of a ZIP archive; see zipfile.h.
 * PKWARE APPNOTE 6.3.10, sections 4.3.7 (local header), 4.3.12 (directory), 4.3.14 to 4.3.16 (its end), 4.5.3 (ZIP64).
 */
#include "formats/zipfile.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "formats/bytes.h"

enum {
    LOCAL_SIZE = 30,
    CENTRAL_SIZE = 46,
    END_SIZE = 22,
    END64_SIZE = 56,
    LOCATOR_SIZE = 20,
    COMMENT_MAX = 65535,
    DIRECTORY_MAX = 64 << 20, /* bytes; a checkpoint of a thousand tensors has 100 KB */
    FLAG_ENCRYPTED = 1,
    EXTRA_ZIP64 = 1,
};

/* Where the directory is. */
struct end_record {
    uint64_t count, size, offset;
};

/* Finds the end record in the last 64 KiB: the last one whose comment reaches exactly to the file's end. */
static bool find_end(const struct source *source, unsigned char *tail, size_t *tail_size, size_t *at, struct err *err)
{
    size_t size = source->size < END_SIZE + COMMENT_MAX ? (size_t)source->size : END_SIZE + COMMENT_MAX;

    if (!source_read(source, source->size - size, size, tail, err))
        return false;
    *tail_size = size;
    for (size_t i = size < END_SIZE ? 0 : size - END_SIZE + 1; i-- > 0;)
        if (get_u32(tail + i) == 0x06054B50 && i + END_SIZE + get_u16(tail + i + 20) == size) {
            *at = i;
            return true;
        }
    return err_set(err, ERR_INVALID, "is a ZIP archive without an end: cut short, or still being written");
}

static bool read_end64(const struct source *source, uint64_t end_at, struct end_record *ret, struct err *err)
{
    unsigned char locator[LOCATOR_SIZE], end[END64_SIZE];

    if (end_at < LOCATOR_SIZE)
        return true;
    if (!source_read(source, end_at - LOCATOR_SIZE, sizeof locator, locator, err))
        return false;
    if (get_u32(locator) != 0x07064B50)
        return true;
    if (!source_read(source, get_u64(locator + 8), sizeof end, end, err))
        return false;
    if (get_u32(end) != 0x06064B50)
        return err_set(err, ERR_INVALID, "has a damaged ZIP64 directory");
    *ret = (struct end_record){.count = get_u64(end + 32), .size = get_u64(end + 40), .offset = get_u64(end + 48)};
    return true;
}

static bool read_end(const struct source *source, struct end_record *ret, struct err *err)
{
    unsigned char *tail = malloc(END_SIZE + COMMENT_MAX);
    size_t size = 0, at = 0;
    bool ok = false;

    if (!tail)
        return err_set(err, ERR_MEMORY, "no memory to read it");
    if (find_end(source, tail, &size, &at, err)) {
        *ret = (struct end_record){
            .count = get_u16(tail + at + 10), .size = get_u32(tail + at + 12), .offset = get_u32(tail + at + 16)};
        ok = read_end64(source, source->size - size + at, ret, err);
    }
    free(tail);
    if (!ok)
        return false;
    if (ret->size > source->size || ret->offset > source->size - ret->size)
        return err_set(err, ERR_INVALID, "has a ZIP directory that lies outside the file");
    if (ret->size > DIRECTORY_MAX || ret->count > ret->size / CENTRAL_SIZE)
        return err_set(err, ERR_INVALID, "has an impossible ZIP directory of %llu entries in %llu bytes",
                       (unsigned long long)ret->count, (unsigned long long)ret->size);
    return true;
}

/* Replaces the fields that are all ones by those of the ZIP64 extra field, which holds only these, in this order. */
static bool apply_zip64(struct zip_entry *entry, uint64_t *stored_size, const unsigned char *extra, size_t size)
{
    while (size >= 4) {
        size_t length = get_u16(extra + 2);
        const unsigned char *p = extra + 4, *end = p + length;
        uint64_t *fields[] = {&entry->size, stored_size, &entry->local_offset};

        if (length > size - 4)
            return false;
        for (size_t i = 0; get_u16(extra) == EXTRA_ZIP64 && i < 3; i++)
            if (*fields[i] == UINT32_MAX) {
                if (end - p < 8)
                    return false;
                *fields[i] = get_u64(p);
                p += 8;
            }
        extra += 4 + length;
        size -= 4 + length;
    }
    return true;
}

/* Reads the entry at `p`, and returns its size in the directory; 0 with *err set. */
static size_t read_central(const unsigned char *p, size_t left, struct arena *arena, struct zip_entry *ret,
                           struct err *err)
{
    size_t name_size, extra_size, total;
    uint64_t stored_size;
    char *name;

    if (left < CENTRAL_SIZE || get_u32(p) != 0x02014B50) {
        err_set(err, ERR_INVALID, "has a damaged ZIP directory");
        return 0;
    }
    name_size = get_u16(p + 28);
    extra_size = get_u16(p + 30);
    total = CENTRAL_SIZE + name_size + extra_size + get_u16(p + 32);
    if (total > left || memchr(p + CENTRAL_SIZE, 0, name_size)) {
        err_set(err, ERR_INVALID, "has a damaged ZIP directory");
        return 0;
    }
    name = arena_alloc(arena, name_size + 1);
    if (!name) {
        err_set(err, ERR_MEMORY, "no memory for its ZIP directory");
        return 0;
    }
    memcpy(name, p + CENTRAL_SIZE, name_size);
    *ret = (struct zip_entry){
        .name = name, .size = get_u32(p + 24), .local_offset = get_u32(p + 42), .crc = get_u32(p + 16)};
    stored_size = get_u32(p + 20);
    if (!apply_zip64(ret, &stored_size, p + CENTRAL_SIZE + name_size, extra_size)) {
        err_set(err, ERR_INVALID, "entry %s has a damaged ZIP64 field", name);
        return 0;
    }
    if (get_u16(p + 8) & FLAG_ENCRYPTED)
        ret->obstacle = "encrypted";
    else if (get_u16(p + 10) != 0 || stored_size != ret->size)
        ret->obstacle = "compressed";
    return total;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct zip_entry *)a)->name, ((const struct zip_entry *)b)->name);
}

bool zipfile_open(struct zipfile *ret, const struct source *source, struct arena *arena, struct err *err)
{
    struct end_record end = {0};
    unsigned char *directory;
    struct zip_entry *entries;
    size_t at = 0;

    if (!read_end(source, &end, err))
        return false;
    directory = arena_alloc(arena, (size_t)end.size);
    entries = arena_alloc(arena, (size_t)end.count * sizeof *entries);
    if (!directory || !entries)
        return err_set(err, ERR_MEMORY, "no memory for its ZIP directory");
    if (!source_read(source, end.offset, (size_t)end.size, directory, err))
        return false;
    for (size_t i = 0; i < end.count; i++) {
        size_t step = read_central(directory + at, (size_t)end.size - at, arena, &entries[i], err);

        if (!step)
            return false;
        at += step;
    }
    qsort(entries, (size_t)end.count, sizeof *entries, by_name);
    for (size_t i = 1; i < end.count; i++)
        if (by_name(&entries[i - 1], &entries[i]) == 0)
            return err_set(err, ERR_INVALID, "has the entry %s twice", entries[i].name);
    *ret = (struct zipfile){.source = source, .entries = entries, .count = (size_t)end.count};
    return true;
}

const struct zip_entry *zipfile_find(const struct zipfile *zip, const char *name)
{
    struct zip_entry key = {.name = name};

    return zip->count ? bsearch(&key, zip->entries, zip->count, sizeof key, by_name) : NULL;
}

bool zipfile_read(const struct zipfile *zip, const struct zip_entry *entry, void *out, struct err *err)
{
    unsigned char local[LOCAL_SIZE];
    uint64_t start;
    uint32_t crc;

    if (entry->obstacle)
        return err_set(err, ERR_INVALID,
                       "entry %s is %s, but torch.save stores entries as they are; repack with zip -0", entry->name,
                       entry->obstacle);
    if (!source_read(zip->source, entry->local_offset, sizeof local, local, err))
        return err_prefix(err, "entry %s", entry->name);
    if (get_u32(local) != 0x04034B50)
        return err_set(err, ERR_INVALID, "entry %s is not where the ZIP directory says", entry->name);
    start = entry->local_offset + LOCAL_SIZE + get_u16(local + 26) + get_u16(local + 28);
    if (!source_read(zip->source, start, (size_t)entry->size, out, err))
        return err_prefix(err, "entry %s", entry->name);
    if (!entry->crc)
        return true;
    crc = (uint32_t)crc32_z(0, out, (size_t)entry->size);
    if (crc != entry->crc)
        return err_set(err, ERR_INVALID, "entry %s is damaged: its checksum is %08x and should be %08x", entry->name,
                       (unsigned)crc, (unsigned)entry->crc);
    return true;
}
