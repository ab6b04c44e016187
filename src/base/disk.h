/* disk.h - why a file cannot be written, as a sentence for people. */
#ifndef RFUAV_BASE_DISK_H
#define RFUAV_BASE_DISK_H

#include "base/err.h"

/* What an errno means, in the language in use; the system's own words for a rare one. */
const char *errno_text(int error);

/* ERR_IO, "cannot write PATH: why"; for a full disk or quota ERR_NO_SPACE, which also names the folder, how much room
 * its disk has and how much is left. Returns false. */
bool err_cannot_write(struct err *err, const char *path, int error);

/* After a failure where the path was not known: a full disk (ERR_NO_SPACE, or an errno that a library has left; 0:
 * none) becomes the sentence above, another error gets "cannot write PATH: " put before it. Returns false. */
bool err_while_writing(struct err *err, const char *path, int error);

#endif
