/* main.c - the table of subcommands. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "commands.h"

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is the subcommand; returns the exit status */
    const char *zh, *en;               /* one line of help; NULL: not for people */
} commands[] = {
    {"serve", command_serve, "启动服务", "start the service"},
    {"train", command_train, "训练一个模型", "train a model"},
    {"infer", command_infer, "用训练好的模型识别图像", "classify images with a trained model"},
    {"tasks", command_tasks, "列出任务", "list the tasks"},
    {"status", command_status, "显示服务或一个任务的状态", "show how the service or a task is"},
    {"logs", command_logs, "显示任务的日志", "show a task's log"},
    {"cancel", command_cancel, "取消任务", "end a task"},
    {"delete", command_delete, "删除已结束任务的记录", "drop the record of an ended task"},
    {"devices", command_devices, "列出设备", "list the devices"},
    {"models", command_models, "列出模型及其所需内存", "list the models and what they take"},
    {"config", command_config, "显示或改变每个设备的任务上限", "show or set how many tasks a device runs"},
    {"worker", command_worker, NULL, NULL},
    {"synth", command_synth, "用模拟信号生成示例数据集", "make a sample data set from simulated signals"},
    {"bench", command_bench, "测量训练和推理的速度", "measure how fast models train and classify"},
    {"version", command_version, "显示版本", "show the version"},
};

static int usage(FILE *out)
{
    fprintf(out, "%s\n\n",
            tr("用法: rfuav 命令 [选项]    (rfuav 命令 --help 显示选项)",
               "usage: rfuav COMMAND [OPTIONS]    (rfuav COMMAND --help shows the options)"));
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (commands[i].en)
            fprintf(out, "  %-10s %s\n", commands[i].name, tr(commands[i].zh, commands[i].en));
    return out == stderr ? 2 : 0;
}

int main(int argc, char **argv)
{
    text_set_language(getenv("RFUAV_LANG"));
    if (argc < 2)
        return usage(stderr);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0)
        return usage(stdout);
    fprintf(stderr, tr("rfuav: 没有命令 \"%s\"\n", "rfuav: no command \"%s\"\n"), argv[1]);
    return usage(stderr);
}
