/* test_sched.c - placement: the rules one by one, then a virtual machine room at random against invariants */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "base/text.h"
#include "server/sched.h"

#define GB(x) ((uint64_t)((double)(x) * (1 << 30)))

static struct sched_device gpu(const char *id, int64_t training, int64_t inference, double free_gb)
{
    return (struct sched_device){
        .id = id, .gpu = true, .limit = {training, inference}, .memory_free = GB(free_gb), .memory_other = GB(1)};
}

static struct sched_device cpu(int64_t training, int64_t inference)
{
    return (struct sched_device){.id = "cpu", .limit = {training, inference}, .memory_free = GB(8)};
}

static struct sched_task job(const char *id, enum slot_kind slot, int ask, int priority, int64_t seq, double gb)
{
    return (struct sched_task){.id = id, .slot = slot, .ask = ask, .priority = priority, .seq = seq, .memory = GB(gb)};
}

#define TRAIN SLOT_TRAINING
#define INFER SLOT_INFERENCE
#define PICK(tasks, devices, now)                                                                                      \
    sched_pick(tasks, sizeof(tasks) / sizeof *(tasks), devices, sizeof(devices) / sizeof *(devices), now, 60, verdicts)

static struct sched_verdict verdicts[64];

static void device_texts(void **state)
{
    static const char *const bad[] = {"",        "gpu",     "CPU",     "cuda:",        "cuda:x", "cuda:-1",
                                      "cuda:1x", "cuda:01", "cuda: 1", "cuda:9999999", "cuda0",  " cpu"};
    int ask;

    (void)state;
    assert_true(sched_parse_device("cuda", &ask) && ask == ASK_ANY_GPU);
    assert_true(sched_parse_device("cpu", &ask) && ask == ASK_CPU);
    assert_true(sched_parse_device("cuda:0", &ask) && ask == 0);
    assert_true(sched_parse_device("cuda:12", &ask) && ask == 12);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(sched_parse_device(bad[i], &ask));
}

static void least_loaded_gpu_with_a_slot(void **state)
{
    struct sched_device devices[] = {gpu("cuda:0", 1, 3, 40), gpu("cuda:1", 1, 3, 40), gpu("cuda:2", 1, 3, 40),
                                     cpu(2, 4)};
    struct sched_task tasks[] = {job("a", INFER, ASK_ANY_GPU, 3, 1, 1), job("b", TRAIN, ASK_ANY_GPU, 5, 2, 1),
                                 job("c", INFER, ASK_ANY_GPU, 3, 3, 1), job("d", INFER, ASK_ANY_GPU, 3, 4, 1),
                                 job("e", TRAIN, ASK_ANY_GPU, 5, 5, 1)};

    (void)state;
    devices[0].used[INFER] = 1;
    assert_int_equal(PICK(tasks, devices, 0), 5);
    assert_int_equal(verdicts[0].device, 1);
    assert_int_equal(verdicts[2].device, 2);
    assert_int_equal(verdicts[3].device, 0); /* one each: the lowest */
    assert_int_equal(verdicts[1].device, 1); /* now 2 1 1 */
    assert_int_equal(verdicts[4].device, 2);
}

static void ties_go_to_the_lower_index(void **state)
{
    struct sched_device devices[] = {gpu("cuda:0", 1, 3, 40), gpu("cuda:1", 1, 3, 40), cpu(2, 4)};
    struct sched_task tasks[] = {job("a", TRAIN, ASK_ANY_GPU, 5, 1, 1), job("b", TRAIN, ASK_ANY_GPU, 5, 2, 1),
                                 job("c", TRAIN, ASK_ANY_GPU, 5, 3, 1), job("d", INFER, ASK_ANY_GPU, 5, 4, 1)};

    (void)state;
    assert_int_equal(PICK(tasks, devices, 0), 3);
    assert_int_equal(verdicts[0].device, 0);
    assert_int_equal(verdicts[1].device, 1);
    assert_int_equal(verdicts[2].outcome, SCHED_WAIT_SLOT);
    assert_string_equal(verdicts[2].holder, "a");
    assert_int_equal(verdicts[3].device, 0);
}

