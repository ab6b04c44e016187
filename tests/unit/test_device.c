/* test_device.c - device files, CUDA_VISIBLE_DEVICES, the host's figures against the operating system's own, and NVML's
 * against nvidia-smi's */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "device/device.h"
#include "device/internal.h"

static char path[64];
static struct err err;

static const char *file_with(const char *text)
{
    FILE *file;
    int fd;

    snprintf(path, sizeof path, "/tmp/rfuav-devices-XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    file = fdopen(fd, "w");
    fputs(text, file);
    fclose(file);
    return path;
}

static void device_file(void **state)
{
    const char *text = "{\"devices\":[{\"name\":\"NVIDIA H100\",\"uuid\":\"GPU-1\",\"memory_mb\":81559,\"used_mb\":559,"
                       "\"compute_capability\":\"9.0\"},{\"name\":\"T4\",\"memory_mb\":15000}]}";
    struct device_set *set;
    const struct device_info *first;

    (void)state;
    assert_true(device_set_new(file_with(text), &set, &err));
    unlink(path);
    assert_true(device_set_ready(set));
    assert_int_equal(device_count(set), 2);
    first = device_get(set, 0);
    assert_string_equal(first->id, "cuda:0");
    assert_string_equal(first->name, "NVIDIA H100");
    assert_string_equal(first->uuid, "GPU-1");
    assert_int_equal(first->compute_major, 9);
    assert_true(first->fake);
    assert_int_equal(first->memory_total, (uint64_t)81559 << 20);
    assert_int_equal(first->memory_free, (uint64_t)81000 << 20);
    assert_string_equal(device_get(set, 1)->id, "cuda:1");
    assert_null(device_get(set, 2));
    assert_null(device_set_note(set));
    device_set_occupy(set, 0, (uint64_t)1000 << 20);
    device_set_refresh(set);
    assert_ptr_equal(device_get(set, 0), first);
    assert_int_equal(first->memory_free, (uint64_t)80000 << 20);
    assert_int_equal(first->memory_used, (uint64_t)1559 << 20);
    device_set_occupy(set, 0, UINT64_MAX);
    assert_int_equal(first->memory_free, 0);
    assert_int_equal(first->memory_used, first->memory_total);
    device_set_free(set);
}

static void bad_device_files_are_named(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "line 1"},
        {"{\"devices\":[", "line 1"},
        {"[]", "devices"},
        {"{\"devices\":[1]}", "devices[0]"},
        {"{\"devices\":[{\"name\":\"a\",\"memory_mb\":1},{\"memory_mb\":1}]}", "devices[1]: \"name\""},
        {"{\"devices\":[{\"name\":\"a\",\"memory_mb\":0}]}", "memory_mb"},
        {"{\"devices\":[{\"name\":\"a\",\"memory_mb\":\"1\"}]}", "memory_mb"},
        {"{\"devices\":[{\"name\":\"a\",\"memory_mb\":10,\"used_mb\":11}]}", "used_mb"},
        {"{\"devices\":[{\"name\":\"a\",\"memory_mb\":10,\"compute_capability\":\"nine\"}]}", "compute_capability"},
    };
    struct device_set *set;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_false(device_set_new(file_with(cases[i].text), &set, &err));
        assert_non_null(strstr(err.message, cases[i].says));
        assert_non_null(strstr(err.message, path));
        unlink(path);
    }
    assert_false(device_set_new("/nonexistent/devices.json", &set, &err));
}

static void visible_devices(void **state)
{
    static const struct {
        const char *value, *seen;
    } cases[] = {
        {NULL, "0123"}, {"", ""},           {"2", "2"},          {"3,1", "31"},       {" 1 , 0 ", "10"},
        {"0,9,1", "0"}, {"-1", ""},         {"1,-1,0", "1"},     {"1,1,2", "1"},      {"GPU-aa01", "0"},
        {"GPU-aa", ""}, {"GPU-b,0", "20"},  {"GPU-c0ffee", "3"}, {"GPU-c0ffees", ""}, {"NoDevFiles", ""},
        {"0,,1", "0"},  {"4294967296", ""}, {"1,", "1"},         {"MIG-1", ""},
    };
    struct device_info devices[4] = {
        {.uuid = "GPU-aa01"}, {.uuid = "GPU-aa02"}, {.uuid = "GPU-b"}, {.uuid = "GPU-c0ffee"}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char seen[8] = "";
        size_t indices[4], n = device_visible(cases[i].value, devices, 4, indices);

        for (size_t k = 0; k < n; k++)
            seen[k] = (char)('0' + indices[k]);
        assert_string_equal(seen, cases[i].seen);
    }
}

