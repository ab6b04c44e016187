/* journal.c - see journal.h */
#include "server/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"

static const char *const names[] = {"DEBUG", "INFO", "WARNING", "ERROR"};
static enum journal_level least = JOURNAL_INFO;
static int descriptor = STDERR_FILENO;

bool journal_open(const char *file, const char *level, struct err *err)
{
    char folder[PATH_MAX], *slash;
    int fd;

    for (size_t i = 0; level && i < sizeof names / sizeof *names; i++)
        if (strcmp(level, names[i]) == 0)
            least = (enum journal_level)i;
    if (!file || !*file)
        return true;
    if (snprintf(folder, sizeof folder, "%s", file) >= (int)sizeof folder)
        return err_set(err, ERR_INVALID, "path too long: %s", file);
    if ((slash = strrchr(folder, '/')) && slash != folder) {
        *slash = 0;
        mkdir(folder, 0777); /* what is wrong with it shows when the file is opened */
    }
    if ((fd = open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644)) < 0)
        return err_set(err, ERR_IO, tr("无法打开日志文件 %s: %s", "cannot open the log file %s: %s"), file,
                       strerror(errno));
    descriptor = fd;
    return true;
}

void journal_close(void)
{
    if (descriptor != STDERR_FILENO)
        close(descriptor);
    descriptor = STDERR_FILENO;
}

void journal(enum journal_level level, const char *fmt, ...)
{
    char line[2048], now[CLOCK_ISO_SIZE];
    int start, size;
    va_list args;

    if (level < least)
        return;
    clock_iso(now);
    start = snprintf(line, sizeof line, "%s %s ", now, names[level]);
    va_start(args, fmt);
    size = vsnprintf(line + start, sizeof line - 1 - (size_t)start, fmt, args);
    va_end(args);
    size = size < 0 ? start : start + size > (int)sizeof line - 2 ? (int)sizeof line - 2 : start + size;
    line[size] = '\n';
    if (write(descriptor, line, (size_t)size + 1) < 0)
        return; /* nobody to tell */
}
