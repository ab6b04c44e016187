/* cache_format.h - the bytes of the picture cache's files (picture_cache.h), as they are written and checked. Pure:
 * touches no file. Whatever the bytes, what comes out is in bounds; what is damaged is passed over.
 *
 * A segment holds pictures of one size:
 *     header       CACHE_HEADER_BYTES
 *     entries      one of CACHE_ENTRY_BYTES for each place, zeros where there is no picture yet
 *     pictures     each at a page's border
 * An entry is written after its picture, and carries a hash of the picture and one of itself and its place: a writer
 * may be killed, or the power lost, at any moment.
 *
 * The file of names is a list of records, each with a hash of itself: this file (its device, inode, size and times) has
 * that content. Numbers are as the processor has them. */
#ifndef RFUAV_DATA_CACHE_FORMAT_H
#define RFUAV_DATA_CACHE_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "data/key_map.h"

enum { CACHE_HEADER_BYTES = 64, CACHE_ENTRY_BYTES = 32, CACHE_NAME_BYTES = 40, CACHE_PAGE = 4096 };

/* Of a file's bytes; of a file's identity; of a resized picture. */
struct key cache_content_key(const void *data, size_t size);
struct key cache_file_key(const struct stat *stat);
uint64_t cache_picture_hash(const void *picture, size_t size);

/* Places of a segment for pictures of image_size² pixels, where its pictures begin, how far they are apart, and its
 * size. */
size_t cache_segment_capacity(int image_size);
size_t cache_segment_head(int image_size);
size_t cache_picture_stride(int image_size);
size_t cache_segment_bytes(int image_size);

struct cache_entry {
    struct key content;
    uint64_t picture_hash;
};
void cache_write_header(int image_size, uint8_t out[CACHE_HEADER_BYTES]);
void cache_write_entry(int image_size, size_t place, const struct cache_entry *entry, uint8_t out[CACHE_ENTRY_BYTES]);

/* Calls fn for every good entry of a segment's first `size` bytes. *ret_used: places up to the last that was ever
 * written to. False: no segment for this image size. */
bool cache_read_segment(const void *data, size_t size, int image_size,
                        void (*fn)(void *arg, size_t place, const struct cache_entry *entry), void *arg,
                        size_t *ret_used);

void cache_write_name(struct key file, struct key content, uint8_t out[CACHE_NAME_BYTES]);

/* Calls fn for every good record, finding the next one after damage. */
void cache_read_names(const void *data, size_t size, void (*fn)(void *arg, struct key file, struct key content),
                      void *arg);

#endif
