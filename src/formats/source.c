/* source.c - see source.h */
#include "formats/source.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"

enum { HEAD_SIZE = 512 };

struct source source_memory(const void *data, size_t size)
{
    return (struct source){.data = size ? data : "", .fd = -1, .size = size};
}

bool source_open(struct source *ret, const char *path, struct err *err)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot be opened: %s", strerror(errno));
    if (fstat(fd, &status) < 0) {
        err_set(err, ERR_IO, "cannot be examined: %s", strerror(errno));
        close(fd);
        return false;
    }
    if (!S_ISREG(status.st_mode)) {
        close(fd);
        return err_set(err, ERR_INVALID, "is %s, not a file",
                       S_ISDIR(status.st_mode) ? "a folder" : "a device or pipe");
    }
    *ret = (struct source){.fd = fd, .size = (uint64_t)status.st_size};
    return true;
}

void source_close(struct source *source)
{
    if (source->fd >= 0)
        close(source->fd);
    source->fd = -1;
}

bool source_read(const struct source *source, uint64_t offset, size_t size, void *out, struct err *err)
{
    char *to = out;

    if (offset > source->size || size > source->size - offset)
        return err_set(err, ERR_INVALID, "ends early: %zu bytes at %llu are needed, the file has %llu", size,
                       (unsigned long long)offset, (unsigned long long)source->size);
    if (source->data) {
        memcpy(out, source->data + offset, size);
        return true;
    }
    while (size) {
        ssize_t n = pread(source->fd, to, size, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, ERR_IO, "cannot be read: %s", strerror(errno));
        if (n == 0)
            return err_set(err, ERR_INVALID, "was cut short at %llu bytes while being read",
                           (unsigned long long)offset);
        to += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return true;
}

/* Kinds of files that turn up under a checkpoint's name, by their bytes at an offset; the first that fits counts. */
static const struct magic {
    unsigned short offset, size;
    const char *bytes;
    enum file_kind kind;
    const char *what;
} magics[] = {
    {0, 4, "PK\3\4", FILE_ZIP, "a ZIP archive"},
    {0, 4, "PK\5\6", FILE_ZIP, "an empty ZIP archive"},
    {8, 2, "{\"", FILE_SAFETENSORS, "a safetensors file"},
    {8, 2, "{}", FILE_SAFETENSORS, "a safetensors file"},
    {8, 2, "{ ", FILE_SAFETENSORS, "a safetensors file"},
    {0, 14, "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", FILE_OTHER,
     "a torch file of the old form (before PyTorch 1.6); convert it in Python: torch.save(torch.load(f), f)"},
    {0, 2, "\x80\x02", FILE_OTHER, "a bare Python pickle; save the state_dict with torch.save"},
    {0, 2, "\x80\x03", FILE_OTHER, "a bare Python pickle; save the state_dict with torch.save"},
    {0, 2, "\x80\x04", FILE_OTHER, "a bare Python pickle; save the state_dict with torch.save"},
    {0, 2, "\x80\x05", FILE_OTHER, "a bare Python pickle; save the state_dict with torch.save"},
    {0, 23, "version https://git-lfs", FILE_OTHER, "a Git LFS pointer; fetch the file itself with git lfs pull"},
    {0, 2, "\x1f\x8b", FILE_OTHER, "gzip-compressed; unpack it first"},
    {0, 8, "\x89HDF\r\n\x1a\n", FILE_OTHER, "an HDF5 file (Keras)"},
    {0, 4, "GGUF", FILE_OTHER, "a GGUF file"},
    {0, 6, "\x93NUMPY", FILE_OTHER, "a NumPy array file"},
    {0, 6, "\x37\x7a\xbc\xaf\x27\x1c", FILE_OTHER, "a 7z archive; unpack it first"},
    {0, 4, "Rar!", FILE_OTHER, "a RAR archive; unpack it first"},
    {0, 4, "\x89PNG", FILE_OTHER, "a PNG image"},
    {0, 3, "\xff\xd8\xff", FILE_OTHER, "a JPEG image"},
    {0, 4,
     "\x7f"
     "ELF",
     FILE_OTHER, "a program"},
    {257, 5, "ustar", FILE_OTHER, "a tar archive"},
    {0, 2, "\x08\x03", FILE_OTHER, "probably an ONNX model"},
};

/* Is it text, as far as one can see? A character cut by the end of the head is let pass. */
static bool looks_like_text(const char *head, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)head[i] < 0x20 && !strchr("\t\n\r\f", head[i]))
            return false;
    for (size_t cut = 0; cut < 4 && cut < size; cut++)
        if (text_is_utf8(head, size - cut))
            return true;
    return false;
}

bool source_sniff(const struct source *source, enum file_kind *kind, const char **what, struct err *err)
{
    char head[HEAD_SIZE + 1] = "";
    size_t size = source->size < HEAD_SIZE ? (size_t)source->size : HEAD_SIZE, blanks;

    if (!source_read(source, 0, size, head, err))
        return false;
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++) {
        const struct magic *magic = &magics[i];

        if ((size_t)magic->offset + magic->size <= size &&
            memcmp(head + magic->offset, magic->bytes, magic->size) == 0) {
            *kind = magic->kind;
            *what = magic->what;
            return true;
        }
    }
    *kind = FILE_OTHER;
    blanks = strspn(head, " \t\r\n");
    if (size == 0)
        *what = "empty";
    else if (!looks_like_text(head, size))
        *what = "of no known kind";
    else if (strncasecmp(head + blanks, "<!doctype html", 14) == 0 || strncasecmp(head + blanks, "<html", 5) == 0)
        *what = "an HTML page; probably a download that failed";
    else
        *what = "a text file";
    return true;
}