/* Equal by our own tasks: the card that other programs leave alone. A context of theirs (or of a task of ours that has
 * just ended) does not count. */
static void a_card_that_others_use_comes_last(void **state)
{
    struct sched_device devices[] = {gpu("cuda:0", 1, 3, 40), gpu("cuda:1", 1, 3, 40), cpu(2, 4)};
    struct sched_task tasks[] = {job("a", TRAIN, ASK_ANY_GPU, 5, 1, 1)};

    (void)state;
    devices[0].memory_other = GB(1.5);
    assert_int_equal(PICK(tasks, devices, 0), 1);
    assert_int_equal(verdicts[0].device, 0);
    devices[0].used[TRAIN] = 0;
    devices[0].memory_other = GB(30);
    assert_int_equal(PICK(tasks, devices, 0), 1);
    assert_int_equal(verdicts[0].device, 1);
    devices[0].used[TRAIN] = 0;
    devices[1].limit[TRAIN] = 2; /* our own tasks come first */
    assert_int_equal(PICK(tasks, devices, 0), 1);
    assert_int_equal(verdicts[0].device, 0);
}

/* D26: the choice looks at each GPU's own limit and memory. */
static void limits_and_memory_of_each_gpu_count(void **state)
{
    struct sched_device devices[] = {gpu("cuda:0", 0, 3, 40), gpu("cuda:1", 1, 3, 2), gpu("cuda:2", 1, 0, 40),
                                     cpu(2, 4)};
    struct sched_task tasks[] = {job("a", TRAIN, ASK_ANY_GPU, 5, 1, 5), job("b", INFER, ASK_ANY_GPU, 5, 2, 5),
                                 job("c", INFER, 1, 5, 3, 5), job("d", TRAIN, 0, 5, 4, 1)};

    (void)state;
    assert_int_equal(PICK(tasks, devices, 0), 2);
    assert_int_equal(verdicts[0].device, 2);
    assert_int_equal(verdicts[1].device, 0);
    assert_int_equal(verdicts[2].outcome, SCHED_WAIT_MEMORY);
    assert_int_equal(verdicts[3].outcome, SCHED_WAIT_LIMIT);
    assert_int_equal(devices[2].memory_free, GB(35));
}

/* D6 and D28: order is priority, then age; who cannot run holds nobody up. */
static void priority_then_age(void **state)
{
    struct sched_device devices[] = {gpu("cuda:0", 1, 3, 40), cpu(1, 4)};
    struct sched_task tasks[] = {job("a", TRAIN, 0, 10, 1, 1), job("b", TRAIN, 0, 9, 2, 1),
                                 job("c", TRAIN, 0, 5, 3, 1),  job("d", TRAIN, 0, 1, 5, 1),
                                 job("e", TRAIN, 0, 1, 4, 1),  job("f", TRAIN, ASK_CPU, 10, 9, 1)};

    (void)state;
    assert_int_equal(PICK(tasks, devices, 0), 2);
    assert_int_equal(verdicts[4].outcome, SCHED_START);
    assert_int_equal(verdicts[5].outcome, SCHED_START);
    assert_string_equal(verdicts[3].holder, "e");
}

static void reservation_after_the_bound(void **state)
{
    struct sched_task tasks[] = {job("large", INFER, 0, 3, 1, 30), job("small", INFER, 0, 3, 2, 2)};
    struct sched_device devices[2];

    (void)state;
    for (int waited = 0; waited <= 60; waited += 60) {
        devices[0] = gpu("cuda:0", 1, 3, 10);
        devices[0].used[INFER] = 1;
        devices[0].memory_ours = GB(25);
        devices[1] = cpu(1, 1);
        assert_int_equal(PICK(tasks, devices, waited), waited < 60);
        assert_int_equal(verdicts[0].outcome, SCHED_WAIT_MEMORY);
        assert_int_equal(verdicts[1].outcome, waited < 60 ? SCHED_START : SCHED_WAIT_RESERVED);
    }
    assert_string_equal(verdicts[1].holder, "large");
    /* nothing is kept idle for memory that other programs hold */
    devices[0] = gpu("cuda:0", 1, 3, 10);
    devices[0].memory_ours = GB(10);
    assert_int_equal(PICK(tasks, devices, 1000), 1);
}

