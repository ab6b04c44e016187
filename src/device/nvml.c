/* nvml.c - the NVIDIA Management Library, opened at run time, so that the program needs no driver to start. The
 * prototypes are ours, after NVIDIA's "NVML API Reference Guide"; of functions with versions the newest is taken that
 * the library has. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "device/internal.h"

enum { NVML_GPUS_MAX = 256 };
enum nvml_return {
    NVML_SUCCESS = 0,
    NVML_NO_PERMISSION = 4,
    NVML_DRIVER_NOT_LOADED = 9,
    NVML_GPU_IS_LOST = 15,
    NVML_LIB_RM_VERSION_MISMATCH = 18
};

typedef struct nvml_device *nvml_device;
struct nvml_memory {
    unsigned long long total, free, used;
};
struct nvml_memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};
struct nvml_utilization {
    unsigned gpu, memory;
};

/* member, names from new to old, result (always int) and arguments, needed at all? */
#define NVML_FUNCTIONS(X)                                                                                              \
    X(init, "nvmlInit_v2", "nvmlInit", (void), true)                                                                   \
    X(shutdown, "nvmlShutdown", NULL, (void), true)                                                                    \
    X(device_count, "nvmlDeviceGetCount_v2", "nvmlDeviceGetCount", (unsigned *), true)                                 \
    X(device_handle, "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByIndex", (unsigned, nvml_device *), true)   \
    X(device_name, "nvmlDeviceGetName", NULL, (nvml_device, char *, unsigned), true)                                   \
    X(device_uuid, "nvmlDeviceGetUUID", NULL, (nvml_device, char *, unsigned), true)                                   \
    X(device_memory, "nvmlDeviceGetMemoryInfo", NULL, (nvml_device, struct nvml_memory *), true)                       \
    X(device_memory_v2, "nvmlDeviceGetMemoryInfo_v2", NULL, (nvml_device, struct nvml_memory_v2 *), false)             \
    X(device_capability, "nvmlDeviceGetCudaComputeCapability", NULL, (nvml_device, int *, int *), false)               \
    X(device_utilization, "nvmlDeviceGetUtilizationRates", NULL, (nvml_device, struct nvml_utilization *), false)      \
    X(device_temperature, "nvmlDeviceGetTemperature", NULL, (nvml_device, int, unsigned *), false)                     \
    X(device_power, "nvmlDeviceGetPowerUsage", NULL, (nvml_device, unsigned *), false)                                 \
    X(cuda_version, "nvmlSystemGetCudaDriverVersion_v2", "nvmlSystemGetCudaDriverVersion", (int *), false)

struct nvml {
    void *library;
#define X(member, name, older, arguments, needed) int(*member) arguments; /* NOLINT(bugprone-macro-parentheses) */
    NVML_FUNCTIONS(X)
#undef X
    bool initialised;
    size_t count;
    nvml_device devices[NVML_GPUS_MAX];
    char cuda[16];
};

static void *find_function(const struct nvml *nvml, const char *name, const char *older)
{
    void *symbol = dlsym(nvml->library, name);

    return symbol || !older ? symbol : dlsym(nvml->library, older);
}

static bool load_functions(struct nvml *nvml, struct err *err)
{
    const char *lacks = NULL;

/* NOLINTBEGIN(bugprone-macro-parentheses): a type's arguments */
#define X(member, name, older, arguments, needed)                                                                      \
    nvml->member = (int(*) arguments)find_function(nvml, name, older);                                                 \
    if ((needed) && !nvml->member)                                                                                     \
        lacks = (name);
    NVML_FUNCTIONS(X)
#undef X
    /* NOLINTEND(bugprone-macro-parentheses) */
    if (!lacks)
        return true;
    err_set(err, ERR_DEVICE,
            tr("NVIDIA 驱动的 libnvidia-ml.so.1 缺少函数 %s",
               "libnvidia-ml.so.1 of the NVIDIA driver lacks the function %s"),
            lacks);
    return false;
}

/* The library's own words for a status. */
static const char *status_text(const struct nvml *nvml, int status)
{
    const char *(*error_string)(int);
    void *symbol = dlsym(nvml->library, "nvmlErrorString");
    const char *text;

    memcpy(&error_string, &symbol, sizeof symbol);
    text = symbol ? error_string(status) : NULL;
    return text && text_is_utf8(text, strlen(text)) ? text : "unknown error";
}

static bool init_failed(const struct nvml *nvml, int status, struct err *err)
{
    if (status == NVML_LIB_RM_VERSION_MISMATCH)
        return err_set(err, ERR_DEVICE,
                       tr("NVIDIA 驱动的内核模块与库版本不一致，请重启机器或重新加载模块",
                          "the NVIDIA driver's kernel module and library are of different versions: reboot, or reload "
                          "the module"));
    if (status == NVML_DRIVER_NOT_LOADED)
        return err_set(err, ERR_DEVICE,
                       tr("NVIDIA 驱动已安装但未加载 (modprobe nvidia)",
                          "the NVIDIA driver is installed but not loaded (modprobe nvidia)"));
    if (status == NVML_NO_PERMISSION)
        return err_set(
            err, ERR_DEVICE,
            tr("没有权限访问 NVIDIA 驱动 (/dev/nvidia*)", "no permission to use the NVIDIA driver (/dev/nvidia*)"));
    return err_set(err, ERR_DEVICE, tr("NVIDIA 驱动没有响应: %s", "the NVIDIA driver does not answer: %s"),
                   status_text(nvml, status));
}

