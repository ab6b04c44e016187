/* pth.h - PyTorch checkpoint files (torch.save of a state_dict, ZIP form). A checkpoint is data: reading one never
 * executes anything; whatever is not a dictionary of tensors is refused by name. */
#ifndef RFUAV_FORMATS_PTH_H
#define RFUAV_FORMATS_PTH_H

#include "base/err.h"
#include "base/state_dict.h"
#include "formats/source.h"

/* Understands {"state_dict": …} and {"model": …} wrappers and the "module." prefix of DataParallel. Types are kept as
 * stored (named_tensor_to_f32 converts). Errors name the file, the entry and what was found. */
bool pth_read(const char *path, struct state_dict **ret, struct err *err);
bool pth_decode(const void *data, size_t size, struct state_dict **ret, struct err *err);
bool pth_read_source(const struct source *source, struct state_dict **ret, struct err *err); /* names no file */

/* Writes to a temporary name beside `path`, syncs, renames. Loads in PyTorch with weights_only=True. */
bool pth_write(const char *path, const struct state_dict *dict, struct err *err);
/* The same content to a descriptor, under the archive's name `stem`. */
bool pth_encode(int fd, const char *stem, const struct state_dict *dict, struct err *err);

#endif