static void the_cpu_takes_one_whatever_its_memory(void **state)
{
    struct sched_device devices[] = {cpu(2, 4)};
    struct sched_task tasks[] = {job("a", TRAIN, ASK_CPU, 5, 1, 9), job("b", TRAIN, ASK_CPU, 5, 2, 1),
                                 job("c", TRAIN, ASK_ANY_GPU, 5, 3, 1), job("d", SLOT_NONE, ASK_CPU, 5, 4, 0)};

    (void)state;
    assert_int_equal(PICK(tasks, devices, 0), 2);
    assert_int_equal(verdicts[0].outcome, SCHED_START);
    assert_int_equal(verdicts[1].outcome, SCHED_WAIT_MEMORY);
    assert_int_equal(verdicts[2].outcome, SCHED_WAIT_DEVICE);
    assert_int_equal(verdicts[3].outcome, SCHED_START);
}

static const char *reason(const struct sched_task *task, const struct sched_verdict *verdict,
                          const struct sched_device *devices, size_t n)
{
    static char text[400];
    struct buf buf;

    buf_init(&buf, sizeof text);
    sched_reason(task, verdict, devices, n, &buf);
    snprintf(text, sizeof text, "%s", buf.data ? buf.data : "");
    buf_release(&buf);
    return text;
}

static void reasons(void **state)
{
    struct sched_device devices[] = {gpu("cuda:0", 1, 3, 3.1), gpu("cuda:1", 1, 3, 3.1), cpu(2, 4)};
    struct sched_task task = job("t", TRAIN, 0, 5, 1, 5.2);
    struct sched_verdict slot = {SCHED_WAIT_SLOT, 0, "abc"}, memory = {SCHED_WAIT_MEMORY, 1, NULL};

    (void)state;
    devices[0].used[TRAIN] = 1;
    devices[1].memory_other = GB(4);
    text_set_language("zh");
    assert_string_equal(reason(&task, &slot, devices, 3), "cuda:0: 训练 1/1, abc");
    assert_string_equal(reason(&task, &memory, devices, 3), "cuda:1: 需要 5.2 GB, 空闲 3.1 GB, 其他进程占用 4.0 GB");
    text_set_language("en");
    assert_string_equal(reason(&task, &slot, devices, 3), "cuda:0: training 1/1, abc");
    assert_string_equal(reason(&task, &memory, devices, 3),
                        "cuda:1: 5.2 GB needed, 3.1 GB free, 4.0 GB held by other processes");
    task.ask = ASK_ANY_GPU;
    devices[1].used[TRAIN] = 1;
    assert_string_equal(reason(&task, &slot, devices, 3), "cuda: training 2/2, abc");
}

/* For want of memory on any GPU: what keeps the task from each. */
static void reasons_of_every_gpu(void **state)
{
    struct sched_device devices[] = {gpu("cuda:0", 1, 3, 3.1), gpu("cuda:1", 1, 3, 1),     gpu("cuda:2", 1, 3, 6),
                                     gpu("cuda:3", 1, 3, 6),   gpu("cuda:4", 0, 3, 6),     gpu("cuda:5", 1, 3, 2),
                                     gpu("cuda:6", 1, 3, 3),   {.id = "cpu", .gpu = false}};
    struct sched_task task = job("t", TRAIN, ASK_ANY_GPU, 5, 1, 5.2);
    struct sched_verdict memory = {SCHED_WAIT_MEMORY, 0, NULL};

    (void)state;
    devices[2].used[TRAIN] = 1;
    devices[2].holder[TRAIN] = "abc";
    text_set_language("en");
    assert_string_equal(reason(&task, &memory, devices, 8),
                        "cuda:0: 5.2 GB needed, 3.1 GB free, 1.0 GB held by other processes; "
                        "cuda:1: 5.2 GB needed, 1.0 GB free, 1.0 GB held by other processes; "
                        "cuda:2: training 1/1, abc; cuda:4: the limit for training is 0; and 2 GPUs more");
    task.ask = 0;
    assert_string_equal(reason(&task, &memory, devices, 8),
                        "cuda:0: 5.2 GB needed, 3.1 GB free, 1.0 GB held by other processes");
}

