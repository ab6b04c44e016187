/* sched.c - see sched.h */
#include "server/sched.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"

enum {
    GPUS_TOLD = 4,         /* in a reason */
    OTHERS_STEP_BITS = 31, /* 2 GiB */
};

/* The number of "cuda:N", -1 when the text is of another form. */
static int gpu_number(const char *text)
{
    size_t digits;

    if (strncmp(text, "cuda:", 5) != 0)
        return -1;
    text += 5;
    digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 6 || text[digits] || (text[0] == '0' && digits > 1))
        return -1;
    return (int)strtol(text, NULL, 10);
}

bool sched_parse_device(const char *text, int *ret_ask)
{
    int n = gpu_number(text);

    if (n < 0 && strcmp(text, "cuda") != 0 && strcmp(text, "cpu") != 0)
        return false;
    *ret_ask = n >= 0 ? n : strcmp(text, "cpu") == 0 ? ASK_CPU : ASK_ANY_GPU;
    return true;
}

/* ---- picking ---- */

struct pick {
    const struct sched_task *tasks;
    struct sched_device *devices;
    size_t device_count, gpu_count;
    const char **reserved; /* (device_count) the id of the task that a device is kept for, or NULL */
    double now, reserve_after;
};

static bool has_memory(const struct sched_device *device, const struct sched_task *task)
{
    /* the CPU takes one task whatever else runs on the machine: paging is better than waiting for other programs */
    if (!device->gpu && device->memory_ours == 0)
        return true;
    return task->memory <= device->memory_free;
}

/* What keeps a task from a device; SCHED_START: nothing. careful: not where a task has just failed. */
static enum sched_outcome obstacle(const struct pick *pick, const struct sched_task *task, size_t d, bool careful)
{
    const struct sched_device *device = &pick->devices[d];

    if (device->lost)
        return SCHED_WAIT_LOST;
    if (device->suspect && careful)
        return SCHED_WAIT_SUSPECT;
    if (task->slot != SLOT_NONE && device->limit[task->slot] <= 0)
        return SCHED_WAIT_LIMIT;
    if (task->slot != SLOT_NONE && device->used[task->slot] >= device->limit[task->slot])
        return SCHED_WAIT_SLOT;
    if (pick->reserved[d])
        return SCHED_WAIT_RESERVED;
    return has_memory(device, task) ? SCHED_START : SCHED_WAIT_MEMORY;
}

static int64_t load(const struct sched_device *device)
{
    int64_t sum = 0;

    for (int k = 0; k < SLOT_KINDS; k++)
        sum += device->used[k];
    return sum;
}

static uint64_t shortfall(const struct sched_device *device, const struct sched_task *task)
{
    return task->memory > device->memory_free ? task->memory - device->memory_free : 0;
}

/* Memory that other programs hold says who else computes there, in steps: a context more or less tells nothing. */
static uint64_t others(const struct sched_device *device)
{
    return device->memory_other >> OTHERS_STEP_BITS;
}

/* Is device `a` the better of two that have the same obstacle? Ties go to the lower index. */
static bool better(const struct pick *pick, const struct sched_task *task, enum sched_outcome outcome, size_t a,
                   size_t b)
{
    const struct sched_device *da = &pick->devices[a], *db = &pick->devices[b];

    if (outcome == SCHED_WAIT_MEMORY && shortfall(da, task) != shortfall(db, task))
        return shortfall(da, task) < shortfall(db, task);
    if (outcome == SCHED_START && load(da) != load(db))
        return load(da) < load(db);
    if (outcome == SCHED_START && task->slot != SLOT_NONE && da->used[task->slot] != db->used[task->slot])
        return da->used[task->slot] < db->used[task->slot];
    if (outcome == SCHED_START && others(da) != others(db))
        return others(da) < others(db);
    return a < b;
}

/* The devices that a task may use: [*first, *end). */
static void candidates(const struct pick *pick, const struct sched_task *task, size_t *first, size_t *end)
{
    *first = task->ask == ASK_ANY_GPU ? 0 : task->ask == ASK_CPU ? pick->gpu_count : (size_t)task->ask;
    *end = task->ask == ASK_ANY_GPU ? pick->gpu_count : task->ask == ASK_CPU ? pick->device_count : *first + 1;
    if (task->ask >= 0 && (size_t)task->ask >= pick->gpu_count)
        *end = *first;
}

/* After a long wait: the device where the least is missing and where it will fit when our tasks end. */
static void reserve(struct pick *pick, const struct sched_task *task)
{
    size_t first, end, best = SIZE_MAX;

    candidates(pick, task, &first, &end);
    for (size_t d = first; d < end; d++)
        if (obstacle(pick, task, d, task->ask == ASK_ANY_GPU) == SCHED_WAIT_MEMORY &&
            task->memory <= pick->devices[d].memory_free + pick->devices[d].memory_ours &&
            (best == SIZE_MAX || better(pick, task, SCHED_WAIT_MEMORY, d, best)))
            best = d;
    if (best != SIZE_MAX)
        pick->reserved[best] = task->id;
}

