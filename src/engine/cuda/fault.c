/* fault.c - see fault.h */
#include "engine/cuda/fault.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "engine/cuda/library.h"
#include "engine/cuda/sizes.h"

/* The text of a row in the language in use. */
struct words {
    const char *zh, *en;
};

#define BROKEN                                                                                                         \
    {                                                                                                                  \
        "GPU 出错或已掉线；请用 nvidia-smi 和 dmesg (Xid) 检查，换用其他设备或 cpu 重试",                              \
            "the GPU has failed or is lost; look at nvidia-smi and dmesg (Xid), and try another device or cpu"         \
    }
#define BUG                                                                                                            \
    {                                                                                                                  \
        "GPU 上的计算出错，这是程序错误；可换用 cpu 重试",                                                             \
            "a computation on the GPU failed, a bug in the program; try cpu"                                           \
    }

/* CUDA's own words follow in brackets. */
static const struct {
    cudaError_t status;
    struct words words;
} known[] = {
    {cudaErrorNoDevice,
     {"CUDA 没有找到 GPU；请检查 nvidia-smi 与 CUDA_VISIBLE_DEVICES，或使用 cpu",
      "CUDA finds no GPU; look at nvidia-smi and CUDA_VISIBLE_DEVICES, or use cpu"}},
    {cudaErrorSystemDriverMismatch,
     {"NVIDIA 驱动的内核模块与 libcuda.so.1 版本不一致；请重启机器，或使用 cpu",
      "the NVIDIA driver's kernel module and libcuda.so.1 are of different versions; restart the machine, or use cpu"}},
    {cudaErrorCompatNotSupportedOnDevice,
     {"此 GPU 不支持 CUDA 兼容包；请升级 NVIDIA 驱动，或使用 cpu",
      "this GPU does not take CUDA's compatibility package; update the NVIDIA driver, or use cpu"}},
    {cudaErrorSystemNotReady,
     {"GPU 系统尚未就绪 (nvidia-fabricmanager 是否在运行？)；请稍后重试，或使用 cpu",
      "the GPUs are not ready (does nvidia-fabricmanager run?); try again later, or use cpu"}},
    {cudaErrorDevicesUnavailable,
     {"GPU 被其他程序独占或禁止计算 (nvidia-smi -q -d COMPUTE)；请换用其他设备或 cpu",
      "the GPU is reserved by another program or closed to computing (nvidia-smi -q -d COMPUTE); use another device or "
      "cpu"}},
    {cudaErrorNoKernelImageForDevice,
     {"本程序不含此 GPU 的代码；请用 CUDA_ARCH 为它重新编译，或使用 cpu",
      "this build has no code for this GPU; build it again with CUDA_ARCH set, or use cpu"}},
    {cudaErrorUnsupportedPtxVersion,
     {"NVIDIA 驱动太旧，不能编译此 GPU 的代码；请升级驱动，或使用 cpu",
      "the NVIDIA driver is too old to compile the code for this GPU; update it, or use cpu"}},
    {cudaErrorInitializationError, BROKEN},
    {cudaErrorDeviceUninitialized, BROKEN},
    {cudaErrorECCUncorrectable, BROKEN},
    {cudaErrorNvlinkUncorrectable, BROKEN},
    {cudaErrorHardwareStackError, BROKEN},
    {cudaErrorLaunchTimeout, BROKEN},
    {cudaErrorContextIsDestroyed, BROKEN},
    {cudaErrorOperatingSystem, BROKEN},
    {cudaErrorUnknown, BROKEN},
    {cudaErrorIllegalAddress, BUG},
    {cudaErrorMisalignedAddress, BUG},
    {cudaErrorIllegalInstruction, BUG},
    {cudaErrorLaunchFailure, BUG},
    {cudaErrorAssert, BUG},
};

static bool no_memory(const char *what, struct err *err)
{
    size_t left = 0, total = 0;

    cudaMemGetInfo(&left, &total);
    return err_set(
        err, ERR_MEMORY,
        tr("GPU 显存不足: %s；共 %zu MiB，空闲 %zu MiB", "the GPU has no memory for %s: of its %zu MiB %zu are free"),
        what, total >> 20, left >> 20);
}

/* The runtime inside this object asks for a newer driver, or there is none at all. */
static bool driver_too_old(struct err *err)
{
    int has = 0, needs = CUDART_VERSION;
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY);

    if (!driver)
        return err_set(
            err, ERR_DEVICE, "%s",
            tr("没有找到 NVIDIA 驱动 (libcuda.so.1)；请安装驱动，容器需用 --gpus all 启动，或使用 cpu",
               "no NVIDIA driver was found (libcuda.so.1); install it, start a container with --gpus all, or "
               "use cpu"));
    dlclose(driver);
    cudaDriverGetVersion(&has);
    return err_set(
        err, ERR_DEVICE,
        tr("NVIDIA 驱动太旧: 它支持到 CUDA %d.%d，本程序需要 %d.%d；请升级驱动，或使用 cpu",
           "the NVIDIA driver is too old: it supports CUDA %d.%d, this build needs %d.%d; update the driver, or "
           "use cpu"),
        has / 1000, has % 1000 / 10, needs / 1000, needs % 1000 / 10);
}

/* What people can do about it; NULL: nothing that is known. */
static const struct words *advice(cudaError_t status)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].status == status)
            return &known[i].words;
    return NULL;
}

static atomic_bool lost;

bool cuda_is_lost(void)
{
    return atomic_load(&lost);
}

bool cuda_fail(cudaError_t status, const char *what, struct err *err)
{
    const struct words *words = advice(status);

    cudaGetLastError(); /* clears it, where that is possible */
    if (status == cudaErrorMemoryAllocation)
        return no_memory(what, err);
    if (status == cudaErrorInsufficientDriver)
        return driver_too_old(err);
    if (!words)
        return err_set(err, ERR_DEVICE, "%s: %s (%s)", what, cudaGetErrorString(status), cudaGetErrorName(status));
    atomic_store(&lost, true);
    return err_set(err, ERR_DEVICE, "%s (%s: %s, %s)", tr(words->zh, words->en), what, cudaGetErrorString(status),
                   cudaGetErrorName(status));
}

bool cuda_broken(const char *what, struct err *err)
{
    cudaError_t status = cudaDeviceSynchronize();

    return advice(status) && !cuda_fail(status, what, err);
}

bool cudnn_fail(cudnnStatus_t status, const char *what, struct err *err)
{
    char words[256] = "";

    if (cuda_broken(what, err))
        return false;
    libs.cudnnGetLastErrorString(words, sizeof words);
    return err_set(err, status == CUDNN_STATUS_ALLOC_FAILED ? ERR_MEMORY : ERR_DEVICE, "cuDNN %s: %s%s%s", what,
                   libs.cudnnGetErrorString(status), words[0] ? ": " : "", words);
}

bool capability_fail(const struct cudaDeviceProp *gpu, struct err *err)
{
    return err_set(err, ERR_DEVICE,
                   tr("%s 的计算能力为 %d.%d，至少需要 %d.0；请使用更新的 GPU 或 cpu",
                      "%s has compute capability %d.%d, at least %d.0 is needed; use a newer GPU or cpu"),
                   gpu->name, gpu->major, gpu->minor, OLDEST_CAPABILITY);
}
