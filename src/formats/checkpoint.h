/* checkpoint.h - a state_dict from whatever file it is in, told apart by content (.pth or safetensors). */
#ifndef RFUAV_FORMATS_CHECKPOINT_H
#define RFUAV_FORMATS_CHECKPOINT_H

#include "base/err.h"
#include "base/state_dict.h"
#include "formats/file.h"

/* Reads a .pth or safetensors file, whatever its name ends in. The error names the file and, when it is neither, what
 * it is instead (a Git LFS pointer, an HTML page, a torch file of the old form, ...). */
bool checkpoint_read(const char *path, struct state_dict **ret, struct err *err);

#endif
