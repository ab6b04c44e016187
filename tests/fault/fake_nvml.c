/* fake_nvml.c - a libnvidia-ml.so.1 with RFUAV_FAKE_GPUS GPUs (default 1) of RFUAV_FAKE_CAPABILITY (default 9.0), for
 * tests of what happens to a task on a GPU where CUDA does not work. A GPU whose index is in the file RFUAV_FAKE_LOST
 * is lost for as long as it is there; with RFUAV_FAKE_NO_HANDLE even its handle is not given. Built by
 * tests/fault/test_cuda.py. */
#include <stdio.h>
#include <stdlib.h>

enum { GPUS_MAX = 8, GPU_IS_LOST = 15 };

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetCount_v2(unsigned *count);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device);
int nvmlDeviceGetName(void *device, char *text, unsigned size);
int nvmlDeviceGetUUID(void *device, char *text, unsigned size);
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *total_free_used);
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor);

static int is_lost(const int *gpu)
{
    const char *path = getenv("RFUAV_FAKE_LOST");
    FILE *file = path ? fopen(path, "re") : NULL;
    int lost = -1;

    if (file && fscanf(file, "%1d", &lost) != 1)
        lost = -1;
    if (file)
        fclose(file);
    return lost == *gpu;
}

int nvmlInit_v2(void)
{
    return 0;
}

int nvmlShutdown(void)
{
    return 0;
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    const char *text = getenv("RFUAV_FAKE_GPUS");

    *count = 1;
    if (text)
        sscanf(text, "%1u", count);
    return *count > GPUS_MAX;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device)
{
    static int gpus[GPUS_MAX];

    gpus[index] = (int)index;
    *device = &gpus[index];
    return getenv("RFUAV_FAKE_NO_HANDLE") && is_lost(*device) ? GPU_IS_LOST : 0;
}

int nvmlDeviceGetName(void *device, char *text, unsigned size)
{
    (void)device;
    snprintf(text, size, "Pretended GPU");
    return 0;
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned size)
{
    snprintf(text, size, "GPU-00000000-0000-0000-0000-00000000000%d", *(int *)device + 1);
    return 0;
}

int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *total_free_used)
{
    if (is_lost(device))
        return GPU_IS_LOST;
    total_free_used[0] = 24ull << 30;
    total_free_used[1] = 23ull << 30;
    total_free_used[2] = 1ull << 30;
    return 0;
}

int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor)
{
    const char *text = getenv("RFUAV_FAKE_CAPABILITY");

    (void)device;
    *major = 9;
    *minor = 0;
    if (text)
        sscanf(text, "%2d.%2d", major, minor);
    return 0;
}
