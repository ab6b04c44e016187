/* library.c - see library.h */
#include "engine/cuda/library.h"

#include <dlfcn.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

struct libs libs;

enum { CUDNN_NEEDED = 90000, PATH_SIZE = 1024 };

/* Where a library may lie besides the dynamic linker's own places; patterns, since versions are part of the names. */
static const char *const folders[] = {
    "/usr/local/cuda/lib64",
    "/usr/local/cuda-*/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/local/lib/python3*/dist-packages/nvidia/*/lib",
    "/usr/local/lib/python3*/site-packages/nvidia/*/lib",
    "/usr/lib/python3*/dist-packages/nvidia/*/lib",
    "/usr/lib/python3*/site-packages/nvidia/*/lib",
    "/opt/*/.venv/lib/python3*/site-packages/nvidia/*/lib",
    "/opt/*/lib/python3*/site-packages/nvidia/*/lib",
    "/opt/conda/lib",
};

/* Opens folder/name for every folder that the pattern stands for, until one works. */
static void *open_in(const char *pattern, const char *name)
{
    char path[PATH_SIZE];
    void *handle = NULL;
    glob_t found;

    if (snprintf(path, sizeof path, "%s/%s", pattern, name) >= (int)sizeof path)
        return NULL;
    if (glob(path, GLOB_NOSORT, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc && !handle; i++)
            handle = dlopen(found.gl_pathv[i], RTLD_NOW | RTLD_GLOBAL);
        globfree(&found);
    }
    return handle;
}

/* Below a folder of the environment: "$VIRTUAL_ENV/lib/python3…". */
static void *open_below(const char *variable, const char *rest, const char *name)
{
    const char *root = getenv(variable);
    char pattern[PATH_SIZE];

    if (!root || !root[0] || snprintf(pattern, sizeof pattern, "%s/%s", root, rest) >= (int)sizeof pattern)
        return NULL;
    return open_in(pattern, name);
}

/* Each folder of a list with colons. */
static void *open_in_list(const char *list, const char *name)
{
    static const char packages[] = "/*/lib";
    char folder[PATH_SIZE];
    void *handle = NULL;

    while (list && *list && !handle) {
        size_t length = strcspn(list, ":");

        if (length && length < sizeof folder) {
            memcpy(folder, list, length);
            folder[length] = '\0';
            handle = open_in(folder, name);
            if (!handle && strlen(folder) + sizeof packages <= sizeof folder) { /* Python's folder of nvidia packages */
                memcpy(folder + length, packages, sizeof packages);
                handle = open_in(folder, name);
            }
        }
        list += length + (list[length] == ':');
    }
    return handle;
}

static void *open_beside_object(const char *name)
{
    char folder[PATH_SIZE], *slash;
    Dl_info info;

    if (!dladdr(&libs, &info) || !info.dli_fname ||
        snprintf(folder, sizeof folder, "%s", info.dli_fname) >= (int)sizeof folder)
        return NULL;
    slash = strrchr(folder, '/');
    if (!slash)
        return NULL;
    *slash = '\0';
    return open_in(folder, name);
}

static void *open_library(const char *name)
{
    void *handle = open_in_list(getenv("RFUAV_CUDA_LIBRARIES"), name);

    if (!handle)
        handle = open_beside_object(name);
    if (!handle)
        handle = dlopen(name, RTLD_NOW | RTLD_GLOBAL);
    if (!handle)
        handle = open_below("CUDA_HOME", "lib64", name);
    if (!handle)
        handle = open_below("VIRTUAL_ENV", "lib/python3*/site-packages/nvidia/*/lib", name);
    if (!handle)
        handle = open_below("HOME", ".local/lib/python3*/site-packages/nvidia/*/lib", name);
    for (size_t i = 0; i < sizeof folders / sizeof *folders && !handle; i++)
        handle = open_in(folders[i], name);
    return handle;
}

void *libs_open_first(const char *names)
{
    char name[64];
    void *handle = NULL;

    while (*names && !handle) {
        size_t length = strcspn(names, " ");

        snprintf(name, sizeof name, "%.*s", (int)length, names);
        handle = open_library(name);
        names += length + (names[length] == ' ');
    }
    return handle;
}

