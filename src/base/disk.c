/* disk.c - see disk.h */
#include "base/disk.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/text.h"

enum { SIZE_TEXT = 24 };

const char *errno_text(int error)
{
    switch (error) {
    case EACCES:
    case EPERM:
        return tr("没有权限", "permission denied");
    case EROFS:
        return tr("文件系统是只读的", "the file system is read-only");
    case ENOENT:
        return tr("文件或文件夹不存在", "no such file or folder");
    case ENOTDIR:
        return tr("路径中有一部分不是文件夹", "a part of the path is not a folder");
    case EISDIR:
        return tr("是一个文件夹", "is a folder");
    case ENAMETOOLONG:
        return tr("路径太长", "the path is too long");
    case ENOSPC:
        return tr("磁盘已满", "disk full");
    case EDQUOT:
        return tr("磁盘配额已用完", "the disk quota is used up");
    case EFBIG:
        return tr("文件超过文件系统或进程允许的大小", "the file is larger than the file system or a limit allows");
    case EIO:
        return tr("磁盘读写错误", "the disk reports an error");
    case EMFILE:
    case ENFILE:
        return tr("打开的文件太多", "too many open files");
    case ENOMEM:
        return tr("内存不足", "no memory");
    default:
        return strerror(error);
    }
}

static const char *size_text(unsigned long long bytes, char text[SIZE_TEXT])
{
    double mb = (double)bytes / (1 << 20);

    snprintf(text, SIZE_TEXT, mb >= 10240 ? "%.1f GB" : "%.1f MB", mb >= 10240 ? mb / 1024 : mb);
    return text;
}

/* The folder that a file is in, or would be. */
static void folder_of(const char *path, char folder[PATH_MAX])
{
    const char *slash = strrchr(path, '/');

    if (!slash)
        snprintf(folder, PATH_MAX, ".");
    else
        snprintf(folder, PATH_MAX, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

static bool disk_full(struct err *err, const char *path)
{
    char folder[PATH_MAX], left[SIZE_TEXT], all[SIZE_TEXT];
    struct statvfs disk;

    folder_of(path, folder);
    if (statvfs(folder, &disk) < 0)
        return err_set(err, ERR_NO_SPACE,
                       tr("磁盘空间已满，无法写入 %s (文件夹 %s)", "disk full: cannot write %s (folder %s)"), path,
                       folder);
    return err_set(
        err, ERR_NO_SPACE,
        tr("磁盘空间已满，无法写入 %s (文件夹 %s 所在磁盘剩余 %s，共 %s)；请腾出空间后重试",
           "disk full: cannot write %s (the disk of folder %s has %s left of %s); free some space and try again"),
        path, folder, size_text((unsigned long long)disk.f_bavail * disk.f_frsize, left),
        size_text((unsigned long long)disk.f_blocks * disk.f_frsize, all));
}

bool err_cannot_write(struct err *err, const char *path, int error)
{
    if (error == ENOSPC || error == EDQUOT)
        return disk_full(err, path);
    return err_set(err, ERR_IO, tr("无法写入 %s: %s", "cannot write %s: %s"), path, errno_text(error));
}

bool err_while_writing(struct err *err, const char *path, int error)
{
    if (error == ENOSPC || error == EDQUOT || (err && err->kind == ERR_NO_SPACE))
        return disk_full(err, path);
    return err_prefix(err, tr("无法写入 %s", "cannot write %s"), path);
}