/* A GPU that has just failed a task is the last choice for a task that may run on any, and no obstacle for one that
 * names it. */
static void suspects(void **state)
{
    struct sched_device devices[] = {gpu("cuda:0", 1, 3, 20), gpu("cuda:1", 1, 3, 20), cpu(2, 4)};
    struct sched_task any = job("a", TRAIN, ASK_ANY_GPU, 5, 1, 5), second = job("b", TRAIN, ASK_ANY_GPU, 5, 2, 5),
                      named = job("c", TRAIN, 0, 5, 3, 5);
    struct sched_task tasks[] = {any, second, named};

    (void)state;
    text_set_language("en");
    devices[0].suspect = true;
    assert_int_equal(PICK(tasks, devices, 0), 2);
    assert_int_equal(verdicts[0].outcome, SCHED_START);
    assert_int_equal(verdicts[0].device, 1);
    assert_int_equal(verdicts[1].outcome, SCHED_WAIT_SLOT); /* rather waits for the sound one */
    assert_string_equal(reason(&second, &verdicts[1], devices, 3), "cuda: training 1/1, a");
    assert_int_equal(verdicts[2].device, 0);

    struct sched_device both[] = {gpu("cuda:0", 1, 3, 20), gpu("cuda:1", 1, 3, 20), cpu(2, 4)};

    both[0].suspect = both[1].suspect = true; /* then they are as good as each other */
    assert_int_equal(PICK(tasks, both, 0), 2);
    assert_int_equal(verdicts[0].device, 0);
    assert_int_equal(verdicts[1].device, 1);

    struct sched_device closed[] = {gpu("cuda:0", 1, 3, 20), gpu("cuda:1", 0, 3, 20), cpu(2, 4)};

    closed[0].suspect = true; /* and the other takes no trainings */
    assert_int_equal(PICK(tasks, closed, 0), 1);
    assert_int_equal(verdicts[0].device, 0);
}

static void limits_of_cuda_hold_for_gpus_without_their_own(void **state)
{
    struct limits limits;

    (void)state;
    assert_true(limits_init(&limits, 2));
    assert_true(limits_set(&limits, "cuda", TRAIN, 1));
    assert_true(limits_set(&limits, "cuda:1", TRAIN, 4));
    assert_false(limits_set(&limits, "cuda:2", TRAIN, 4));
    assert_false(limits_set(&limits, "gpu", TRAIN, 4));
    assert_int_equal(limits_get(&limits, 0, TRAIN), 1);
    assert_int_equal(limits_get(&limits, 1, TRAIN), 4);
    assert_true(limits_set(&limits, "cuda", TRAIN, 2));
    assert_int_equal(limits_get(&limits, 0, TRAIN), 2);
    assert_int_equal(limits_get(&limits, 1, TRAIN), 4);
    assert_int_equal(limits_get(&limits, ASK_ANY_GPU, TRAIN), 2);
    limits_release(&limits);
}

/* ---- a machine room at random ---- */

enum { ROOM_GPUS = 200, ROOM_TASKS = 3000 };

struct room {
    struct sched_device base[ROOM_GPUS + 1]; /* limits and memory with nothing running */
    struct running {
        struct sched_task task;
        int device;
        double ends;
    } running[ROOM_TASKS];
    struct sched_task waiting[ROOM_TASKS];
    size_t gpu_count, running_count, waiting_count, done;
    double now, longest;
};

