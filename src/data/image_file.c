/* image_file.c - see image_file.h */
#include "data/image_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_FILE_BYTES = 1 << 30 };

bool image_file_open(const char *path, struct image_file *ret, struct err *err)
{
    /* O_NONBLOCK: a pipe must not hold us up */
    *ret = (struct image_file){.fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)};
    if (ret->fd < 0)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s", strerror(errno));
    if (fstat(ret->fd, &ret->stat) < 0)
        return err_set(err, ERR_IO, "%s", strerror(errno));
    if (!S_ISREG(ret->stat.st_mode))
        return err_set(err, ERR_INVALID, "not a regular file");
    if (ret->stat.st_size > MAX_FILE_BYTES)
        return err_set(err, ERR_TOO_LARGE, "the file has %jd bytes, more than the %d allowed",
                       (intmax_t)ret->stat.st_size, MAX_FILE_BYTES);
    return true;
}

bool image_file_read(struct image_file *file, struct err *err)
{
    size_t size = (size_t)file->stat.st_size;

    file->data = malloc(size ? size : 1);
    if (!file->data)
        return err_set(err, ERR_MEMORY, "no memory for a file of %zu bytes", size);
    while (file->size < size) {
        ssize_t n = read(file->fd, file->data + file->size, size - file->size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, ERR_IO, "%s", strerror(errno));
        if (n == 0) /* it shrank meanwhile */
            break;
        file->size += (size_t)n;
    }
    return true;
}

void image_file_close(struct image_file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    free(file->data);
    *file = (struct image_file){.fd = -1};
}
