/* file.c - see file.h */
#include "formats/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/disk.h"

/* Says why writing failed; `fd` tells how far it came. */
static bool write_error(int fd, int error, struct err *err)
{
    struct stat status;
    unsigned long long bytes = fstat(fd, &status) == 0 ? (unsigned long long)status.st_size : 0;

    return err_set(err, error == ENOSPC || error == EDQUOT ? ERR_NO_SPACE : ERR_IO, "%s (%llu bytes written)",
                   errno_text(error), bytes);
}

bool file_write_pieces(int fd, struct iovec *pieces, int count, struct err *err)
{
    while (count) {
        ssize_t n = pieces->iov_len ? writev(fd, pieces, count < IOV_MAX ? count : IOV_MAX) : 0;

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return write_error(fd, errno, err);
        while (count && (size_t)n >= pieces->iov_len) {
            n -= (ssize_t)pieces->iov_len;
            pieces++;
            count--;
        }
        if (count) {
            pieces->iov_base = (char *)pieces->iov_base + n;
            pieces->iov_len -= (size_t)n;
        }
    }
    return true;
}

/* Opens the temporary file, empty and locked. Another process may have renamed it between our open and our lock: then
 * the name is free, or another file, and we begin again. File systems without locks do without. */
static int open_temporary(const char *path)
{
    for (;;) {
        struct stat opened, named;
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644), locked;

        if (fd < 0)
            return -1;
        do
            locked = flock(fd, LOCK_EX);
        while (locked < 0 && errno == EINTR);
        if (locked < 0 || (fstat(fd, &opened) == 0 && stat(path, &named) == 0 && opened.st_ino == named.st_ino &&
                           opened.st_dev == named.st_dev)) {
            if (ftruncate(fd, 0) == 0)
                return fd;
            locked = errno;
            close(fd);
            errno = locked;
            return -1;
        }
        close(fd);
    }
}

/* Makes the new name durable. Some file systems cannot sync a folder; the rename has happened all the same. */
static bool sync_folder(const char *path, struct err *err)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash == path ? strdup("/") : slash ? strndup(path, (size_t)(slash - path)) : strdup(".");
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    bool ok = fd < 0 || fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP;

    if (!ok)
        err_set(err, ERR_IO, "its folder cannot be synced: %s", errno_text(errno));
    free(folder);
    if (fd >= 0)
        close(fd);
    return ok;
}

bool file_replace(const char *path, bool (*write)(int fd, const void *arg, struct err *err), const void *arg,
                  struct err *err)
{
    char temporary[PATH_MAX];
    bool ok;
    int fd;

    if (snprintf(temporary, sizeof temporary, "%s.tmp", path) >= (int)sizeof temporary)
        return err_set(err, ERR_INVALID, "path too long: %.200s...", path);
    fd = open_temporary(temporary);
    if (fd < 0)
        return err_cannot_write(err, path, errno);
    ok = write(fd, arg, err);
    if (ok && fsync(fd) < 0)
        ok = write_error(fd, errno, err);
    if (ok && rename(temporary, path) < 0)
        ok = err_set(err, ERR_IO, "cannot be replaced: %s", errno_text(errno));
    if (!ok)
        unlink(temporary);
    close(fd);
    if (ok)
        ok = sync_folder(path, err);
    return ok || err_while_writing(err, path, 0);
}
