/* bench.c - `rfuav bench`: how fast this machine trains and classifies, for any model, batch, precision and device. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/text.h"
#include "cli/options.h"
#include "cli/table.h"
#include "commands.h"
#include "engine/net.h"

enum { ROUNDS = 3, MOST_ITEMS = 16, MOST_BUFFERS = 4 };

/* Words with commas between them. */
struct list {
    char text[256];
    const char *items[MOST_ITEMS];
    int count;
};

struct options {
    struct list models, modes, batches, precisions;
    const char *device;
    int size, classes, threads;
    double seconds; /* of each round */
    bool json, ops, deterministic;
};

struct result {
    const char *model, *mode, *precision;
    int batch, size;
    double open_s, first_s, ms, fed_ms; /* fed: inputs come from the host each time */
    struct net_memory memory, forecast;
    uint64_t used; /* on the device */
};

static double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static bool split(struct list *list, const char *name, const char *text, struct err *err)
{
    char *rest = list->text, *item;

    if (snprintf(list->text, sizeof list->text, "%s", text) >= (int)sizeof list->text)
        return err_set(err, ERR_INVALID, tr("%s 太长", "%s is too long"), name);
    list->count = 0;
    while ((item = strsep(&rest, ","))) {
        if (list->count == MOST_ITEMS)
            return err_set(err, ERR_INVALID, tr("%s 最多 %d 项", "%s has more than %d items"), name, MOST_ITEMS);
        list->items[list->count++] = item;
    }
    return true;
}

static bool read_number(const char *name, const char *text, double min, double max, double *ret, struct err *err)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end || !(value >= min && value <= max))
        return err_set(err, ERR_INVALID,
                       tr("%s 应为 %g 到 %g 之间的数，而不是 \"%s\"", "%s must be a number from %g to %g, not \"%s\""),
                       name, min, max, text);
    *ret = value;
    return true;
}

static bool read_options(int *argc, char **argv, struct options *o, struct err *err)
{
    const char *model = "resnet18,resnet50", *mode = "train,infer", *batch = "1,8,32,128", *precision = NULL;
    const char *size = "224", *classes = "37", *threads = "0", *seconds = "0.5";
    double numbers[3] = {0};

    *o = (struct options){.device = "cuda",
                          .json = option_flag(argc, argv, "--json"),
                          .ops = option_flag(argc, argv, "--ops"),
                          .deterministic = option_flag(argc, argv, "--deterministic")};
    if (!option_value(argc, argv, "--model", &model, err) || !option_value(argc, argv, "--mode", &mode, err) ||
        !option_value(argc, argv, "--batch", &batch, err) ||
        !option_value(argc, argv, "--precision", &precision, err) ||
        !option_value(argc, argv, "--device", &o->device, err) || !option_value(argc, argv, "--size", &size, err) ||
        !option_value(argc, argv, "--classes", &classes, err) ||
        !option_value(argc, argv, "--threads", &threads, err) ||
        !option_value(argc, argv, "--seconds", &seconds, err) || !options_end(*argc, argv, 0, 0, NULL, err))
        return false;
    if (!precision)
        precision = strcmp(o->device, "cpu") == 0 ? "fp32" : "fp32,bf16";
    if (!split(&o->models, "--model", model, err) || !split(&o->modes, "--mode", mode, err) ||
        !split(&o->batches, "--batch", batch, err) || !split(&o->precisions, "--precision", precision, err) ||
        !read_number("--size", size, 1, 8192, &numbers[0], err) ||
        !read_number("--classes", classes, 1, 1 << 20, &numbers[1], err) ||
        !read_number("--threads", threads, 0, 4096, &numbers[2], err) ||
        !read_number("--seconds", seconds, 0, 3600, &o->seconds, err))
        return false;
    o->size = (int)numbers[0];
    o->classes = (int)numbers[1];
    o->threads = (int)numbers[2];
    return true;
}

/* One case: what is run, and the bytes it runs on. */
struct bench {
    struct net *net;
    bool training;
    int batch, filled; /* filled: calls whose input buffer got the images */
    size_t image_bytes;
    uint8_t *images;
    int32_t *labels;
    float *logits;
};

/* One step with inputs from the host. A loader's threads would write them to the net's buffers beside it; here the
 * first ones are filled, and keep what they have. */
static bool step(struct bench *b, struct err *err)
{
    uint8_t *images;

    if (!net_input_buffer(b->net, &images, err))
        return false;
    if (b->filled++ < MOST_BUFFERS)
        memcpy(images, b->images, b->image_bytes);
    return b->training ? net_train(b->net, images, b->labels, b->batch, err)
                       : net_logits(b->net, images, b->batch, b->logits, err);
}

