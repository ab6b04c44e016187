/* devices.c - `rfuav devices` and `rfuav config`: what the machine has, who uses it, and how many may at once. */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "cli/options.h"
#include "cli/service.h"
#include "cli/table.h"
#include "commands.h"
#include "engine/net.h"

/* Tasks and limit of one kind on a device, "1/3". A GPU without an entry of its own uses the entry "cuda". */
static void slots_cell(struct table *table, const json_t *resources, const char *device, const char *kind)
{
    const json_t *limits = json_object_get(resources, "limits");
    const json_t *used = json_object_get(json_object_get(resources, "device_usage"), device);
    const json_t *limit = json_object_get(limits, device);

    if (!limit)
        limit = json_object_get(limits, "cuda");
    table_cell(table, "%.0f/%.0f", json_double(used, kind, 0), json_double(limit, kind, 0));
}

static void add_gpu(struct table *table, const json_t *resources, const json_t *gpu)
{
    const char *device = json_text(gpu, "device_name", "?");
    const json_t *load = json_object_get(gpu, "gpu_utilization");

    table_cell(table, "%s", device);
    table_cell(table, "%.1f / %.1f GB", json_double(gpu, "allocated_memory_gb", 0),
               json_double(gpu, "total_memory_gb", 0));
    if (json_is_true(json_object_get(gpu, "lost")))
        table_cell(table, "%s", tr("掉线", "lost"));
    else if (json_is_number(load))
        table_cell(table, "%.0f%%", json_number_value(load));
    else
        table_cell(table, "%s", "-");
    slots_cell(table, resources, device, "training");
    slots_cell(table, resources, device, "inference");
    table_cell(table, "%s", json_text(gpu, "name", ""));
}

static void add_cpu(struct table *table, const json_t *resources, const json_t *cpu)
{
    double total = json_double(cpu, "total_memory_gb", 0);

    table_cell(table, "cpu");
    if (total > 0)
        table_cell(table, "%.1f / %.1f GB", total * json_double(cpu, "memory_percent", 0) / 100, total);
    else
        table_cell(table, "%.0f%%", json_double(cpu, "memory_percent", 0));
    table_cell(table, "%.0f%%", json_double(cpu, "percent", 0));
    slots_cell(table, resources, "cpu", "training");
    slots_cell(table, resources, "cpu", "inference");
    table_cell(table, tr("%s (%.0f 核)", "%s (%.0f cores)"), json_text(cpu, "cpu_model", "CPU"),
               json_double(cpu, "cores", 0));
}

static void print_devices(const json_t *resources, const json_t *cpu)
{
    const char *titles[] = {tr("设备", "device"),   tr("内存", "memory"),    tr("负载", "load"),
                            tr("训练", "training"), tr("推理", "inference"), tr("型号", "model")};
    const json_t *info = json_object_get(resources, "gpu_info"), *active = json_object_get(resources, "active_tasks");
    struct table *table = table_new(sizeof titles / sizeof *titles, titles);
    const json_t *gpus = json_object_get(info, "devices");
    const char *device;
    json_t *tasks;

    for (size_t column = 1; column <= 4; column++)
        table_align_right(table, column);
    for (size_t i = 0; i < json_array_size(gpus); i++)
        add_gpu(table, resources, json_array_get(gpus, i));
    add_cpu(table, resources, cpu);
    table_print(table, stdout, terminal_width());
    table_free(table);
    if (json_is_string(json_object_get(info, "note"))) { /* why there is no GPU */
        text_print(stdout, json_text(info, "note", ""));
        putchar('\n');
    }
    if (json_array_size(gpus)) { /* what this machine's workers compute with, or why they cannot */
        printf("%s", tr("CUDA 引擎: ", "CUDA engine: "));
        text_print(stdout, net_backend_version("cuda"));
        putchar('\n');
    }
    json_object_foreach((json_t *)active, device, tasks)
    {
        for (size_t i = 0; i < json_array_size(tasks); i++) {
            printf("%s: %s ", device, json_text(json_array_get(tasks, i), "type", ""));
            text_print(stdout, json_text(json_array_get(tasks, i), "id", ""));
            putchar('\n');
        }
    }
}

