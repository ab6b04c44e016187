/* nvjpeg.c - see nvjpeg.h */
#include "engine/cuda/nvjpeg.h"

#include <dlfcn.h>
#include <string.h>

#include "engine/cuda/library.h"

struct nvjpeg nvjpeg;

static const struct {
    const char *name;
    size_t at;
} functions[] = {
#define F(name)                                                                                                        \
    {                                                                                                                  \
        "nvjpeg" #name, offsetof(struct nvjpeg, name)                                                                  \
    }
    F(CreateEx), F(Destroy), F(JpegStateCreate), F(JpegStateDestroy), F(DecodeBatchedInitialize), F(DecodeBatched),
#undef F
};

bool nvjpeg_open(struct err *err)
{
    static const char names[] = "libnvjpeg.so.13 libnvjpeg.so.12";
    static bool open;
    void *handle;

    if (open)
        return true;
    if (!(handle = libs_open_first(names)))
        return err_set(err, ERR_DEVICE, "nvJPEG was not found (%s)", names);
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *function = dlsym(handle, functions[i].name);

        if (!function)
            return err_set(err, ERR_DEVICE, "%s is not in the nvJPEG that was found", functions[i].name);
        memcpy((char *)&nvjpeg + functions[i].at, &function, sizeof function);
    }
    open = true;
    return true;
}