/* `times` steps, on inputs from the host or those that are there, and the wait for the last. */
static bool steps(struct bench *b, int times, bool fed, struct err *err)
{
    if (!fed)
        return net_repeat(b->net, b->batch, b->training, times, err);
    for (int i = 0; i < times; i++)
        if (!step(b, err))
            return false;
    return net_repeat(b->net, b->batch, b->training, 0, err);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Milliseconds of a step: the median of ROUNDS. */
static bool time_steps(struct bench *b, bool fed, double seconds, double *ret, struct err *err)
{
    double rounds[ROUNDS], begin;
    int times = 3;

    for (double took = 0; took < seconds / 4;) { /* warms up, too */
        begin = seconds_now();
        if (!steps(b, times, fed, err))
            return false;
        took = seconds_now() - begin;
        if (took < seconds / 4)
            times *= 2;
        else
            times = (int)((double)times * seconds / took) + 1;
    }
    for (int i = 0; i < ROUNDS; i++) {
        begin = seconds_now();
        if (!steps(b, times, fed, err))
            return false;
        rounds[i] = 1e3 * (seconds_now() - begin) / times;
    }
    qsort(rounds, ROUNDS, sizeof *rounds, compare_doubles);
    *ret = rounds[ROUNDS / 2];
    return true;
}

static bool make_inputs(struct bench *b, const struct options *o, struct err *err)
{
    size_t bytes = (size_t)b->batch * (size_t)o->size * (size_t)o->size * 3;

    b->image_bytes = bytes;
    b->images = malloc(bytes);
    b->labels = calloc((size_t)b->batch, sizeof *b->labels);
    b->logits = calloc((size_t)b->batch * (size_t)o->classes, sizeof *b->logits);
    if (!b->images || !b->labels || !b->logits)
        return err_set(err, ERR_MEMORY, tr("内存不足", "no memory"));
    for (size_t i = 0; i < bytes; i++)
        b->images[i] = (uint8_t)(i * 2654435761u >> 21);
    for (int i = 0; i < b->batch; i++)
        b->labels[i] = i % o->classes;
    return true;
}

static void print_op(void *arg, const struct net_op_time *time)
{
    double *sum = arg;

    *sum += time->us;
    printf("  %-22s %-20s %9.2f us\n", time->op, time->output, time->us);
}

static bool print_ops(struct bench *b, const struct result *r, struct err *err)
{
    double sum = 0;

    printf("%s %s %s %d\n", r->model, r->mode, r->precision, r->batch);
    if (!net_time_ops(b->net, b->batch, b->training, print_op, &sum, err))
        return false;
    printf("  %-43s %9.2f us\n", tr("合计", "sum"), sum);
    return true;
}

static bool measure(const struct options *o, const struct net_config *config, struct result *r, struct err *err)
{
    struct bench b = {.training = config->mode == NET_TRAIN, .batch = config->batch_size};
    double begin = seconds_now();
    bool ok = make_inputs(&b, o, err) && net_open(config, &b.net, err);

    r->open_s = seconds_now() - begin;
    ok = ok && steps(&b, 1, true, err);
    r->first_s = seconds_now() - begin;
    ok = ok && time_steps(&b, false, o->seconds, &r->ms, err) && time_steps(&b, true, o->seconds, &r->fed_ms, err);
    if (ok) {
        uint64_t total;

        r->memory = *net_memory(b.net);
        net_device_memory(b.net, &r->used, &total);
        ok = net_plan(config, &r->forecast, err);
    }
    ok = ok && (!o->ops || print_ops(&b, r, err));
    net_free(b.net);
    free(b.images);
    free(b.labels);
    free(b.logits);
    return ok;
}

static void print_json(const struct result *r)
{
    printf("{\"model\": \"%s\", \"mode\": \"%s\", \"precision\": \"%s\", \"batch\": %d, \"size\": %d, \"ms\": %.4f, "
           "\"images_per_s\": %.1f, "
           "\"fed_ms\": %.4f, \"open_s\": %.3f, \"first_step_s\": %.3f, \"memory\": %llu, \"libraries\": %llu, "
           "\"forecast\": %llu, \"used\": %llu}\n",
           r->model, r->mode, r->precision, r->batch, r->size, r->ms, 1e3 * r->batch / r->ms, r->fed_ms, r->open_s,
           r->first_s, (unsigned long long)r->memory.total, (unsigned long long)r->memory.libraries,
           (unsigned long long)r->forecast.total, (unsigned long long)r->used);
    fflush(stdout);
}

static void add_row(struct table *table, const struct result *r)
{
    table_cell(table, "%s", r->model);
    table_cell(table, "%s", r->mode);
    table_cell(table, "%s", r->precision);
    table_cell(table, "%d", r->batch);
    table_cell(table, "%.3f", r->ms);
    table_cell(table, "%.0f", 1e3 * r->batch / r->ms);
    table_cell(table, "%.0f", 1e3 * r->batch / r->fed_ms);
    table_cell(table, "%.2f", r->first_s);
    table_cell(table, "%.0f", (double)r->memory.total / (1 << 20));
}

/* Is a word one of two? *second tells which. */
static bool either(const char *option, const char *word, const char *first, const char *other, bool *second,
                   struct err *err)
{
    *second = strcmp(word, other) == 0;
    return *second || strcmp(word, first) == 0 ||
           err_set(err, ERR_INVALID, tr("%s 应为 %s 或 %s，而不是 \"%s\"", "%s is %s or %s, not \"%s\""), option, first,
                   other, word);
}

static bool run_case(const struct options *o, struct result *r, const char *batch, struct table *table, struct err *err)
{
    bool cpu = strcmp(o->device, "cpu") == 0, bf16, infer;
    struct net_config config = {
        .model = r->model,
        .num_classes = o->classes,
        .image_size = o->size,
        .backend = cpu ? "cpu" : "cuda",
        .device = cpu || strcmp(o->device, "cuda") == 0 ? NULL : o->device,
        .threads = o->threads,
        .learning_rate = 1e-4,
        .keep_inputs = true,
        .deterministic = o->deterministic,
    };
    double number = 0;

    if (!either("--precision", r->precision, "fp32", "bf16", &bf16, err) ||
        !either("--mode", r->mode, "train", "infer", &infer, err) ||
        !read_number("--batch", batch, 1, 65536, &number, err))
        return false;
    r->batch = config.batch_size = (int)number;
    r->size = o->size;
    config.precision = bf16 ? DTYPE_BF16 : DTYPE_F32;
    config.mode = infer ? NET_INFER : NET_TRAIN;
    if (!measure(o, &config, r, err))
        return err_prefix(err, "%s %s %s %s", r->model, r->mode, r->precision, batch);
    if (o->json)
        print_json(r);
    else
        add_row(table, r);
    return true;
}

/* Every combination; one that fails is told and left out. Returns how many failed. */
static int run_all(const struct options *o, struct table *table)
{
    int failed = 0;

    for (int m = 0; m < o->models.count; m++)
        for (int k = 0; k < o->modes.count; k++)
            for (int p = 0; p < o->precisions.count; p++)
                for (int b = 0; b < o->batches.count; b++) {
                    struct result r = {
                        .model = o->models.items[m], .mode = o->modes.items[k], .precision = o->precisions.items[p]};
                    struct err err;

                    if (run_case(o, &r, o->batches.items[b], table, &err))
                        continue;
                    fprintf(stderr, "rfuav bench: %s\n", err.message);
                    failed++;
                }
    return failed;
}

static void print_help(void)
{
    printf("%s", tr("用法: rfuav bench [选项]\n\n"
                    "测量训练和推理的速度；列表用逗号分隔\n\n"
                    "  --model 列表      模型（resnet18,resnet50）\n"
                    "  --mode 列表       train、infer（两者）\n"
                    "  --batch 列表      批大小（1,8,32,128）\n"
                    "  --precision 列表  fp32、bf16（GPU 上两者，CPU 上 fp32）\n"
                    "  --device 设备     cuda（第一块 GPU）、GPU 的 UUID 或 cpu（cuda）\n"
                    "  --size 数         图像边长（224）\n"
                    "  --classes 数      类别数（37）\n"
                    "  --threads 数      CPU 线程数（0：全部核心）\n"
                    "  --seconds 数      每轮秒数，共三轮取中位数（0.5）\n"
                    "  --deterministic   不按计时选择算法\n"
                    "  --ops             每个运算单独的时间\n"
                    "  --json            每个结果一行 JSON\n",
                    "usage: rfuav bench [OPTIONS]\n\n"
                    "Measures how fast models train and classify. Lists have commas between their items.\n\n"
                    "  --model LIST      models (resnet18,resnet50)\n"
                    "  --mode LIST       train, infer (both)\n"
                    "  --batch LIST      images of a step (1,8,32,128)\n"
                    "  --precision LIST  fp32, bf16 (both on a GPU, fp32 on the CPU)\n"
                    "  --device DEVICE   cuda (the first GPU), a GPU's UUID, or cpu (cuda)\n"
                    "  --size N          height and width of the images (224)\n"
                    "  --classes N       classes (37)\n"
                    "  --threads N       CPU threads (0: all cores)\n"
                    "  --seconds N       length of a round; the median of three counts (0.5)\n"
                    "  --deterministic   choose no algorithm by timing it\n"
                    "  --ops             what each op takes when it runs alone\n"
                    "  --json            a line of JSON for each result\n"));
}

int command_bench(int argc, char **argv)
{
    const char *titles[] = {tr("模型", "model"),          tr("模式", "mode"),
                            tr("精度", "precision"),      tr("批", "batch"),
                            tr("毫秒/步", "ms/step"),     tr("图/秒", "images/s"),
                            tr("含输入", "with input"),   tr("首步(秒)", "first step s"),
                            tr("内存(MiB)", "memory MiB")};
    struct table *table;
    struct options o;
    struct err err;
    int failed;

    if (option_help(argc, argv)) {
        print_help();
        return 0;
    }
    if (!read_options(&argc, argv, &o, &err)) {
        fprintf(stderr, "rfuav bench: %s\n", err.message);
        return 2;
    }
    table = table_new(sizeof titles / sizeof *titles, titles);
    if (!table) {
        fprintf(stderr, "rfuav bench: %s\n", tr("内存不足", "no memory"));
        return 1;
    }
    for (size_t column = 3; column < sizeof titles / sizeof *titles; column++)
        table_align_right(table, column);
    failed = run_all(&o, table);
    if (!o.json)
        table_print(table, stdout, 0);
    table_free(table);
    return failed ? 1 : 0;
}
