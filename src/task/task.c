/* task.c - see task.h */
#include "task/task.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"

const char *log_level_name(enum log_level level)
{
    static const char *const names[] = {[LOG_INFO] = "INFO", [LOG_WARNING] = "WARNING", [LOG_ERROR] = "ERROR"};

    return names[level];
}

/* Bytes of the UTF-8 character at `text`, 0 when there is none. */
static size_t character_size(const char *text, size_t left)
{
    for (size_t size = 1; size <= 4 && size <= left; size++)
        if (text_is_utf8(text, size))
            return size;
    return 0;
}

/* A JSON string of a text that may hold any bytes. */
static json_t *json_text(const char *text, size_t size)
{
    static const char replacement[] = "\xEF\xBF\xBD";
    json_t *string = NULL;
    char *clean;
    size_t n = 0;

    if (text_is_utf8(text, size))
        return json_stringn(text, size);
    if (!(clean = malloc(size * (sizeof replacement - 1))))
        return NULL;
    for (size_t at = 0, step; at < size; at += step ? step : 1) {
        const char *from;

        step = character_size(text + at, size - at);
        from = step ? text + at : replacement;
        memcpy(clean + n, from, step ? step : sizeof replacement - 1);
        n += step ? step : sizeof replacement - 1;
    }
    string = json_stringn(clean, n);
    free(clean);
    return string;
}

static void send_log(struct task *task, enum log_level level, const char *stage, json_t *metrics, const char *fmt,
                     va_list args)
{
    char timestamp[CLOCK_ISO_SIZE], *text = NULL;
    int size = vasprintf(&text, fmt, args);
    json_t *message;

    clock_iso(timestamp);
    message = json_pack("{s:s, s:s, s:s, s:o*, s:o*, s:s*}", "type", "log", "timestamp", timestamp, "level",
                        log_level_name(level), "message",
                        size < 0 ? json_string("out of memory") : json_text(text, (size_t)size), "metrics", metrics,
                        "stage", stage);
    if (size >= 0)
        free(text);
    if (message)
        task->send(task, message);
}

void task_log(struct task *task, enum log_level level, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    send_log(task, level, NULL, NULL, fmt, args);
    va_end(args);
}

void task_log_metrics(struct task *task, const char *stage, json_t *metrics, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    send_log(task, LOG_INFO, stage, metrics, fmt, args);
    va_end(args);
}

void task_memory(struct task *task, uint64_t planned)
{
    json_t *message = json_pack("{s:s, s:I}", "type", "memory", "planned", (json_int_t)planned);

    task->planned = planned;
    if (message)
        task->send(task, message);
}

void task_memory_taken(struct task *task)
{
    json_t *message;

    if (task->taken || task->planned == 0)
        return;
    task->taken = true;
    message = json_pack("{s:s, s:I, s:I}", "type", "memory", "planned", (json_int_t)task->planned, "allocated",
                        (json_int_t)task->planned);
    if (message)
        task->send(task, message);
}

void task_progress(struct task *task, int percent, int64_t epoch)
{
    json_t *message;

    percent = percent < task->percent ? task->percent : percent > 100 ? 100 : percent;
    if (percent == task->percent && epoch == task->epoch)
        return;
    task->percent = percent;
    task->epoch = epoch;
    message = json_pack("{s:s, s:i}", "type", "progress", "progress", percent);
    if (message && epoch > 0)
        json_object_set_new(message, "current_epoch", json_integer(epoch));
    if (message)
        task->send(task, message);
}
