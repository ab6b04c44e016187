/* models.c - `rfuav models`: every network with its size, its cost and the memory that it takes. Asks no service. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/text.h"
#include "cli/options.h"
#include "cli/service.h"
#include "cli/table.h"
#include "commands.h"
#include "device/device.h"
#include "engine/net.h"
#include "task/catalog.h"

static void print_help(void)
{
    struct buf help;

    buf_init(&help, 1 << 16);
    fields_help(&catalog_table, &help);
    printf("%s\n\n%.*s  --json                 %s\n",
           tr("用法: rfuav models [选项]    (列出模型及其参数量、计算量与所需内存)",
              "usage: rfuav models [OPTIONS]    (lists the models: parameters, operations, memory)"),
           (int)help.size, help.data ? help.data : "", tr("以 JSON 输出", "print JSON"));
    buf_release(&help);
}

static void megabytes_cell(struct table *table, const json_t *entry, const char *key)
{
    if (json_is_number(json_object_get(entry, key)))
        table_cell(table, "%.0f", json_double(entry, key, 0));
    else
        table_cell(table, "%s", "-");
}

static void add_row(struct table *table, const json_t *entry)
{
    bool known = json_is_number(json_object_get(entry, "flops"));

    table_cell(table, "%s", json_text(entry, "name", ""));
    table_cell(table, known ? "%.2f" : "-", json_double(entry, "parameters", 0) / 1e6);
    table_cell(table, known ? "%.2f" : "-", json_double(entry, "flops", 0) / 1e9);
    megabytes_cell(table, entry, "training_memory_mb");
    megabytes_cell(table, entry, "inference_memory_mb");
    table_cell(table, "%s", json_text(entry, "note", ""));
}

static void print_models(const json_t *models, const struct catalog_query *query, const char *backend)
{
    const char *titles[] = {
        tr("模型", "model"),           tr("参数(百万)", "parameters M"), tr("GFLOP/图", "GFLOP/image"),
        tr("训练(MB)", "training MB"), tr("推理(MB)", "inference MB"),   ""};
    struct table *table = table_new(sizeof titles / sizeof *titles, titles);

    printf(tr("图像 %lld×%lld，%lld 类，批大小 %lld，%s，%s\n",
              "images of %lld×%lld, %lld classes, batch size %lld, %s, %s\n"),
           (long long)query->image_size, (long long)query->image_size, (long long)query->num_classes,
           (long long)query->batch_size, query->precision, backend);
    for (size_t column = 1; column <= 4; column++)
        table_align_right(table, column);
    for (size_t i = 0; i < json_array_size(models); i++)
        add_row(table, json_array_get(models, i));
    table_print(table, stdout, terminal_width());
    table_free(table);
}

/* Where there is a GPU its memory is what matters. */
static const char *default_backend(void)
{
    struct device_set *devices = NULL;
    bool gpu = device_set_open(NULL, &devices, NULL) && device_count(devices) > 0;

    device_set_free(devices);
    return gpu ? "cuda" : "cpu";
}

static bool read_query(int *argc, char **argv, struct catalog_query *query, struct arena *arena, struct err *err)
{
    return (fields_defaults(&catalog_table, query, arena) || err_set(err, ERR_MEMORY, "no memory")) &&
           fields_args(&catalog_table, argc, argv, query, arena, err) && options_end(*argc, argv, 0, 0, NULL, err) &&
           catalog_check(query, err);
}

int command_models(int argc, char **argv)
{
    bool json = option_flag(&argc, argv, "--json");
    struct arena *arena = arena_new(0);
    json_t *models = json_array();
    struct catalog_query query;
    int status = 0;
    struct err err;

    if (option_help(argc, argv)) {
        print_help();
    } else if (!read_query(&argc, argv, &query, arena, &err)) {
        err.kind = ERR_REQUEST;
        service_fail("models", &err);
        status = 2;
    } else {
        const char *backend = query.device ? query.device : default_backend();

        for (const char *const *name = net_models(); *name; name++)
            json_array_append_new(models, catalog_entry(*name, &query, backend));
        if (json)
            service_print_json(models);
        else
            print_models(models, &query, backend);
    }
    arena_free(arena);
    json_decref(models);
    return status;
}