static void the_host_as_the_system_tells(void **state)
{
    struct device_set *set;
    const struct host_info *host;
    struct sysinfo info;
    volatile double x = 1;

    (void)state;
    assert_true(device_set_open(NULL, &set, &err));
    host = device_host(set);
    sysinfo(&info);
    assert_int_equal(host->cores, sysconf(_SC_NPROCESSORS_ONLN));
    assert_in_range(host->physical_cores, 1, host->cores);
    assert_int_equal(host->memory_total, (uint64_t)info.totalram * info.mem_unit);
    assert_in_range(host->memory_available, 1, host->memory_total);
    assert_true(host->cpu_model[0]);
    assert_true(host->percent >= 0 && host->percent <= 100);
    device_set_refresh(set);
    for (double end = clock_seconds() + 0.3; clock_seconds() < end;)
        x = x * 1.0000001;
    device_set_refresh(set);
    assert_true(host->percent * host->cores >= 60); /* one core was busy all the time */
    double sum = 0;
    for (int i = 0; i < host->cores; i++) {
        assert_true(host->per_cpu_percent[i] >= 0 && host->per_cpu_percent[i] <= 100);
        sum += host->per_cpu_percent[i];
    }
    assert_true(sum >= 60);
    device_set_free(set);
}

/* A machine without a driver: a sentence, no failure.. */
static void no_driver_is_a_sentence(void **state)
{
    struct device_set *set;

    (void)state;
    if (access("/dev/nvidiactl", F_OK) == 0)
        skip();
    assert_true(device_set_new(NULL, &set, &err));
    assert_false(device_set_ready(set));
    device_set_sample(set);
    device_set_publish(set);
    assert_true(device_set_ready(set));
    assert_int_equal(device_count(set), 0);
    assert_non_null(strstr(device_set_note(set), "libnvidia-ml.so.1"));
    device_set_free(set);
}

/* With a driver: what nvidia-smi says. */
static void nvml_as_nvidia_smi_tells(void **state)
{
    struct device_set *set;
    char line[256], name[96], uuid[96];
    double total;
    FILE *smi;
    size_t n = 0;

    (void)state;
    if (access("/dev/nvidiactl", F_OK) != 0)
        skip();
    unsetenv("CUDA_VISIBLE_DEVICES");
    assert_true(device_set_open(NULL, &set, &err));
    smi = popen("nvidia-smi --query-gpu=name,uuid,memory.total --format=csv,noheader,nounits", "r");
    while (smi && fgets(line, sizeof line, smi)) {
        const struct device_info *gpu = device_get(set, n++);

        assert_int_equal(sscanf(line, "%95[^,], %95[^,], %lf", name, uuid, &total), 3);
        assert_non_null(gpu);
        assert_string_equal(gpu->name, name);
        assert_string_equal(gpu->uuid, uuid);
        assert_int_equal((int)(gpu->memory_total >> 20), (int)total);
        assert_true(gpu->compute_major >= 3);
        assert_true((gpu->has & DEVICE_HAS_MEMORY) && gpu->memory_used + gpu->memory_free == gpu->memory_total);
    }
    pclose(smi);
    assert_int_equal(device_count(set), n);
    assert_non_null(device_driver_cuda_version(set));
    device_set_free(set);
}

/* ---- a library that plays the driver's: its source, and what a process that finds it must print ---- */

static const char fake_driver[] =
    "#include <stdlib.h>\n#include <string.h>\n"
    "int nvmlInit_v2(void) { return atoi(getenv(\"FAKE_INIT\")); }\n"
    "int nvmlShutdown(void) { return 0; }\n"
    "const char *nvmlErrorString(int s) { return s == 15 ? \"GPU is lost\" : \"?\"; }\n"
    "int nvmlDeviceGetCount(unsigned *n) { *n = atoi(getenv(\"FAKE_COUNT\")); return 0; }\n" /* the old name alone */
    "int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { *d = (void *)(long)(i + 1); return i == 2 ? 15 : 0; }\n"
    "int nvmlDeviceGetName(void *d, char *s, unsigned n) { strncpy(s, \"Fake\", n); return 0; }\n"
    "int nvmlDeviceGetUUID(void *d, char *s, unsigned n) { strncpy(s, \"GPU-0\", n); s[4] += (long)d - 1; return 0; }\n"
    "int nvmlDeviceGetMemoryInfo(void *d, unsigned long long *m) { m[0] = 100; m[1] = 60; m[2] = 30; return (long)d == "
    "4 ? "
    "15 : 0; }\n";

