/* checkpoint.c - see checkpoint.h */
#include "formats/checkpoint.h"

#include "formats/pth.h"
#include "formats/safetensors.h"
#include "formats/source.h"

bool checkpoint_read(const char *path, struct state_dict **ret, struct err *err)
{
    struct source source;
    enum file_kind kind;
    const char *what;
    bool ok;

    if (!source_open(&source, path, err))
        return err_prefix(err, "%s", path);
    ok = source_sniff(&source, &kind, &what, err);
    if (ok && kind == FILE_ZIP)
        ok = pth_read_source(&source, ret, err);
    else if (ok && kind == FILE_SAFETENSORS)
        ok = safetensors_read_source(&source, ret, err);
    else if (ok)
        ok = err_set(err, ERR_INVALID, "not a checkpoint (.pth or safetensors), but %s", what);
    source_close(&source);
    return ok || err_prefix(err, "%s", path);
}