static bool list_devices(struct nvml *nvml, struct err *err)
{
    unsigned count = 0;
    int status = nvml->device_count(&count), version = 0;

    if (status != NVML_SUCCESS)
        return init_failed(nvml, status, err);
    if (count == 0)
        return err_set(err, ERR_DEVICE, tr("NVIDIA 驱动没有找到 GPU", "the NVIDIA driver is there, but finds no GPU"));
    /* one that has fallen off the bus keeps its number: it is shown with what is known of it */
    for (unsigned i = 0; i < count && i < NVML_GPUS_MAX; i++) {
        if (nvml->device_handle(i, &nvml->devices[i]) != NVML_SUCCESS)
            nvml->devices[i] = NULL;
        nvml->count++;
    }
    if (nvml->cuda_version && nvml->cuda_version(&version) == NVML_SUCCESS && version > 0)
        snprintf(nvml->cuda, sizeof nvml->cuda, "%d.%d", version / 1000, version % 1000 / 10);
    return true;
}

bool nvml_open(struct nvml **ret, struct err *err)
{
    struct nvml *nvml = calloc(1, sizeof *nvml);
    int status;

    if (!nvml)
        return err_set(err, ERR_MEMORY, "no memory for the list of GPUs");
    if (!(nvml->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL))) {
        err_set(err, ERR_DEVICE,
                tr("没有找到 NVIDIA 驱动 (libnvidia-ml.so.1)",
                   "no NVIDIA driver was found on this machine (libnvidia-ml.so.1)"));
        goto fail;
    }
    if (!load_functions(nvml, err))
        goto fail;
    if ((status = nvml->init()) != NVML_SUCCESS) {
        init_failed(nvml, status, err);
        goto fail;
    }
    nvml->initialised = true;
    if (!list_devices(nvml, err))
        goto fail;
    *ret = nvml;
    return true;
fail:
    nvml_close(nvml);
    return false;
}

size_t nvml_count(const struct nvml *nvml)
{
    return nvml->count;
}

const char *nvml_cuda_version(const struct nvml *nvml)
{
    return nvml->cuda;
}

/* Texts of the driver are foreign bytes. */
static void clean_text(char *text, size_t size, const char *otherwise)
{
    text[size - 1] = 0;
    if (!text[0] || !text_is_utf8(text, strlen(text)))
        snprintf(text, size, "%s", otherwise);
}

void nvml_describe(struct nvml *nvml, size_t i, struct device_info *ret)
{
    nvml_device device = nvml->devices[i];

    memset(ret->name, 0, sizeof ret->name);
    memset(ret->uuid, 0, sizeof ret->uuid);
    if (device && nvml->device_name(device, ret->name, sizeof ret->name) != NVML_SUCCESS)
        ret->name[0] = 0;
    if (device && nvml->device_uuid(device, ret->uuid, sizeof ret->uuid) != NVML_SUCCESS)
        ret->uuid[0] = 0;
    clean_text(ret->name, sizeof ret->name, tr("没有响应的 GPU", "GPU that does not answer"));
    clean_text(ret->uuid, sizeof ret->uuid, "");
    if (!device || !nvml->device_capability ||
        nvml->device_capability(device, &ret->compute_major, &ret->compute_minor) != NVML_SUCCESS)
        ret->compute_major = ret->compute_minor = 0;
}

void nvml_measure(struct nvml *nvml, size_t i, struct device_info *ret)
{
    nvml_device device = nvml->devices[i];
    struct nvml_utilization utilization;
    struct nvml_memory_v2 more = {.version = (unsigned)sizeof more | 2u << 24};
    struct nvml_memory memory;
    int status = device ? nvml->device_memory(device, &memory) : NVML_GPU_IS_LOST;
    unsigned value;

    ret->has = 0;
    ret->lost = status == NVML_GPU_IS_LOST;
    if (ret->lost)
        return;
    if (status == NVML_SUCCESS) {
        ret->has |= DEVICE_HAS_MEMORY;
        ret->memory_total = memory.total;
        ret->memory_free = memory.free;
        ret->memory_used = memory.total - memory.free; /* with what the driver keeps for itself */
    }
    if (nvml->device_memory_v2 && nvml->device_memory_v2(device, &more) == NVML_SUCCESS)
        ret->memory_reserved = more.reserved;
    if (nvml->device_utilization && nvml->device_utilization(device, &utilization) == NVML_SUCCESS) {
        ret->has |= DEVICE_HAS_UTILIZATION;
        ret->utilization = utilization.gpu;
    }
    if (nvml->device_temperature && nvml->device_temperature(device, 0, &value) == NVML_SUCCESS) {
        ret->has |= DEVICE_HAS_TEMPERATURE;
        ret->temperature = value;
    }
    if (nvml->device_power && nvml->device_power(device, &value) == NVML_SUCCESS) {
        ret->has |= DEVICE_HAS_POWER;
        ret->power = value / 1000;
    }
}

struct nvml *nvml_close(struct nvml *nvml)
{
    if (!nvml)
        return NULL;
    if (nvml->initialised)
        nvml->shutdown();
    if (nvml->library)
        dlclose(nvml->library);
    free(nvml);
    return NULL;
}