static int print_devices(void)
{
    struct device_set *set;

    text_set_language("en");
    if (!device_set_open(NULL, &set, &err))
        return 1;
    printf("note=%s", device_set_note(set) ? device_set_note(set) : "");
    for (size_t i = 0; i < device_count(set); i++)
        printf(" %s=%s/%s/%u/%d%s", device_get(set, i)->id, device_get(set, i)->name, device_get(set, i)->uuid,
               device_get(set, i)->has, (int)device_get(set, i)->memory_used, device_get(set, i)->lost ? "/lost" : "");
    device_set_free(set);
    return 0;
}

static void drivers_of_all_sorts(void **state)
{
    static const struct {
        const char *settings, *printed;
    } cases[] = {
        {"FAKE_INIT=0 FAKE_COUNT=2", "note= cuda:0=Fake/GPU-0/1/40 cuda:1=Fake/GPU-1/1/40"},
        {"FAKE_INIT=0 FAKE_COUNT=2 CUDA_VISIBLE_DEVICES=GPU-1,0",
         "note= cuda:0=Fake/GPU-1/1/40 cuda:1=Fake/GPU-0/1/40"},
        {"FAKE_INIT=0 FAKE_COUNT=2 CUDA_VISIBLE_DEVICES=", "note=CUDA_VISIBLE_DEVICES=\"\" hides all 2 GPUs"},
        {"FAKE_INIT=0 FAKE_COUNT=3",
         "note= cuda:0=Fake/GPU-0/1/40 cuda:1=Fake/GPU-1/1/40 cuda:2=GPU that does not answer//0/0/lost"},
        {"FAKE_INIT=0 FAKE_COUNT=4 CUDA_VISIBLE_DEVICES=3", "note= cuda:0=Fake/GPU-3/0/0/lost"},
        {"FAKE_INIT=0 FAKE_COUNT=0", "note=the NVIDIA driver is there, but finds no GPU"},
        {"FAKE_INIT=9 FAKE_COUNT=0", "note=the NVIDIA driver is installed but not loaded (modprobe nvidia)"},
        {"FAKE_INIT=4 FAKE_COUNT=0", "note=no permission to use the NVIDIA driver (/dev/nvidia*)"},
        {"FAKE_INIT=15 FAKE_COUNT=0", "note=the NVIDIA driver does not answer: GPU is lost"},
        {"FAKE_INIT=18 FAKE_COUNT=0", "note=the NVIDIA driver's kernel module and library are of different versions: "
                                      "reboot, or reload the module"},
    };
    char folder[] = "/tmp/rfuav-nvml-XXXXXX", command[1000], self[400], printed[400];
    ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
    FILE *pipe;

    (void)state;
    assert_true(size > 0 && mkdtemp(folder));
    self[size] = 0;
    snprintf(command, sizeof command, "cc -w -shared -fPIC -x c -o %s/libnvidia-ml.so.1 -", folder);
    pipe = popen(command, "w");
    assert_non_null(pipe);
    fputs(fake_driver, pipe);
    assert_int_equal(pclose(pipe), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(command, sizeof command, "env -u CUDA_VISIBLE_DEVICES LD_LIBRARY_PATH=%s %s %s devices", folder,
                 cases[i].settings, self);
        pipe = popen(command, "r");
        assert_non_null(pipe);
        memset(printed, 0, sizeof printed);
        assert_true(fread(printed, 1, sizeof printed - 1, pipe) > 0);
        assert_int_equal(pclose(pipe), 0);
        assert_string_equal(printed, cases[i].printed);
    }
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(device_file),
        cmocka_unit_test(bad_device_files_are_named),
        cmocka_unit_test(visible_devices),
        cmocka_unit_test(the_host_as_the_system_tells),
        cmocka_unit_test(no_driver_is_a_sentence),
        cmocka_unit_test(nvml_as_nvidia_smi_tells),
        cmocka_unit_test(drivers_of_all_sorts),
    };

    if (argc == 2 && strcmp(argv[1], "devices") == 0)
        return print_devices();
    text_set_language("en");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
