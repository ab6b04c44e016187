/* train_weights.h - where a training's first weights come from: the request's file, ImageNet weights found on this
 * machine, or nowhere (random). */
#ifndef RFUAV_TASK_TRAIN_WEIGHTS_H
#define RFUAV_TASK_TRAIN_WEIGHTS_H

#include "base/err.h"
#include "engine/net.h"
#include "task/requests.h"
#include "task/task.h"
#include "task/train_record.h"

/* Loads request->weight_path, where any fault is an error, a last layer for other classes too; or with `pretrained` the
 * first usable ImageNet weights, whose last layer is left random when it is for other classes. Says what it took, and
 * clearly when it found none. */
bool train_weights_load(struct task *task, const struct train_request *request, struct train_record *record,
                        struct net *net, struct err *err);

/* The files that may hold ImageNet weights of `model`, best first, NULL-terminated, in the task's arena: in
 * task->weights_folder, then in the torch hub cache; in each torchvision's own names, then {model}*.pth and
 * {model}*.safetensors by name. NULL without memory. */
const char *const *pretrained_files(struct task *task, const char *model);

#endif
