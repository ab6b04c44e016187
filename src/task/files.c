/* files.c - see files.h */
#include "task/files.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/disk.h"
#include "base/text.h"
#include "formats/checkpoint.h"

static bool make_one(const char *path, struct err *err)
{
    struct stat st;

    if (mkdir(path, 0777) == 0)
        return true;
    if (errno == EEXIST && stat(path, &st) == 0) {
        if (S_ISDIR(st.st_mode))
            return true;
        errno = ENOTDIR;
    }
    if (errno == ENOSPC || errno == EDQUOT)
        return err_cannot_write(err, path, errno);
    return err_set(err, ERR_IO, tr("无法创建文件夹 %s: %s", "cannot make the folder %s: %s"), path, errno_text(errno));
}

bool folder_make(const char *path, struct err *err)
{
    char part[PATH_MAX];
    size_t size = strlen(path);

    if (size >= sizeof part)
        return err_set(err, ERR_IO, "the path is longer than %d bytes: %s", PATH_MAX - 1, path);
    memcpy(part, path, size + 1);
    for (char *slash = part + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        if (access(part, F_OK) < 0 && !make_one(part, err))
            return false;
        *slash = '/';
    }
    if (!make_one(part, err))
        return false;
    if (access(path, W_OK | X_OK) < 0)
        return err_set(err, ERR_IO, tr("无法写入文件夹 %s: %s", "cannot write into the folder %s: %s"), path,
                       errno_text(errno));
    return true;
}

static bool write_buf(int fd, const void *arg, struct err *err)
{
    const struct buf *content = arg;

    for (size_t done = 0; done < content->size;) {
        ssize_t n = write(fd, content->data + done, content->size - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, errno == ENOSPC || errno == EDQUOT ? ERR_NO_SPACE : ERR_IO, "%s", errno_text(errno));
        done += (size_t)n;
    }
    return true;
}

bool file_write(const char *path, const struct buf *content, struct err *err)
{
    if (content->failed)
        return err_set(err, ERR_MEMORY, "out of memory for the content of %s", path);
    return file_replace(path, write_buf, content, err);
}

void csv_text(struct buf *csv, const char *text)
{
    if (!strpbrk(text, "\",\r\n")) {
        buf_puts(csv, text);
        return;
    }
    buf_puts(csv, "\"");
    for (size_t n; *text; text += n) {
        n = strcspn(text, "\"");
        buf_append(csv, text, n);
        if (text[n] == '"') {
            buf_puts(csv, "\"\"");
            n++;
        }
    }
    buf_puts(csv, "\"");
}
