/* image_file.h - a picture's file: opened with its identity first, its bytes read only when they are needed. */
#ifndef RFUAV_DATA_IMAGE_FILE_H
#define RFUAV_DATA_IMAGE_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/err.h"

struct image_file {
    int fd;
    struct stat stat;
    uint8_t *data; /* NULL until read */
    size_t size;
};

/* A regular file of at most 1 GiB. The errors do not name the path. After either, image_file_close(). */
bool image_file_open(const char *path, struct image_file *ret, struct err *err);
bool image_file_read(struct image_file *file, struct err *err);
void image_file_close(struct image_file *file);

#endif
