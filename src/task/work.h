/* work.h - the functions that carry a task out, in the worker; the rows of task_kinds[] point here. */
#ifndef RFUAV_TASK_WORK_H
#define RFUAV_TASK_WORK_H

#include "base/err.h"
#include "task/task.h"

/* See task_kind.run: `request` is a struct train_request (section 13 of the contract) or infer_request (section 14). */
bool train_run(struct task *task, const void *request, struct err *err);
bool infer_run(struct task *task, const void *request, struct err *err);

#endif