/* The devices with what runs now entered, counted anew from the list of what runs. */
static void room_devices(const struct room *room, struct sched_device *devices)
{
    memcpy(devices, room->base, (room->gpu_count + 1) * sizeof *devices);
    for (size_t i = 0; i < room->running_count; i++) {
        struct sched_device *device = &devices[room->running[i].device];

        device->used[room->running[i].task.slot]++;
        device->holder[room->running[i].task.slot] = room->running[i].task.id;
        device->memory_ours += room->running[i].task.memory;
        device->memory_free -=
            room->running[i].task.memory < device->memory_free ? room->running[i].task.memory : device->memory_free;
    }
}

static bool before(const struct sched_task *a, const struct sched_task *b)
{
    return a->priority != b->priority ? a->priority < b->priority : a->seq < b->seq;
}

static bool may_use(const struct room *room, const struct sched_task *task, size_t d)
{
    return task->ask == ASK_ANY_GPU ? d < room->gpu_count
           : task->ask == ASK_CPU   ? d == room->gpu_count
                                    : d == (size_t)task->ask;
}

static void check_pick(const struct room *room, const struct sched_device *after, const struct sched_verdict *verdict)
{
    for (size_t d = 0; d <= room->gpu_count; d++)
        for (int k = 0; k < SLOT_KINDS; k++)
            assert_true(after[d].used[k] <= after[d].limit[k]);
    for (size_t d = 0; d < room->gpu_count; d++)
        assert_true(after[d].memory_ours <= room->base[d].memory_free);
    for (size_t i = 0; i < room->waiting_count; i++) {
        const struct sched_task *task = &room->waiting[i];

        if (verdict[i].outcome == SCHED_START) {
            assert_true(may_use(room, task, (size_t)verdict[i].device));
            continue;
        }
        for (size_t d = 0; d <= room->gpu_count; d++) { /* nothing idles that it could have */
            bool kept = false;

            if (!may_use(room, task, d) || after[d].used[task->slot] >= after[d].limit[task->slot] ||
                after[d].memory_free < task->memory)
                continue;
            for (size_t j = 0; j < room->waiting_count && !kept; j++)
                kept = verdict[j].outcome == SCHED_WAIT_MEMORY && may_use(room, &room->waiting[j], d) &&
                       before(&room->waiting[j], task) && room->now - room->waiting[j].since >= 60;
            assert_true(kept);
        }
        for (size_t j = 0; j < room->waiting_count; j++) /* nobody of the same wishes overtakes */
            if (verdict[j].outcome == SCHED_START && before(task, &room->waiting[j]))
                assert_false(task->ask == room->waiting[j].ask && task->slot == room->waiting[j].slot &&
                             task->memory <= room->waiting[j].memory);
    }
}

static void room_pick(struct room *room, struct random *random)
{
    static struct sched_device devices[ROOM_GPUS + 1];
    static struct sched_verdict room_verdicts[ROOM_TASKS];
    size_t kept = 0, started;

    room_devices(room, devices);
    started =
        sched_pick(room->waiting, room->waiting_count, devices, room->gpu_count + 1, room->now, 60, room_verdicts);
    check_pick(room, devices, room_verdicts);
    for (size_t i = 0; i < room->waiting_count; i++) {
        if (room_verdicts[i].outcome != SCHED_START) {
            room->waiting[kept++] = room->waiting[i];
            continue;
        }
        started--;
        if (room->now - room->waiting[i].since > room->longest)
            room->longest = room->now - room->waiting[i].since;
        room->running[room->running_count++] =
            (struct running){room->waiting[i], room_verdicts[i].device, room->now + 1 + 30 * random_uniform(random)};
    }
    assert_int_equal(started, 0);
    room->waiting_count = kept;
}