int command_devices(int argc, char **argv)
{
    bool json = option_flag(&argc, argv, "--json");
    struct service service = {0};
    struct err err;
    json_t *resources = NULL, *cpu = NULL;
    int status = 0;

    if (option_help(argc, argv)) {
        printf(tr("用法: rfuav devices\n%s\n\n", "usage: rfuav devices\n%s\n\n"),
               tr("列出 GPU 和 CPU: 内存、负载、运行中的任务数/上限",
                  "lists GPUs and CPU: memory, load, tasks running out of how many may"));
        service_help(stdout);
        return 0;
    }
    if (service_open(&service, &argc, argv, &err) && options_end(argc, argv, 0, 0, "", &err)) {
        resources = service_call(&service, "GET", "/api/v2/resources", NULL, &err);
        if (resources)
            cpu = service_call(&service, "GET", "/api/v2/resources/cpu", NULL, &err);
    }
    if (!cpu) {
        status = service_fail("devices", &err);
    } else if (json) {
        json_object_set(resources, "cpu", cpu);
        service_print_json(resources);
    } else {
        print_devices(resources, cpu);
    }
    json_decref(resources);
    json_decref(cpu);
    service_close(&service);
    return status;
}

/* config */

/* "cuda:0.training=2" into {"cuda:0": {"training": 2}}. */
static bool add_limit(json_t *limits, const char *word, struct err *err)
{
    const char *dot = strrchr(word, '.'), *equals = dot ? strchr(dot, '=') : NULL;
    char *device = NULL, *kind = NULL, *rest = NULL;
    json_t *entry;
    long number;
    bool ok = false;

    if (!equals || dot == word || equals == dot + 1)
        return err_set(err, ERR_INVALID,
                       tr("\"%s\" 的形式应为 设备.种类=数量，例如 cuda.training=2",
                          "\"%s\" is not of the form DEVICE.KIND=NUMBER, such as cuda.training=2"),
                       word);
    number = strtol(equals + 1, &rest, 10);
    device = strndup(word, (size_t)(dot - word));
    kind = strndup(dot + 1, (size_t)(equals - dot - 1));
    if (rest == equals + 1 || *rest || !device || !kind) {
        err_set(err, ERR_INVALID, tr("\"%s\" 不是数量", "\"%s\" is not a number of tasks"), equals + 1);
    } else {
        entry = json_object_get(limits, device);
        if (!entry) {
            entry = json_object();
            json_object_set_new(limits, device, entry);
        }
        ok = json_object_set_new(entry, kind, json_integer(number)) == 0 ||
             err_set(err, ERR_INVALID, tr("\"%s\" 不是有效的文字", "\"%s\" is not valid text"), word);
    }
    free(device);
    free(kind);
    return ok;
}

static void print_limits(const json_t *limits)
{
    const char *titles[] = {tr("设备", "device"), tr("训练", "training"), tr("推理", "inference")};
    struct table *table = table_new(3, titles);
    const char *device;
    json_t *entry;

    table_align_right(table, 1);
    table_align_right(table, 2);
    json_object_foreach((json_t *)limits, device, entry)
    {
        table_cell(table, "%s", device);
        table_cell(table, "%.0f", json_double(entry, "training", 0));
        table_cell(table, "%.0f", json_double(entry, "inference", 0));
    }
    table_print(table, stdout, 0);
    table_free(table);
}

/* Reads the limits, or sets those that argv names; returns the answer. */
static json_t *configure(struct service *service, int argc, char **argv, struct err *err)
{
    json_t *limits;

    if (argc == 1)
        return service_call(service, "GET", "/api/v2/resources", NULL, err);
    limits = json_object();
    for (int i = 1; i < argc; i++) {
        if (!add_limit(limits, argv[i], err)) {
            json_decref(limits);
            return NULL;
        }
    }
    return service_call(service, "POST", "/api/v2/resources/config", json_pack("{s:o}", "max_concurrent", limits), err);
}

int command_config(int argc, char **argv)
{
    bool json = option_flag(&argc, argv, "--json");
    struct service service = {0};
    struct err err;
    json_t *answer = NULL;
    int status = 0;

    if (option_help(argc, argv)) {
        printf(tr("用法: rfuav config [设备.种类=数量 ...]\n%s\n\n",
                  "usage: rfuav config [DEVICE.KIND=NUMBER ...]\n%s\n\n"),
               tr("显示或改变每个设备同时运行的任务数，例如 cuda.training=2 cpu.inference=4",
                  "shows or sets how many tasks run at once on a device: cuda.training=2 cpu.inference=4"));
        service_help(stdout);
        return 0;
    }
    if (service_open(&service, &argc, argv, &err) && options_end(argc, argv, 0, 64, "", &err))
        answer = configure(&service, argc, argv, &err);
    if (!answer) {
        status = service_fail("config", &err);
    } else if (json) {
        service_print_json(answer);
    } else {
        const json_t *limits = json_object_get(answer, "current_config");

        print_limits(limits ? limits : json_object_get(answer, "limits"));
    }
    json_decref(answer);
    service_close(&service);
    return status;
}
