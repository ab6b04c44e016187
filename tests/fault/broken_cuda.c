/* broken_cuda.c - a libcuda.so.1 that breaks when it is told to, for tests of what a task then says. It lies before the
 * driver's own in LD_LIBRARY_PATH, so that CUDA's runtime, cuDNN and cuBLASLt take it for the driver.
 *
 *   RFUAV_REAL_CUDA   path of the driver's libcuda.so.1, which does the work; without it only what fails at once can be
 *                     tried, which needs no GPU
 *   FORWARDED         a file of lines X(name), given when this is compiled: what else the driver exports, for those who
 *                     take functions by name instead of asking cuGetProcAddress. x86-64 alone.
 *   RFUAV_BREAK       a file of one line, read when this library is loaded, so that one process can be broken among
 *                     others: "FUNCTION N STATUS". From its N-th call on, FUNCTION returns the CUresult STATUS, and so
 * do all others of the table below, as in a context that is lost. STATUS "trap": before that call a kernel that traps
 * is launched, and the driver breaks its context itself. No such file: nothing breaks. */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_FOUND = 500, PRETENDED_VERSION = 13000 };

/* name as the runtime asks for it, arguments, their names, the stream (NULL: none) */
#define FUNCTIONS(X)                                                                                                   \
    X(cuInit, (unsigned flags), (flags), NULL)                                                                         \
    X(cuDevicePrimaryCtxRetain, (void **context, int device), (context, device), NULL)                                 \
    X(cuMemAlloc, (unsigned long long *memory, size_t size), (memory, size), NULL)                                     \
    X(cuMemcpyHtoDAsync, (unsigned long long to, const void *from, size_t size, void *stream),                         \
      (to, from, size, stream), stream)                                                                                \
    X(cuLaunchKernel,                                                                                                  \
      (void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,  \
       void *stream, void **arguments, void **extra),                                                                  \
      (function, gx, gy, gz, bx, by, bz, shared, stream, arguments, extra), stream)                                    \
    X(cuGraphLaunch, (void *graph, void *stream), (graph, stream), stream)                                             \
    X(cuStreamSynchronize, (void *stream), (stream), stream)                                                           \
    X(cuCtxSynchronize, (void *context), (context), NULL) /* without the argument before CUDA 13 */

typedef int (*get_proc_address)(const char *, void **, int, unsigned long long, int *);

static void *driver;                    /* the real one, or NULL */
static get_proc_address driver_address; /* its cuGetProcAddress */
static char broken[64];                 /* the function that breaks */
static int calls_left, status;          /* of it until then; what it returns */
static bool trap;

int cuGetProcAddress_v2(const char *name, void **ret, int version, unsigned long long flags, int *found);
int cuGetProcAddress(const char *name, void **ret, int version, unsigned long long flags);
int cuGetExportTable(const void **ret, const void *id);
int cuDriverGetVersion(int *ret);
int cuInit(unsigned flags);

static void *of_driver(const char *name)
{
    void *symbol = NULL;

    if (driver_address)
        driver_address(name, &symbol, PRETENDED_VERSION, 0, NULL);
    return symbol;
}

/* A kernel that traps, on the stream of the call that is to break. */
static void launch_trap(void *stream)
{
    static const char ptx[] = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry broken() { trap; }\n";
    int (*load_data)(void **, const void *) = NULL, (*function_of)(void **, void *, const char *) = NULL, result;
    int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **,
                  void **);
    void *module = NULL, *function = NULL;

    *(void **)&load_data = of_driver("cuModuleLoadData");
    *(void **)&function_of = of_driver("cuModuleGetFunction");
    *(void **)&launch = of_driver("cuLaunchKernel");
    result = load_data(&module, ptx);
    if (result == SUCCESS)
        result = function_of(&function, module, "broken");
    if (result == SUCCESS)
        result = launch(function, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL);
    if (result != SUCCESS)
        fprintf(stderr, "broken_cuda: the trap was not launched: %d\n", result);
}

/* Called before each function of the table; what it must return, SUCCESS: what the driver says. */
static int before(const char *name, void *stream)
{
    static bool done;

    if (!done && strcmp(name, broken) == 0 && --calls_left <= 0) {
        done = true;
        if (trap)
            launch_trap(stream);
    }
    return done ? status : SUCCESS;
}