/* The message names the folders that there are of those that were searched. */
static bool missing(const char *library, const char *names, const char *package, struct err *err)
{
    const char *list = getenv("RFUAV_CUDA_LIBRARIES");
    char searched[600] = "";
    size_t length = 0;
    glob_t found;

    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        if (glob(folders[i], GLOB_ONLYDIR, NULL, &found) != 0)
            continue;
        for (size_t k = 0; k < found.gl_pathc && length < sizeof searched; k++)
            length += (size_t)snprintf(searched + length, sizeof searched - length, ", %s", found.gl_pathv[k]);
        globfree(&found);
    }
    return err_set(err, ERR_DEVICE,
                   tr("没有找到 %s (%s)；请安装 (例如 pip install %s)，或用 RFUAV_CUDA_LIBRARIES 指明其文件夹，或使用 "
                      "cpu。已查找: "
                      "系统库路径%s%s%s",
                      "%s was not found (%s); install it (for example pip install %s), name its folder in "
                      "RFUAV_CUDA_LIBRARIES, or use "
                      "cpu. Searched: the system's library path%s%s%s"),
                   library, names, package, list && *list ? ", " : "", list ? list : "", searched);
}

static bool find_function(void *handle, const char *name, void *ret, struct err *err)
{
    void *function = dlsym(handle, name);

    if (!function)
        return err_set(
            err, ERR_DEVICE,
            tr("找到的库中没有 %s: 版本太旧；请升级 cuDNN 9 与 CUDA 12 或 13，或使用 cpu",
               "%s is not in the library that was found: it is too old; install cuDNN 9 and CUDA 12 or 13, or "
               "use cpu"),
            name);
    memcpy(ret, &function, sizeof function);
    return true;
}

static bool open_cudnn(struct err *err)
{
    static const char names[] = "libcudnn.so.9";
    void *handle = libs_open_first(names);

    if (!handle)
        return missing("cuDNN 9", names, "nvidia-cudnn-cu13", err);
#define X(name)                                                                                                        \
    if (!find_function(handle, #name, &libs.name, err))                                                                \
        return false;
    CUDNN_FUNCTIONS(X)
#undef X
    if (libs.cudnnGetVersion() < CUDNN_NEEDED)
        return err_set(
            err, ERR_DEVICE,
            tr("cuDNN %zu.%zu 太旧，需要 9.0 或更新；请升级 (pip install nvidia-cudnn-cu13)，或使用 cpu",
               "cuDNN %zu.%zu is too old, 9.0 or newer is needed; update it (pip install nvidia-cudnn-cu13), or "
               "use cpu"),
            libs.cudnnGetVersion() / 1000, libs.cudnnGetVersion() % 1000 / 100);
    return true;
}

static bool open_cublaslt(struct err *err)
{
    static const char names[] = "libcublasLt.so.13 libcublasLt.so.12";
    void *handle = libs_open_first(names);

    if (!handle)
        return missing("cuBLASLt (CUDA 12/13)", names, "nvidia-cublas", err);
#define X(name)                                                                                                        \
    if (!find_function(handle, #name, &libs.name, err))                                                                \
        return false;
    CUBLASLT_FUNCTIONS(X)
#undef X
    return true;
}

bool libs_open(struct err *err)
{
    static bool open;

    if (open)
        return true;
    libs_open_first("libnvrtc.so.13 libnvrtc.so.12"); /* cuDNN asks for it by name when it compiles fused kernels */
    open = open_cublaslt(err) && open_cudnn(err);
    return open;
}

/* The file that a function is in. */
static const char *file_of(const void *function)
{
    Dl_info info;

    return dladdr(function, &info) && info.dli_fname ? info.dli_fname : "?";
}

const char *libs_version(void)
{
    static char text[600];
    size_t cudnn = libs.cudnnGetVersion(), blas = libs.cublasLtGetVersion();

    snprintf(text, sizeof text, "cuDNN %zu.%zu.%zu (%.240s), cuBLASLt %zu.%zu.%zu (%.240s)", cudnn / 10000,
             cudnn / 100 % 100, cudnn % 100, file_of((const void *)libs.cudnnGetVersion), blas / 10000,
             blas / 100 % 100, blas % 100, file_of((const void *)libs.cublasLtGetVersion));
    return text;
}