static void occupy(struct sched_device *device, const struct sched_task *task)
{
    uint64_t taken = task->memory < device->memory_free ? task->memory : device->memory_free;

    if (task->slot != SLOT_NONE) {
        device->used[task->slot]++;
        device->holder[task->slot] = task->id;
    }
    device->memory_free -= taken;
    device->memory_ours += task->memory;
}

/* The best of the devices, and what keeps the task from it. */
static struct sched_verdict survey(const struct pick *pick, const struct sched_task *task, bool careful)
{
    /* the obstacle that is reported when there are several: the one that will go first */
    static const enum sched_outcome order[] = {SCHED_START,     SCHED_WAIT_MEMORY, SCHED_WAIT_RESERVED,
                                               SCHED_WAIT_SLOT, SCHED_WAIT_LIMIT,  SCHED_WAIT_SUSPECT,
                                               SCHED_WAIT_LOST};
    struct sched_verdict verdict = {.outcome = SCHED_WAIT_DEVICE, .device = -1};
    size_t first, end, best[SCHED_WAIT_DEVICE];

    candidates(pick, task, &first, &end);
    for (size_t i = 0; i < SCHED_WAIT_DEVICE; i++)
        best[i] = SIZE_MAX;
    for (size_t d = first; d < end; d++) {
        enum sched_outcome outcome = obstacle(pick, task, d, careful);

        if (best[outcome] == SIZE_MAX || better(pick, task, outcome, d, best[outcome]))
            best[outcome] = d;
    }
    for (size_t i = 0; i < sizeof order / sizeof *order && verdict.device < 0; i++)
        if (best[order[i]] != SIZE_MAX)
            verdict = (struct sched_verdict){.outcome = order[i], .device = (int)best[order[i]]};
    return verdict;
}

static struct sched_verdict decide(struct pick *pick, const struct sched_task *task)
{
    struct sched_verdict verdict = survey(pick, task, task->ask == ASK_ANY_GPU);

    if (verdict.outcome >= SCHED_WAIT_LIMIT) /* there is no sound one to wait for */
        verdict = survey(pick, task, false);
    if (verdict.outcome == SCHED_START)
        occupy(&pick->devices[verdict.device], task);
    if (verdict.outcome == SCHED_WAIT_SLOT)
        verdict.holder = pick->devices[verdict.device].holder[task->slot];
    if (verdict.outcome == SCHED_WAIT_RESERVED)
        verdict.holder = pick->reserved[verdict.device];
    if (verdict.outcome == SCHED_WAIT_MEMORY && pick->now - task->since >= pick->reserve_after)
        reserve(pick, task);
    return verdict;
}

static int compare(const void *a, const void *b)
{
    const struct sched_task *ta = *(const struct sched_task *const *)a, *tb = *(const struct sched_task *const *)b;

    if (ta->priority != tb->priority)
        return ta->priority < tb->priority ? -1 : 1;
    return ta->seq < tb->seq ? -1 : ta->seq > tb->seq;
}

size_t sched_pick(const struct sched_task *tasks, size_t n, struct sched_device *devices, size_t device_count,
                  double now, double reserve_after, struct sched_verdict *verdicts)
{
    const struct sched_task **order = malloc((n ? n : 1) * sizeof(const struct sched_task *));
    const char **reserved = calloc(device_count ? device_count : 1, sizeof(const char *));
    struct pick pick = {tasks, devices, device_count, 0, reserved, now, reserve_after};
    size_t started = order && reserved ? 0 : SIZE_MAX;

    while (pick.gpu_count < device_count && devices[pick.gpu_count].gpu)
        pick.gpu_count++;
    for (size_t i = 0; started == 0 && i < n; i++)
        order[i] = &tasks[i];
    if (started == 0 && n > 1)
        qsort(order, n, sizeof(const struct sched_task *), compare);
    for (size_t i = 0, end = started == 0 ? n : 0; i < end; i++) {
        struct sched_verdict verdict = decide(&pick, order[i]);

        verdicts[order[i] - tasks] = verdict;
        started += verdict.outcome == SCHED_START;
    }
    free(order);
    free(reserved);
    return started;
}

/* ---- reasons ---- */

static const char *slot_name(enum slot_kind slot)
{
    return slot == SLOT_TRAINING ? tr("训练", "training") : tr("推理", "inference");
}

static void slot_reason(const struct sched_task *task, const struct sched_verdict *verdict,
                        const struct sched_device *devices, size_t device_count, struct buf *out)
{
    int64_t used = devices[verdict->device].used[task->slot], limit = devices[verdict->device].limit[task->slot];
    const char *name = devices[verdict->device].id;

    if (task->ask == ASK_ANY_GPU && device_count > 2) { /* several GPUs: of all of them */
        used = limit = 0;
        name = "cuda";
        for (size_t d = 0; d < device_count && devices[d].gpu; d++) {
            if (devices[d].lost || (devices[d].suspect && !devices[verdict->device].suspect))
                continue; /* it does not wait for that one */
            used += devices[d].used[task->slot];
            limit += devices[d].limit[task->slot];
        }
    }
    buf_printf(out, "%s: %s %lld/%lld", name, slot_name(task->slot), (long long)used, (long long)limit);
    if (verdict->holder)
        buf_printf(out, ", %s", verdict->holder);
}

