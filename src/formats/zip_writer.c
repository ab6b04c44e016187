/* zip_writer.c - writing a ZIP archive of stored entries; see zipfile.h. Sizes and checksums are known beforehand, so
 * they stand in the local headers and nothing is written twice. ZIP64 fields appear only where they are needed. */
#include <limits.h>
#include <string.h>
#include <sys/uio.h>
#include <zlib.h>

#include "formats/bytes.h"
#include "formats/file.h"
#include "formats/zipfile.h"

enum {
    LOCAL_SIZE = 30,
    CENTRAL_SIZE = 46,
    ALIGNMENT = 64,
    NAME_MAX_SIZE = 1024,
    DIRECTORY_MAX = 64 << 20,
    FLAG_UTF8 = 1 << 11,
    DATE_1980 = 1 << 5 | 1, /* 1 January 1980, so that equal content makes equal files */
    EXTRA_ZIP64 = 1,
    EXTRA_PADDING = 'F' | 'B' << 8, /* what torch calls it */
};

void zip_writer_init(struct zip_writer *writer, int fd)
{
    *writer = (struct zip_writer){.fd = fd};
    buf_init(&writer->directory, DIRECTORY_MAX);
}

void zip_writer_release(struct zip_writer *writer)
{
    buf_release(&writer->directory);
}

static uint32_t clamp_u32(uint64_t value)
{
    return value < UINT32_MAX ? (uint32_t)value : UINT32_MAX;
}

/* The fields that local header and directory have in common: version needed to CRC, sizes, length of the name. */
static void put_common(unsigned char *p, uint32_t crc, uint64_t size, size_t name_size, size_t extra_size)
{
    put_u16(p, 45);
    put_u16(p + 2, FLAG_UTF8);
    put_u16(p + 8, DATE_1980);
    put_u32(p + 10, crc);
    put_u32(p + 14, clamp_u32(size));
    put_u32(p + 18, clamp_u32(size));
    put_u16(p + 22, (uint16_t)name_size);
    put_u16(p + 24, (uint16_t)extra_size);
}

static void add_to_directory(struct zip_writer *writer, const char *name, uint32_t crc, uint64_t size, uint64_t offset)
{
    unsigned char header[CENTRAL_SIZE] = {'P', 'K', 1, 2, 45}, extra[4 + 3 * 8];
    size_t extra_size = 4;

    if (size >= UINT32_MAX) {
        put_u64(extra + extra_size, size);
        put_u64(extra + extra_size + 8, size);
        extra_size += 16;
    }
    if (offset >= UINT32_MAX) {
        put_u64(extra + extra_size, offset);
        extra_size += 8;
    }
    put_u16(extra, EXTRA_ZIP64);
    put_u16(extra + 2, (uint16_t)(extra_size - 4));
    if (extra_size == 4)
        extra_size = 0;
    put_common(header + 6, crc, size, strlen(name), extra_size);
    put_u32(header + 42, clamp_u32(offset));
    buf_append(&writer->directory, header, sizeof header);
    buf_puts(&writer->directory, name);
    buf_append(&writer->directory, extra, extra_size);
}

bool zip_writer_add(struct zip_writer *writer, const char *name, const void *data, size_t size, struct err *err)
{
    unsigned char header[LOCAL_SIZE + NAME_MAX_SIZE + 20 + 4 + ALIGNMENT] = {'P', 'K', 3, 4};
    size_t name_size = strlen(name), used = LOCAL_SIZE + name_size, padding;
    uint32_t crc = (uint32_t)crc32_z(0, data, size);
    struct iovec pieces[2];

    if (name_size > NAME_MAX_SIZE)
        return err_set(err, ERR_INVALID, "name too long for a ZIP archive: %.80s...", name);
    memcpy(header + LOCAL_SIZE, name, name_size); /* NOLINT(bugprone-not-null-terminated-result): its length is noted */
    if (size >= UINT32_MAX) {
        put_u16(header + used, EXTRA_ZIP64);
        put_u16(header + used + 2, 16);
        put_u64(header + used + 4, size);
        put_u64(header + used + 12, size);
        used += 20;
    }
    padding = (ALIGNMENT - (writer->offset + used + 4) % ALIGNMENT) % ALIGNMENT;
    put_u16(header + used, EXTRA_PADDING);
    put_u16(header + used + 2, (uint16_t)padding);
    memset(header + used + 4, 'Z', padding);
    used += 4 + padding;
    put_common(header + 4, crc, size, name_size, used - LOCAL_SIZE - name_size);

    add_to_directory(writer, name, crc, size, writer->offset);
    pieces[0] = (struct iovec){header, used};
    pieces[1] = (struct iovec){(void *)(uintptr_t)data, size};
    writer->offset += used + size;
    writer->count++;
    return file_write_pieces(writer->fd, pieces, 2, err);
}

bool zip_writer_finish(struct zip_writer *writer, struct err *err)
{
    const struct buf *directory = &writer->directory;
    uint64_t end64_at = writer->offset + directory->size;
    unsigned char end64[56] = {'P', 'K', 6, 6}, locator[20] = {'P', 'K', 6, 7}, end[22] = {'P', 'K', 5, 6};
    struct iovec pieces[] = {{directory->data, directory->size}, {end64, 56}, {locator, 20}, {end, 22}};

    if (directory->failed)
        return err_set(err, ERR_MEMORY, "no memory for the directory of %llu entries",
                       (unsigned long long)writer->count);
    put_u64(end64 + 4, sizeof end64 - 12);
    put_u16(end64 + 12, 45);
    put_u16(end64 + 14, 45);
    put_u64(end64 + 24, writer->count);
    put_u64(end64 + 32, writer->count);
    put_u64(end64 + 40, directory->size);
    put_u64(end64 + 48, writer->offset);
    put_u64(locator + 8, end64_at);
    put_u32(locator + 16, 1);
    put_u16(end + 8, writer->count < UINT16_MAX ? (uint16_t)writer->count : UINT16_MAX);
    put_u16(end + 10, writer->count < UINT16_MAX ? (uint16_t)writer->count : UINT16_MAX);
    put_u32(end + 12, clamp_u32(directory->size));
    put_u32(end + 16, clamp_u32(writer->offset));
    return file_write_pieces(writer->fd, pieces, 4, err);
}
