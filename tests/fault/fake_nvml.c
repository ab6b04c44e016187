/* fake_nvml.c - a libnvidia-ml.so.1 with one GPU of RFUAV_FAKE_CAPABILITY (default 9.0), for tests of what happens to a
 * task on a GPU where CUDA does not work. Built by tests/fault/test_cuda.py. */
#include <stdio.h>
#include <stdlib.h>

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetCount_v2(unsigned *count);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device);
int nvmlDeviceGetName(void *device, char *text, unsigned size);
int nvmlDeviceGetUUID(void *device, char *text, unsigned size);
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *total_free_used);
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor);

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
    *count = 1;
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device)
{
    static int gpu;

    (void)index;
    *device = &gpu;
    return 0;
}

int nvmlDeviceGetName(void *device, char *text, unsigned size)
{
    (void)device;
    snprintf(text, size, "Pretended GPU");
    return 0;
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned size)
{
    (void)device;
    snprintf(text, size, "GPU-00000000-0000-0000-0000-000000000001");
    return 0;
}

int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *total_free_used)
{
    (void)device;
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