#define WRAPPER(name, arguments, values, stream_or_null)                                                               \
    static int(*driver_##name) arguments;                                                                              \
    static int broken_##name arguments                                                                                 \
    {                                                                                                                  \
        int result = before(#name, stream_or_null);                                                                    \
                                                                                                                       \
        return result == SUCCESS && driver_##name ? driver_##name values : result;                                     \
    }
FUNCTIONS(WRAPPER)
#undef WRAPPER

static const struct {
    const char *name;
    void *wrapper, **driver;
} wrapped[] = {
#define ROW(name, arguments, values, stream) {#name, (void *)broken_##name, (void **)&driver_##name},
    FUNCTIONS(ROW)
#undef ROW
};

static int nothing(void)
{
    return NOT_FOUND;
}

#ifdef FORWARDED
/* A jump to the driver's function of the same name, whatever its arguments. */
#define X(name)                                                                                                        \
    static void *forward_##name __asm__("forward_" #name) __attribute__((used)) = (void *)nothing;                     \
    __asm__(".pushsection .text\n.globl " #name "\n.type " #name ", @function\n" #name ": jmp *forward_" #name         \
            "(%rip)\n.popsection\n");
#include FORWARDED
#undef X
#define X(name) {#name, &forward_##name},
#else
static void *forward_nothing = (void *)nothing;
#endif

static const struct {
    const char *name;
    void **target;
} forwarded[] = {
#ifdef FORWARDED
#include FORWARDED
#else
    {"", &forward_nothing},
#endif
};

__attribute__((constructor)) static void load(void)
{
    const char *real = getenv("RFUAV_REAL_CUDA"), *rule = getenv("RFUAV_BREAK");
    FILE *file = rule ? fopen(rule, "re") : NULL;
    char text[16] = "";

    if (file) {
        if (fscanf(file, "%63s %d %15s", broken, &calls_left, text) != 3)
            broken[0] = 0;
        fclose(file);
        trap = strcmp(text, "trap") == 0;
        status = trap ? SUCCESS : atoi(text);
    }
    if (real && !(driver = dlopen(real, RTLD_NOW | RTLD_LOCAL)))
        fprintf(stderr, "broken_cuda: %s\n", dlerror());
    if (driver)
        *(void **)&driver_address = dlsym(driver, "cuGetProcAddress_v2");
    for (size_t i = 0; i < sizeof wrapped / sizeof *wrapped; i++)
        *wrapped[i].driver = of_driver(wrapped[i].name);
    for (size_t i = 0; driver && i < sizeof forwarded / sizeof *forwarded; i++) {
        void *symbol = dlsym(driver, forwarded[i].name);

        if (symbol)
            *forwarded[i].target = symbol;
    }
}

int cuInit(unsigned flags)
{
    return broken_cuInit(flags);
}

int cuDriverGetVersion(int *ret)
{
    int (*version)(int *) = NULL;

    *(void **)&version = of_driver("cuDriverGetVersion");
    *ret = PRETENDED_VERSION;
    return version ? version(ret) : SUCCESS;
}

int cuGetExportTable(const void **ret, const void *id)
{
    int (*table)(const void **, const void *) = NULL;

    *(void **)&table = of_driver("cuGetExportTable");
    return table ? table(ret, id) : NOT_FOUND;
}

int cuGetProcAddress_v2(const char *name, void **ret, int version, unsigned long long flags, int *found)
{
    int result = SUCCESS;

    *ret = (void *)nothing;
    if (found)
        *found = 0;
    if (driver_address)
        result = driver_address(name, ret, version, flags, found);
    if (result != SUCCESS || (flags & 2)) /* streams by thread: not what the service uses */
        return result;
    if (strcmp(name, "cuGetProcAddress") == 0)
        *ret = version < 12000 ? (void *)cuGetProcAddress : (void *)cuGetProcAddress_v2;
    else if (!driver && strcmp(name, "cuDriverGetVersion") == 0)
        *ret = (void *)cuDriverGetVersion;
    else if (!driver && strcmp(name, "cuGetExportTable") == 0)
        *ret = (void *)cuGetExportTable;
    for (size_t i = 0; i < sizeof wrapped / sizeof *wrapped; i++)
        if (strcmp(name, wrapped[i].name) == 0) {
            *ret = wrapped[i].wrapper;
        }
    return result;
}

int cuGetProcAddress(const char *name, void **ret, int version, unsigned long long flags) /* until CUDA 12 */
{
    return cuGetProcAddress_v2(name, ret, version, flags, NULL);
}
