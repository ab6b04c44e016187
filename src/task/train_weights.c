/* train_weights.c - see train_weights.h */
#include "task/train_weights.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/text.h"
#include "formats/checkpoint.h"

/* What torchvision calls its ImageNet files; of a model's several the default of its current releases comes first. */
static const char *const hub_names[] = {
    "resnet18-f37072fd.pth",           "resnet34-b627a593.pth",           "resnet50-11ad3fa6.pth",
    "resnet50-0676ba61.pth",           "resnet101-cd907fc2.pth",          "resnet101-63fe2227.pth",
    "resnet152-f82ba261.pth",          "resnet152-394f9c45.pth",          "vit_b_16-c867db91.pth",
    "vit_b_32-d86f8d99.pth",           "vit_l_16-852ce7e3.pth",           "vit_l_32-c7638314.pth",
    "swin_v2_t-b137f0e2.pth",          "swin_v2_s-637d8ceb.pth",          "swin_v2_b-781e5279.pth",
    "mobilenet_v3_large-5c1a4163.pth", "mobilenet_v3_large-8738ca79.pth", "mobilenet_v3_small-047dcff4.pth",
};

enum { FOLDERS = 2, FILES_MAX = 32 };

/* The folders to look in, in the task's arena; NULL for one that is not set. */
static void search_folders(struct task *task, const char *folders[FOLDERS])
{
    const char *torch = getenv("TORCH_HOME"), *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");

    folders[0] = task->weights_folder && *task->weights_folder ? task->weights_folder : NULL;
    if (torch && *torch)
        folders[1] = arena_printf(task->arena, "%s/hub/checkpoints", torch);
    else if (cache && *cache)
        folders[1] = arena_printf(task->arena, "%s/torch/hub/checkpoints", cache);
    else
        folders[1] = home && *home ? arena_printf(task->arena, "%s/.cache/torch/hub/checkpoints", home) : NULL;
}

/* Is it "{name}.pth", "{name}-….pth" or the like, and not that of a model whose name only begins the same? */
static bool belongs_to(const char *file, const char *model)
{
    size_t size = strlen(model);
    const char *ending = strrchr(file, '.');

    return strncmp(file, model, size) == 0 && !isalnum((unsigned char)file[size]) && ending &&
           (strcasecmp(ending, ".pth") == 0 || strcasecmp(ending, ".safetensors") == 0);
}

static void add_file(struct task *task, const char *folder, const char *name, const char **files, size_t *count)
{
    char *path = arena_printf(task->arena, "%s/%s", folder, name);

    if (!path || access(path, F_OK) < 0 || *count == FILES_MAX)
        return;
    for (size_t i = 0; i < *count; i++)
        if (strcmp(files[i], path) == 0)
            return;
    files[(*count)++] = path;
}

const char *const *pretrained_files(struct task *task, const char *model)
{
    const char **files = arena_alloc(task->arena, (FILES_MAX + 1) * sizeof *files), *folders[FOLDERS];
    size_t count = 0;

    search_folders(task, folders);
    for (int f = 0; files && f < FOLDERS; f++) {
        struct dirent **entries = NULL;
        int n = folders[f] ? scandir(folders[f], &entries, NULL, alphasort) : -1;

        for (size_t i = 0; n > 0 && i < sizeof hub_names / sizeof *hub_names; i++)
            if (belongs_to(hub_names[i], model))
                add_file(task, folders[f], hub_names[i], files, &count);
        for (int i = 0; i < n; i++) {
            if (belongs_to(entries[i]->d_name, model))
                add_file(task, folders[f], entries[i]->d_name, files, &count);
            free(entries[i]);
        }
        free(entries);
    }
    return files;
}

/* Reads one file into the net, with the contract's lines. any_head: a last layer for other classes is left random. */
static bool load_file(const char *path, bool any_head, struct train_record *record, struct net *net, struct err *err)
{
    struct state_dict *dict = NULL;
    bool skipped = false, ok;

    train_say(record, LOG_INFO, "Loading pretrained weights from: %s", path);
    ok = checkpoint_read(path, &dict, err) &&
         (net_load(net, dict, any_head, &skipped, err) || err_prefix(err, "%s", path));
    state_dict_free(dict);
    if (!ok)
        return false;
    train_say(record, LOG_INFO, "Successfully loaded pretrained weights from: %s", path);
    if (skipped)
        train_say(record, LOG_INFO, "%s",
                  tr("权重文件的最后一层类别数不同，最后一层从随机权重开始",
                     "the file's last layer is for other classes: the last layer starts from random weights"));
    return true;
}

static void say_none_found(struct task *task, const char *model, struct train_record *record)
{
    const char *folders[FOLDERS];

    search_folders(task, folders);
    train_say(record, LOG_WARNING,
              tr("未找到 %s 的 ImageNet 预训练权重 (查找过: %s%s%s)，从随机权重开始训练",
                 "no ImageNet weights for %s on this machine (looked in: %s%s%s): training starts from random weights"),
              model, folders[0] ? folders[0] : "", folders[0] && folders[1] ? ", " : "", folders[1] ? folders[1] : "");
}

bool train_weights_load(struct task *task, const struct train_request *request, struct train_record *record,
                        struct net *net, struct err *err)
{
    const char *const *files;

    if (request->weight_path && *request->weight_path) {
        if (!load_file(request->weight_path, false, record, net, err))
            return err_prefix(err, "%s",
                              tr("weight_path 必须是 model 与 num_classes 完全一致的权重 "
                                 "(其他类别数的权重请放入 WEIGHTS_DIR 并使用 pretrained)",
                                 "weight_path must be a checkpoint of this very model and num_classes (one for other "
                                 "classes goes into WEIGHTS_DIR, with pretrained)"));
        /* the reference says it a second time, and readers of its log may count on that */
        train_say(record, LOG_INFO, "Loading pretrained weights from: %s", request->weight_path);
        return true;
    }
    if (!request->pretrained)
        return true;
    if (!(files = pretrained_files(task, request->model)))
        return err_set(err, ERR_MEMORY, "out of memory");
    for (; *files; files++) {
        struct err reason;

        if (load_file(*files, true, record, net, &reason))
            return true;
        train_say(record, LOG_WARNING, tr("无法使用预训练权重: %s", "cannot use these pretrained weights: %s"),
                  reason.message);
    }
    say_none_found(task, request->model, record);
    return true;
}