static void room_at_random(uint64_t seed, size_t gpus)
{
    static struct room room;
    static char ids[ROOM_TASKS][16];
    struct random random;
    size_t submitted = 0;

    memset(&room, 0, sizeof room);
    random_init(&random, seed, 0);
    room.gpu_count = gpus;
    for (size_t d = 0; d <= gpus; d++)
        room.base[d] = (struct sched_device){.id = d < gpus ? "cuda" : "cpu",
                                             .gpu = d < gpus,
                                             .limit = {1 + random_below(&random, 2), random_below(&random, 4)},
                                             .memory_free = d < gpus ? GB(8 + random_below(&random, 72)) : GB(1e6)};
    room.base[0].limit[INFER] = 3;
    room.base[gpus].limit[INFER] = 2;
    while (room.done < ROOM_TASKS) {
        size_t arriving = submitted < ROOM_TASKS ? random_below(&random, 2 + (uint32_t)gpus / 10) : 0;

        for (; arriving-- && submitted < ROOM_TASKS; submitted++) {
            uint32_t where = random_below(&random, 10);

            snprintf(ids[submitted], sizeof ids[submitted], "t%zu", submitted);
            room.waiting[room.waiting_count++] = (struct sched_task){.id = ids[submitted],
                                                                     .slot = random_below(&random, 2) ? INFER : TRAIN,
                                                                     .ask = where < 6   ? ASK_ANY_GPU
                                                                            : where < 8 ? ASK_CPU
                                                                                        : 0,
                                                                     .priority = 1 + (int)random_below(&random, 10),
                                                                     .seq = (int64_t)submitted,
                                                                     .since = room.now,
                                                                     .memory = GB(random_below(&random, 8)) + 1};
        }
        room_pick(&room, &random);
        room.now += random_uniform(&random);
        for (size_t i = room.running_count; i-- > 0;)
            if (room.running[i].ends <= room.now) {
                room.running[i] = room.running[--room.running_count];
                room.done++;
            }
    }
    assert_int_equal(room.waiting_count + room.running_count, 0);
}

static void machine_rooms(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++)
        room_at_random(seed, seed % 3 == 0 ? ROOM_GPUS : 2 * seed);
}

/* A stream of small tasks that alone would keep the card full for ever. */
static void small_tasks_do_not_starve_a_large_one(void **state)
{
    struct room *room = calloc(1, sizeof *room);
    struct random random;
    double large_started = -1;
    int64_t seq = 0;

    (void)state;
    random_init(&random, 3, 0);
    room->gpu_count = 1;
    room->base[0] = gpu("cuda:0", 1, 4, 40);
    room->base[1] = cpu(1, 1);
    for (int i = 0; i < 600 && large_started < 0; i++) {
        if (i == 20)
            room->waiting[room->waiting_count++] = (struct sched_task){
                .id = "large", .slot = INFER, .ask = 0, .priority = 3, .seq = ++seq, .since = i, .memory = GB(35)};
        while (room->waiting_count < 6)
            room->waiting[room->waiting_count++] = (struct sched_task){
                .id = "small", .slot = INFER, .ask = 0, .priority = 3, .seq = ++seq, .since = i, .memory = GB(9)};
        room_pick(room, &random);
        room->now = i + 1;
        for (size_t k = room->running_count; k-- > 0;) {
            if (strcmp(room->running[k].task.id, "large") == 0)
                large_started = i;
            if (room->running[k].ends <= room->now)
                room->running[k] = room->running[--room->running_count];
        }
    }
    assert_true(large_started >= 0);
    assert_true(large_started - 20 <= 60 + 31 + 1); /* the bound and the longest of what ran */
    free(room);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(device_texts),
        cmocka_unit_test(least_loaded_gpu_with_a_slot),
        cmocka_unit_test(ties_go_to_the_lower_index),
        cmocka_unit_test(a_card_that_others_use_comes_last),
        cmocka_unit_test(limits_and_memory_of_each_gpu_count),
        cmocka_unit_test(priority_then_age),
        cmocka_unit_test(reservation_after_the_bound),
        cmocka_unit_test(the_cpu_takes_one_whatever_its_memory),
        cmocka_unit_test(reasons),
        cmocka_unit_test(reasons_of_every_gpu),
        cmocka_unit_test(suspects),
        cmocka_unit_test(limits_of_cuda_hold_for_gpus_without_their_own),
        cmocka_unit_test(machine_rooms),
        cmocka_unit_test(small_tasks_do_not_starve_a_large_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