static void limit_reason(const struct sched_task *task, const char *name, struct buf *out)
{
    buf_printf(out, tr("%s: %s 上限为 0", "%s: the limit for %s is 0"), name, slot_name(task->slot));
}

static void lost_reason(const char *name, struct buf *out)
{
    buf_printf(out, tr("%s: 没有响应，可能已掉线", "%s: it does not answer, it may be lost"), name);
}

static void memory_reason(const struct sched_task *task, const struct sched_device *device, struct buf *out)
{
    const double gib = 1 << 30;

    buf_printf(out,
               tr("%s: 需要 %.1f GB, 空闲 %.1f GB, 其他进程占用 %.1f GB",
                  "%s: %.1f GB needed, %.1f GB free, %.1f GB held by other processes"),
               device->id, (double)task->memory / gib, (double)device->memory_free / gib,
               (double)device->memory_other / gib);
}

/* What keeps a task from each of the GPUs that it may use, where on some it is memory: the best of them first. */
static void memory_reasons(const struct sched_task *task, const struct sched_verdict *verdict,
                           const struct sched_device *devices, size_t device_count, struct buf *out)
{
    size_t told = 1, more = 0;

    memory_reason(task, &devices[verdict->device], out);
    for (size_t d = 0; task->ask == ASK_ANY_GPU && d < device_count && devices[d].gpu; d++) {
        const struct sched_device *device = &devices[d];
        bool taken = task->slot != SLOT_NONE && device->used[task->slot] >= device->limit[task->slot];
        struct sched_verdict of_this = {.device = (int)d, .holder = taken ? device->holder[task->slot] : NULL};

        if ((int)d == verdict->device ||
            (!device->lost && !taken && task->memory <= device->memory_free)) /* kept for another */
            continue;
        if (told == GPUS_TOLD) {
            more++;
            continue;
        }
        told++;
        buf_puts(out, "; ");
        if (device->lost)
            lost_reason(device->id, out);
        else if (taken && device->limit[task->slot] <= 0)
            limit_reason(task, device->id, out);
        else if (taken)
            slot_reason(task, &of_this, devices, 0, out);
        else
            memory_reason(task, device, out);
    }
    if (more)
        buf_printf(out, tr("; 另有 %zu 个 GPU", "; and %zu GPUs more"), more);
}

void sched_reason(const struct sched_task *task, const struct sched_verdict *verdict,
                  const struct sched_device *devices, size_t device_count, struct buf *out)
{
    const char *name;

    if (verdict->device < 0) { /* SCHED_WAIT_DEVICE */
        if (task->ask >= 0)
            buf_printf(out, tr("没有设备 cuda:%d", "there is no device cuda:%d"), task->ask);
        else
            buf_puts(out, tr("没有可用设备", "there is no such device"));
        return;
    }
    name = devices[verdict->device].id;
    if (verdict->outcome == SCHED_WAIT_SLOT)
        slot_reason(task, verdict, devices, device_count, out);
    else if (verdict->outcome == SCHED_WAIT_MEMORY)
        memory_reasons(task, verdict, devices, device_count, out);
    else if (verdict->outcome == SCHED_WAIT_RESERVED)
        buf_printf(out, tr("%s: 为 %s 保留", "%s: kept free for %s"), name, verdict->holder);
    else if (verdict->outcome == SCHED_WAIT_LOST)
        lost_reason(name, out);
    else if (verdict->outcome == SCHED_WAIT_LIMIT)
        limit_reason(task, task->ask == ASK_ANY_GPU ? "cuda" : name, out);
}

/* ---- limits ---- */

bool limits_init(struct limits *limits, size_t gpu_count)
{
    *limits = (struct limits){.gpus = calloc(gpu_count ? gpu_count : 1, sizeof *limits->gpus), .gpu_count = gpu_count};
    for (size_t i = 0; limits->gpus && i < gpu_count; i++)
        for (int k = 0; k < SLOT_KINDS; k++)
            limits->gpus[i].max[k] = -1;
    return limits->gpus;
}

void limits_release(struct limits *limits)
{
    free(limits->gpus);
    limits->gpus = NULL;
    limits->gpu_count = 0;
}

bool limits_set(struct limits *limits, const char *device, enum slot_kind slot, int64_t n)
{
    int ask;

    if (!sched_parse_device(device, &ask) || (ask >= 0 && (size_t)ask >= limits->gpu_count))
        return false;
    if (ask >= 0)
        limits->gpus[ask].max[slot] = n;
    else if (ask == ASK_CPU)
        limits->cpu[slot] = n;
    else
        limits->cuda[slot] = n;
    return true;
}

int64_t limits_get(const struct limits *limits, int ask, enum slot_kind slot)
{
    if (ask == ASK_CPU)
        return limits->cpu[slot];
    if (ask >= 0 && (size_t)ask < limits->gpu_count && limits->gpus[ask].max[slot] >= 0)
        return limits->gpus[ask].max[slot];
    return limits->cuda[slot];
}
